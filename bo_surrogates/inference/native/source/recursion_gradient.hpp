// Derivatives of the covariance recursion: a block's layers are computed once more, and kept; then
// the chain rule from the last to the first.
#pragma once
#include "recursion.hpp"

constexpr int MOST_LAYERS = 32;  // the caller sees to it

// Derivatives of a scalar s, given those in one matrix K and one T, either of which may be null.
struct Incoming {
  const double *K, *T;
};

// What is to be summed up over rows and columns of one matrix.
struct Sums {
  double *variances, *factors;  // by the layers' variances, depth x ld, and by factors, ld
};

template <class Dual> class Gradients : public Layers<Dual> {
  typedef Layers<Dual> Base;
  static constexpr int L = LANES<double>;
  using Base::dual_;
  using Base::p_;
  using Base::scale_;
  using Base::sw_;

 public:
  using Base::Base;
  using Base::COLUMNS;
  using Base::ROWS;

  static size_t room_bytes() { return 3 * Memory::bytes<double>(ROWS * COLUMNS); }
  long numbers(long ld) const { return (p_.depth + 1) * ld; }
  Sums sums(double* room, long ld) const { return {room, room + p_.depth * ld}; }

  // Rows from `start` on of matrix b: ds / dK of the first layer, to W. Sums over columns are stored
  // in `by_row`, those over rows added to `by_column`. Returns what the bias adds to every layer.
  //
  // Of a symmetric matrix an entry stands for its mirror image as well, and W holds the derivatives
  // in z.z' + z'.z.
  template <bool TANGENT>
  double rows(long b, long start, const Points& one, const Points& two, Incoming s, double* W,
              Sums by_row, Sums by_column, double* room, double* roomK, double* roomT) const {
    const long count = std::min(ROWS, long(p_.rows) - start), n = p_.columns;
    const long end = p_.symmetric ? start + count : n;
    const double bias = p_.bias[b * p_.bias_stride];
    const double* factor1 = p_.factor1 + b * p_.factor1_stride;
    V total{};
    for (long from = 0; from < end; from += COLUMNS) {
      const long width = std::min(COLUMNS, padded<double>(end - from));
      const double* factor2 =
          p_.factor2 == nullptr ? nullptr : p_.factor2 + b * p_.factor2_stride + from;
      this->products(b, start, count, from, width, two, room);
      gather(s.K, start, count, from, width, end, roomK);
      gather(s.T, start, count, from, width, end, roomT);
      for (long r = 0; r < count; r++) {
        const long i = start + r, here = std::min(width, (p_.symmetric ? i + 1 : end) - from);
        const double factor = factor1[i * p_.factor1_step];
        V variances[MOST_LAYERS] = {}, factors{};
        for (long j = 0; j < here; j += L) {
          V other = all<double>(1.0);
          if (factor2 != nullptr) {
            double some[L] = {};
            memcpy(some, factor2 + j, sizeof(double) * std::min(long(L), here - j));
            memcpy(&other, some, sizeof(other));
          }
          const long at = r * COLUMNS + j;
          back<TANGENT>(i, from + j, bias, one, two, factor, other, room + at, load(roomK + at),
                        load(roomT + at), variances, factors, by_column, total);
        }
        for (long l = 0; l < p_.depth; l++)
          by_row.variances[l * one.ld + i] += sum<double>(variances[l]);
        by_row.factors[i] += sum<double>(factors);
        if (p_.symmetric && i - from < here) room[r * COLUMNS + i - from] *= 2.0;
        memcpy(W + i * n + from, room + r * COLUMNS, sizeof(double) * here);
      }
      if (p_.symmetric) this->mirror(room, start, count, from, width, W);
    }
    return sum<double>(total);
  }

  // From derivatives in each layer's variances to those in the first one's, in place of these.
  // Returns what the bias adds.
  double through_layers(const Points& points, long count, double* variances) const {
    double total = 0.0;
    for (long l = p_.depth - 2; l >= 0; l--) {
      const double a = this->share(l);
      double *these = variances + l * points.ld, *next = these + points.ld;
      for (long j = 0; j < points.ld; j += L) {
        const V slope = dual_.diagonal_slope(load(points.first + l * points.ld + j),
                                             load(points.second + l * points.ld + j));
        store(these + j, load(these + j) + load(next + j) * (a + (1.0 - a) * sw_ * slope));
      }
      for (long j = 0; j < count; j++) total += (1.0 - a) * next[j];
    }
    for (long j = 0; j < count; j++) total += variances[j];
    return total;
  }

 private:
  // Incoming derivatives of a block, with zeros where there are none.
  void gather(const double* from, long start, long count, long first, long width, long end,
              double* to) const {
    const long n = p_.columns;
    for (long r = 0; r < count; r++) {
      const long i = start + r, here = std::min(width, (p_.symmetric ? i + 1 : end) - first);
      double* row = to + r * COLUMNS;
      memset(row, 0, sizeof(double) * width);
      if (from != nullptr) memcpy(row, from + i * n + first, sizeof(double) * here);
    }
    if (!p_.symmetric || from == nullptr) return;
    for (long j = 0; j < std::min(width, start + count - first); j++) {
      const double* column = from + (first + j) * n + start;
      for (long r = std::max(0L, first + j - start + 1); r < count; r++)
        to[r * COLUMNS + j] += column[r];
    }
  }

  template <bool TANGENT>
  INLINE void back(long i, long j, double bias, const Points& one, const Points& two, double factor,
                   V other, double* entry, V byK, V byT, V* variances, V& factors, Sums by_column,
                   V& total) const {
    V K[MOST_LAYERS + 1], T[MOST_LAYERS + 1], F[MOST_LAYERS], Fd[MOST_LAYERS];
    K[0] = T[0] = scale_ * load(entry) + bias;
    for (long l = 0; l < p_.depth; l++) {
      dual_.template pair<true>(all<double>(one.first[l * one.ld + i]),
                                all<double>(one.second[l * one.ld + i]),
                                load(two.first + l * two.ld + j), load(two.second + l * two.ld + j),
                                K[l], F[l], Fd[l]);
      K[l + 1] = K[l];
      T[l + 1] = T[l];
      this->mix(l, bias, F[l], Fd[l], K[l + 1], T[l + 1]);
    }
    const V scaled = TANGENT ? byK * K[p_.depth] + byT * T[p_.depth] : byK * K[p_.depth];
    factors += scaled * other;
    store(by_column.factors + j, load(by_column.factors + j) + scaled * factor);
    V k = byK * (factor * other), t = TANGENT ? byT * (factor * other) : V{};
    for (long l = p_.depth - 1; l >= 0; l--) {
      const double a = this->share(l);
      const V first = all<double>(one.first[l * one.ld + i]);
      const V second = all<double>(one.second[l * one.ld + i]);
      const Slopes d = dual_.template slopes<TANGENT>(
          first, second, load(two.first + l * two.ld + j), load(two.second + l * two.ld + j), K[l],
          F[l], Fd[l]);
      const V byD = (1.0 - a) * (k + t), byF = sw_ * byD;
      total += byD;
      double* column = by_column.variances + l * two.ld + j;
      V q1 = byF * d.F1, q2 = byF * d.F2;
      k = a * k + byF * Fd[l];
      if (TANGENT) {
        const V byFd = (1.0 - a) * sw_ * T[l] * t;
        k += byFd * d.FdK;
        q1 += byFd * d.Fd1;
        q2 += byFd * d.Fd2;
        t = a * t + (1.0 - a) * sw_ * Fd[l] * t;
      }
      variances[l] += q1;
      store(column, load(column) + q2);
    }
    k += t;  // T begins as K
    total += k;
    store(entry, k);
  }
};
