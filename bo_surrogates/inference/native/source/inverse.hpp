// Inverse and determinant of a symmetric positive definite matrix.
#pragma once
#include <cmath>
#include "gemm.hpp"

constexpr int PIVOTS = 8;
typedef double Row __attribute__((vector_size(PIVOTS * sizeof(double)), may_alias));

// Blocked Gauss-Jordan elimination in place: with P the pivots' block, and R and F the rest of its
// rows and columns, (P, R; F, S) -> (P^-1, P^-1 R; -F P^-1, S - F P^-1 R). Without pivoting, which a
// positive definite matrix does not need; all work but the blocks' own is products of matrices.
// M is n x n in rows of ld; room has 2 PIVOTS ld numbers.
// Returns the logarithm of the determinant, not a number where M is not positive definite.
static double invert(long n, long ld, double* M, double* room) {
  constexpr int L = LANES<double>;
  double* rows = room;                   // PIVOTS x ld
  double* factors = room + PIVOTS * ld;  // n x PIVOTS
  double log_determinant = 0.0;
  for (long k = 0; k < n; k += PIVOTS) {
    const int b = n - k < PIVOTS ? n - k : PIVOTS;
    const int wide = padded<double>(b);  // the last block's columns end with the padding
    // The block, with rows and columns of the identity where the last one is smaller: its rows stay
    // in registers. (Writing a number to memory and reading its row stalls the processor.)
    Row P[PIVOTS];
#pragma GCC unroll 8
    for (int i = 0; i < PIVOTS; i++) {
      double row[PIVOTS] = {};
      row[i] = 1.0;
      if (i < b) memcpy(row, M + (k + i) * ld + k, sizeof(double) * b);
      memcpy(&P[i], row, sizeof(Row));
    }
    double determinant = 1.0;
#pragma GCC unroll 8
    for (int p = 0; p < PIVOTS; p++) {
      const double pivot = P[p][p];
      if (!(pivot > 0.0)) return NAN;
      determinant *= pivot;
      if (p % 4 == 3) {  // of a few pivots: a logarithm takes as long as all their other work
        log_determinant += std::log(determinant);
        determinant = 1.0;
      }
      P[p][p] = 1.0;
      P[p] *= 1.0 / pivot;
#pragma GCC unroll 8
      for (int i = 0; i < PIVOTS; i++) {
        if (i == p) continue;
        const double f = P[i][p];
        P[i][p] = 0.0;
        P[i] -= f * P[p];
      }
    }
    for (long i = 0; i < n; i++)
      for (int j = 0; j < wide; j += L) {
        const bool inside = i >= k && i < k + b;
        double* place = M + i * ld + k + j;
        store(factors + i * PIVOTS + j, inside ? Vector<double>{} : -load(place));
        if (!inside) store(place, Vector<double>{});
      }
    const double* block = reinterpret_cast<const double*>(P);
    gemm<double>(b, ld, b, block, PIVOTS, 1, M + k * ld, ld, rows, ld, rows, From::ZERO);
    for (int i = 0; i < b; i++) memcpy(rows + i * ld + k, &P[i], sizeof(double) * b);
    memcpy(M + k * ld, rows, sizeof(double) * b * ld);
    gemm<double>(n, ld, b, factors, PIVOTS, 1, rows, ld, M, ld, rows, From::C);
  }
  return log_determinant;
}
