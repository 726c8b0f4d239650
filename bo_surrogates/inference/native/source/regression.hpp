// Bayesian linear regression on the last hidden layer: what is left where the output layer is
// integrated out. Formulas and symbols: networks/posterior.py. In double precision.
//
// With rows divided by the noise's standard deviation, G' = V^-1/2 G and y' = V^-1/2 y,
//
//     A = I + G'^T G' (p x p, p = width + 1)   or, if n <= p,   B = I + G' G'^T (n x n)
//
// gives everything: |A| = |B|, and G' A^-1 = B^-1 G'. The smaller one is inverted.
#pragma once
#include "inverse.hpp"
#include "memory.hpp"
#include "problem.hpp"

class Regression {
 public:
  explicit Regression(const Problem& problem)
      : n_(problem.points), p_(problem.width + 1), m_(problem.outputs), lp_(padded<double>(p_)),
        ln_(padded<double>(n_)), dual_(n_ <= p_), size_(dual_ ? n_ : p_),
        ld_(dual_ ? ln_ : lp_), scales_(problem.output_scales) {}

  size_t bytes() const {
    return 2 * Memory::bytes<double>(n_ * lp_) + Memory::bytes<double>(dual_ ? lp_ * ln_ : 0) +
           Memory::bytes<double>(size_ * ld_) + Memory::bytes<double>(2 * PIVOTS * ld_) +
           3 * Memory::bytes<double>(n_) + 2 * Memory::bytes<double>(lp_);
  }

  struct Room {
    double *G, *gain, *GT, *M, *pivots, *root, *y, *a, *b, *rhs;
  };
  Room room(Memory& memory) const {
    Room r;
    r.G = memory.take<double>(n_ * lp_);
    r.gain = memory.take<double>(n_ * lp_);
    r.GT = memory.take<double>(dual_ ? lp_ * ln_ : 0);
    r.M = memory.take<double>(size_ * ld_);
    r.pivots = memory.take<double>(2 * PIVOTS * ld_);
    r.root = memory.take<double>(n_);
    r.y = memory.take<double>(n_);
    r.a = memory.take<double>(n_);
    r.b = memory.take<double>(lp_);
    r.rhs = memory.take<double>(lp_);
    return r;
  }

  struct Result {
    double marginal;  // y^T C^-1 y + log|A|
    double fit;       // sum of r^2 / v
    double used;      // tr(G A^-1 G^T V^-1)
  };

  // One output. h is n x ldh; precision(i) is 1 / v_i; the gradient of the log density by h is added
  // to D, of h's shape.
  template <class T, class Precision>
  Result operator()(long output, const T* h, long ldh, const T* targets, Precision precision, T* D,
                    const Room& r) const {
    const double* scale = scales_ + output * p_;
    const long width = p_ - 1;
    for (long i = 0; i < n_; i++) {
      const double root = r.root[i] = std::sqrt(precision(i));
      r.y[i] = root * targets[i * m_ + output];
      double* G = r.G + i * lp_;
      for (long k = 0; k < width; k++) G[k] = root * scale[k] * h[i * ldh + k];
      G[width] = root * scale[width];
    }
    Result result;
    if (dual_) {
      transpose(r.G, lp_, n_, lp_, r.GT, ln_);
      gram(r.G, lp_, 1, r.GT, ln_, p_, r.M);
    } else {
      gram(r.G, 1, lp_, r.G, lp_, n_, r.M);
    }
    const double log_determinant = invert(size_, ld_, r.M, r.pivots);
    double trace = 0.0;
    for (long i = 0; i < size_; i++) trace += r.M[i * ld_ + i];
    result.used = size_ - trace;
    if (dual_) {
      multiply(r.M, ld_, r.y, n_, n_, r.a);
      gemm<double>(1, lp_, n_, r.a, 0, 1, r.G, lp_, r.b, lp_, r.b, From::ZERO);
      gemm<double>(n_, lp_, n_, r.M, ld_, 1, r.G, lp_, r.gain, lp_, r.gain, From::ZERO);
    } else {
      gemm<double>(1, lp_, n_, r.y, 0, 1, r.G, lp_, r.rhs, lp_, r.rhs, From::ZERO);
      gemm<double>(1, lp_, p_, r.rhs, 0, 1, r.M, ld_, r.b, lp_, r.b, From::ZERO);
      multiply(r.G, lp_, r.b, n_, p_, r.a);
      for (long i = 0; i < n_; i++) r.a[i] = r.y[i] - r.a[i];
      gemm<double>(n_, lp_, p_, r.G, lp_, 1, r.M, ld_, r.gain, lp_, r.gain, From::ZERO);
    }
    double fit = 0.0, norm = 0.0;
    for (long i = 0; i < n_; i++) fit += r.a[i] * r.a[i];
    for (long k = 0; k < p_; k++) norm += r.b[k] * r.b[k];
    result.fit = fit;
    result.marginal = fit + norm + log_determinant;
    for (long i = 0; i < n_; i++) {
      const double root = r.root[i], a = r.a[i], *gain = r.gain + i * lp_;
      for (long k = 0; k < width; k++)
        D[i * ldh + k] += T(root * scale[k] * (a * r.b[k] - gain[k]));
    }
    return result;
  }

 private:
  // M = I + A B, symmetric: the tiles below the diagonal are copied.
  void gram(const double* A, long ra, long ca, const double* B, long ldb, long depth,
            double* M) const {
    constexpr long BLOCK = 8 > LANES<double> ? 8 : LANES<double>;
    for (long i = 0; i < size_; i += BLOCK) {
      const long rows = size_ - i < BLOCK ? size_ - i : BLOCK;
      gemm<double>(rows, ld_ - i, depth, A + i * ra, ra, ca, B + i, ldb, M + i * ld_ + i, ld_, M,
                   From::ZERO);
      for (long k = i; k < i + rows; k++)
        for (long j = 0; j < i; j++) M[k * ld_ + j] = M[j * ld_ + k];
    }
    for (long i = 0; i < size_; i++) M[i * ld_ + i] += 1.0;
  }

  // out = M x for a matrix whose rows are padded with zeros, as x is.
  static void multiply(const double* M, long ld, const double* x, long rows, long columns,
                       double* out) {
    for (long i = 0; i < rows; i++) {
      Vector<double> total{};
      for (long k = 0; k < columns; k += LANES<double>) total += load(M + i * ld + k) * load(x + k);
      out[i] = sum<double>(total);
    }
  }

  const long n_, p_, m_, lp_, ln_;
  const bool dual_;
  const long size_, ld_;
  const double* scales_;
};
