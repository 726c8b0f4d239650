// Inverse and determinant of a symmetric positive definite matrix.
#pragma once
#include <cmath>
#include "gemm.hpp"

constexpr int PIVOTS = 8;

// Blocked Gauss-Jordan elimination in place: with P the pivots' block, and R and F the rest of its
// rows and columns, (P, R; F, S) -> (P^-1, P^-1 R; -F P^-1, S - F P^-1 R). Without pivoting, which a
// positive definite matrix does not need; all work but the blocks' own is products of matrices.
// M is n x n in rows of ld; room has 2 PIVOTS ld numbers.
// Returns the logarithm of the determinant, not a number where M is not positive definite.
static double invert(long n, long ld, double* M, double* room) {
  double* rows = room;                  // PIVOTS x ld
  double* factors = room + PIVOTS * ld; // n x PIVOTS
  double log_determinant = 0.0;
  for (long k = 0; k < n; k += PIVOTS) {
    const int b = n - k < PIVOTS ? n - k : PIVOTS;
    double P[PIVOTS][PIVOTS];
    for (int i = 0; i < b; i++)
      for (int j = 0; j < b; j++) P[i][j] = M[(k + i) * ld + k + j];
    for (int p = 0; p < b; p++) {
      const double pivot = P[p][p];
      if (!(pivot > 0.0)) return NAN;
      log_determinant += std::log(pivot);
      P[p][p] = 1.0;
      for (int j = 0; j < b; j++) P[p][j] /= pivot;
      for (int i = 0; i < b; i++) {
        if (i == p) continue;
        const double f = P[i][p];
        P[i][p] = 0.0;
        for (int j = 0; j < b; j++) P[i][j] -= f * P[p][j];
      }
    }
    for (long i = 0; i < n; i++)
      for (int j = 0; j < b; j++) {
        const bool inside = i >= k && i < k + b;
        factors[i * PIVOTS + j] = inside ? 0.0 : -M[i * ld + k + j];
        if (!inside) M[i * ld + k + j] = 0.0;
      }
    gemm<double>(b, ld, b, &P[0][0], PIVOTS, 1, M + k * ld, ld, rows, ld, rows, From::ZERO);
    for (int i = 0; i < b; i++)
      for (int j = 0; j < b; j++) rows[i * ld + k + j] = P[i][j];
    memcpy(M + k * ld, rows, sizeof(double) * b * ld);
    gemm<double>(n, ld, b, factors, PIVOTS, 1, rows, ld, M, ld, rows, From::C);
  }
  return log_determinant;
}
