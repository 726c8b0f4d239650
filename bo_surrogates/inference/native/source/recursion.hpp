// The covariance recursion of infinitely wide networks; formulas and symbols:
// kernels/recursion.py. A vector holds pairs of one row with neighbouring columns and goes through
// all layers in registers.
#pragma once
#include <algorithm>
#include "dual.hpp"
#include "gemm.hpp"
#include "memory.hpp"

// `matrices` matrices of rows x columns, contiguous. Strides lead from one matrix's to the next's
// and are 0 where all share one. Has its mirror in covariances.py.
struct Recursion {
  int64_t activation, depth;       // the former a Dual
  double first, second;            // the activation's numbers
  double weight_variance, skip;    // sw, a
  int64_t inputs, rows, columns, matrices;
  int64_t symmetric;               // whether z1 is z2
  int64_t factor1_step;            // from row to row: 1, or 0 where all share one
  int64_t z1_stride, z2_stride, bias_stride, factor1_stride, factor2_stride;
  const double *z1, *z2;           // rows x inputs, columns x inputs
  const double *bias;              // sb
  const double *factor1, *factor2; // of rows and columns; the latter may be null
};

// Points of one side of a matrix; those that fill up the last vector are the first once more.
struct Points {
  long ld;                // their number, padded
  double *z;              // inputs x ld
  double *first, *second; // what Dual::prepare keeps of each layer's variances, depth x ld
  double *K, *T;          // variances of the output, ld
};

template <class Dual> class Layers {
  static constexpr int L = LANES<double>;

 public:
  static constexpr long ROWS = 32, COLUMNS = 128;  // of what is computed at a time

  Layers(const Recursion& problem, const Dual& dual)
      : p_(problem), dual_(dual), sw_(problem.weight_variance),
        scale_(problem.weight_variance / problem.inputs) {}

  size_t bytes(long count) const {
    return Memory::bytes<double>((p_.inputs + 2 * p_.depth + 2) * padded<double>(count));
  }

  Points points(const double* z, long count, double bias, Memory& memory) const {
    const long ld = padded<double>(count), d = p_.inputs;
    double* room = memory.take<double>((d + 2 * p_.depth + 2) * ld);
    Points s{ld, room, room + d * ld, room + (d + p_.depth) * ld};
    s.K = s.second + p_.depth * ld;
    s.T = s.K + ld;
    for (long j = 0; j < ld; j++)
      for (long k = 0; k < d; k++) s.z[k * ld + j] = z[(j < count ? j : 0) * d + k];
    for (long j = 0; j < ld; j += L) {
      V square{};
      for (long k = 0; k < d; k++) square += load(s.z + k * ld + j) * load(s.z + k * ld + j);
      V q = scale_ * square + bias, T = q;
      for (long l = 0; l < p_.depth; l++) {
        V first, second, F, Fd;
        dual_.prepare(q, first, second);
        store(s.first + l * ld + j, first);
        store(s.second + l * ld + j, second);
        dual_.diagonal(q, F, Fd);
        mix(l, bias, F, Fd, q, T);
      }
      store(s.K + j, q);
      store(s.T + j, T);
    }
    return s;
  }

  static size_t room_bytes() { return 2 * Memory::bytes<double>(ROWS * COLUMNS); }

  // Rows from `start` on of matrix b, to K and T, each of which may be null.
  template <bool TANGENT>
  void rows(long b, long start, const Points& one, const Points& two, double* K, double* T,
            double* roomK, double* roomT) const {
    const long count = std::min(ROWS, long(p_.rows) - start), n = p_.columns;
    const long end = p_.symmetric ? start + count : n;
    const double bias = p_.bias[b * p_.bias_stride];
    const double* factor1 = p_.factor1 + b * p_.factor1_stride;
    for (long from = 0; from < end; from += COLUMNS) {
      const long width = std::min(COLUMNS, padded<double>(end - from));
      const double* factor2 =
          p_.factor2 == nullptr ? nullptr : p_.factor2 + b * p_.factor2_stride + from;
      products(b, start, count, from, width, two, roomK);
      for (long r = 0; r < count; r++) {
        const long i = start + r, here = std::min(width, (p_.symmetric ? i + 1 : end) - from);
        double *rowK = roomK + r * COLUMNS, *rowT = roomT + r * COLUMNS;
        long j = 0;
        for (; j + 3 * L < here; j += 4 * L)
          through<TANGENT, 4>(i, from + j, bias, one, two, rowK + j, rowT + j);
        for (; j < here; j += L)
          through<TANGENT, 1>(i, from + j, bias, one, two, rowK + j, rowT + j);
        if (p_.symmetric && i - from < here) {  // exactly: half of an angle's digits are lost here
          rowK[i - from] = one.K[i];
          rowT[i - from] = one.T[i];
        }
        const double factor = factor1[i * p_.factor1_step];
        if (K != nullptr) put(rowK, factor, factor2, here, K + i * n + from);
        if (T != nullptr) put(rowT, factor, factor2, here, T + i * n + from);
      }
      if (p_.symmetric) {
        if (K != nullptr) mirror(roomK, start, count, from, width, K);
        if (T != nullptr) mirror(roomT, start, count, from, width, T);
      }
    }
  }

 protected:
  double share(long layer) const { return layer < p_.depth - 1 ? p_.skip : 0.0; }

  // z.z' of a block of rows and columns.
  void products(long b, long start, long rows, long from, long width, const Points& two,
                double* room) const {
    const long d = p_.inputs;
    gemm<double>(rows, width, d, p_.z1 + b * p_.z1_stride + start * d, d, 1, two.z + from, two.ld,
                 room, COLUMNS, room, From::ZERO);
  }

  // One layer, given its dual maps.
  INLINE void mix(long layer, double bias, V F, V Fd, V& K, V& T) const {
    const double a = share(layer);
    const V D = sw_ * F + bias;
    T = a * T + (1.0 - a) * (D + sw_ * Fd * T);
    K = a * K + (1.0 - a) * D;
  }

  // N vectors of row i from column j on: z.z' in K become the output's covariances, in K and T.
  template <bool TANGENT, int N>
  INLINE void through(long i, long j, double bias, const Points& one, const Points& two, double* K,
                      double* T) const {
    V k[N], t[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) k[v] = t[v] = scale_ * load(K + v * L) + bias;
    for (long l = 0; l < p_.depth; l++) {
      const V first = all<double>(one.first[l * one.ld + i]);
      const V second = all<double>(one.second[l * one.ld + i]);
      const double *others = two.first + l * two.ld + j, *more = two.second + l * two.ld + j;
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) {
        V F, Fd{};
        dual_.template pair<TANGENT>(first, second, load(others + v * L), load(more + v * L), k[v],
                                     F, Fd);
        mix(l, bias, F, Fd, k[v], t[v]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) {
      store(K + v * L, k[v]);
      if (TANGENT) store(T + v * L, t[v]);
    }
  }

  // Times factors, in place and to memory.
  static void put(double* row, double factor, const double* factors, long count, double* to) {
    if (factors == nullptr)
      for (long j = 0; j < count; j++) row[j] *= factor;
    else
      for (long j = 0; j < count; j++) row[j] *= factor * factors[j];
    memcpy(to, row, sizeof(double) * count);
  }

  // What is below the diagonal, to above.
  void mirror(const double* block, long start, long count, long from, long width, double* to) const {
    for (long j = 0; j < std::min(width, start + count - from); j++) {
      double* row = to + (from + j) * p_.columns + start;
      for (long r = std::max(0L, from + j - start + 1); r < count; r++)
        row[r] = block[r * COLUMNS + j];
    }
  }

  const Recursion& p_;
  const Dual dual_;
  const double sw_, scale_;
};
