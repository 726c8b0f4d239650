// Log posterior density of one network and its gradient; formulas in networks/posterior.py.
#pragma once
#include <algorithm>
#include "activation.hpp"
#include "gemm.hpp"
#include "memory.hpp"
#include "problem.hpp"
#include "regression.hpp"

// Parameters are kept with rows padded: of each hidden layer (inputs + 1) x width, the last row the
// bias; then, if it is sampled, the output layer as outputs x width and a row of biases; then, if
// they are inferred, the log variances.
template <class T> class Network {
  static constexpr int L = LANES<T>;

 public:
  explicit Network(const Problem& problem)
      : q_(problem), regression_(problem), n_(problem.points), W_(problem.width),
        ldw_(padded<T>(W_)), m_(problem.outputs), ldm_(padded<T>(m_)) {
    long start = 0;
    for (int l = 0; l < q_.depth; l++) {
      layer_[l] = start;
      start += (fan_in(l) + 1) * ldw_;
    }
    output_ = start;
    if (!q_.collapsed) start += m_ * ldw_ + ldm_;
    noise_ = start;
    size_ = start + (q_.noise == KNOWN ? 0 : ldm_);
  }

  long size() const { return size_; }  // numbers, with the padding

  // Numbers without padding, in theta's order.
  long flat() const {
    long weights = 0;
    for (int l = 0; l < q_.depth; l++) weights += (fan_in(l) + 1) * W_;
    return weights + (q_.collapsed ? 0 : (W_ + 1) * m_) + (q_.noise == KNOWN ? 0 : m_);
  }

  // To padded. The padding is zeroed every time: a network that was not finite has spoilt it.
  void pack(const T* from, T* to, bool with_noise = true) const {
    memset(to, 0, sizeof(T) * size_);
    fill(from, to, with_noise);
  }

  // The same where the padding is known to be zero.
  void fill(const T* from, T* to, bool with_noise = true) const {
    for (int l = 0; l < q_.depth; l++)
      for (long i = 0; i <= fan_in(l); i++, from += W_)
        memcpy(to + layer_[l] + i * ldw_, from, sizeof(T) * W_);
    if (!q_.collapsed) {
      for (long i = 0; i < W_; i++)
        for (long j = 0; j < m_; j++) to[output_ + j * ldw_ + i] = *from++;
      for (long j = 0; j < m_; j++) to[output_ + m_ * ldw_ + j] = *from++;
    }
    if (q_.noise != KNOWN && with_noise) memcpy(to + noise_, from, sizeof(T) * m_);
  }

  void unpack(const T* from, T* to) const {
    for (int l = 0; l < q_.depth; l++)
      for (long i = 0; i <= fan_in(l); i++, to += W_)
        memcpy(to, from + layer_[l] + i * ldw_, sizeof(T) * W_);
    if (!q_.collapsed) {
      for (long i = 0; i < W_; i++)
        for (long j = 0; j < m_; j++) *to++ = from[output_ + j * ldw_ + i];
      for (long j = 0; j < m_; j++) *to++ = from[output_ + m_ * ldw_ + j];
    }
    if (q_.noise != KNOWN) memcpy(to, from + noise_, sizeof(T) * m_);
  }

  struct Room {
    T *h[4], *slope[4], *D[2], *transposed, *weighted;
    Regression::Room regression;
  };

  size_t bytes() const {
    const size_t layer = Memory::bytes<T>(n_ * ldw_);
    const int slopes = stores_slope(q_.activation) ? q_.depth : 0;
    return (q_.depth + slopes + 2) * layer + Memory::bytes<T>(ldw_ * ldw_) +
           Memory::bytes<T>(n_ * m_) + (q_.collapsed ? regression_.bytes() : 0);
  }

  Room room(Memory& memory) const {
    Room r;
    for (int l = 0; l < q_.depth; l++) {
      r.h[l] = memory.take<T>(n_ * ldw_);
      r.slope[l] = stores_slope(q_.activation) ? memory.take<T>(n_ * ldw_) : nullptr;
    }
    for (auto& D : r.D) D = memory.take<T>(n_ * ldw_);
    r.transposed = memory.take<T>(ldw_ * ldw_);
    r.weighted = memory.take<T>(n_ * m_);
    if (q_.collapsed) r.regression = regression_.room(memory);
    return r;
  }

  // Log density of network `index` at theta; its gradient is written. Both padded, as is the prior's
  // precision.
  double operator()(long index, const T* theta, const T* precision, T* gradient,
                    const Room& r) const {
    double value = prior(theta, precision, gradient);
    const T* X = static_cast<const T*>(q_.X);
    hidden(n_, theta, X, r.h, r.slope);
    const int last = q_.depth - 1;
    T *D = r.D[0], *other = r.D[1];
    value += q_.collapsed ? marginal(index, theta, r.h[last], gradient, D, r)
                          : likelihood(index, theta, r.h[last], gradient, D, r);
    for (int l = last; l >= 0; l--) {
      T* into = gradient + layer_[l];
      differentiate<T>(q_.activation, n_, ldw_, D, r.h[l], r.slope[l], into + fan_in(l) * ldw_);
      const T* before = l == 0 ? X : r.h[l - 1];
      gemm<T>(fan_in(l), ldw_, n_, before, 1, l == 0 ? q_.inputs : ldw_, D, ldw_, into, ldw_, into,
              From::C);
      if (l > 0) {
        transpose(theta + layer_[l], ldw_, W_, ldw_, r.transposed, ldw_);
        gemm<T>(n_, ldw_, W_, D, ldw_, 1, r.transposed, ldw_, other, ldw_, other, From::ZERO);
        std::swap(D, other);
      }
    }
    return value;
  }

  // Of values at given inputs, at most `points` of them at a time.
  struct EvaluationRoom {
    T *h[4], *slope[4], *D[2], *transposed;
  };

  size_t evaluation_bytes() const {
    const int slopes = stores_slope(q_.activation) ? q_.depth : 0;
    return (q_.depth + slopes) * Memory::bytes<T>(n_ * ldw_) +
           2 * Memory::bytes<T>(m_ * n_ * widest()) + Memory::bytes<T>(widest() * ldw_);
  }

  EvaluationRoom evaluation_room(Memory& memory) const {
    EvaluationRoom r;
    for (int l = 0; l < q_.depth; l++) {
      r.h[l] = memory.take<T>(n_ * ldw_);
      r.slope[l] = stores_slope(q_.activation) ? memory.take<T>(n_ * ldw_) : nullptr;
    }
    for (auto& D : r.D) D = memory.take<T>(m_ * n_ * widest());
    r.transposed = memory.take<T>(widest() * ldw_);
    return r;
  }

  // Outputs at `rows` <= `points` inputs X, rows x outputs; and, unless `jacobian` is null, their
  // derivatives in the inputs, rows x outputs x inputs. The output layer is one of theta's.
  void evaluate(long rows, const T* theta, const T* X, T* values, T* jacobian,
                const EvaluationRoom& r) const {
    hidden(rows, theta, X, r.h, r.slope);
    const int last = q_.depth - 1;
    const T *w = theta + output_, *bias = w + m_ * ldw_;
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < m_; j++) {
        Vector<T> dot{};
        for (long k = 0; k < ldw_; k += L)
          dot += load(r.h[last] + i * ldw_ + k) * load(w + j * ldw_ + k);
        values[i * m_ + j] = sum<T>(dot) + bias[j];
      }
    if (jacobian == nullptr) return;
    // D holds an output's rows after another's: a matrix is transposed once for all.
    T *D = r.D[0], *other = r.D[1];
    for (long j = 0; j < m_; j++)
      for (long i = 0; i < rows; i++)
        memcpy(D + (j * rows + i) * ldw_, w + j * ldw_, sizeof(T) * ldw_);
    for (int l = last; l >= 0; l--) {
      for (long j = 0; j < m_; j++)
        differentiate<T>(q_.activation, rows * ldw_, D + j * rows * ldw_, r.h[l], r.slope[l]);
      const long columns = padded<T>(fan_in(l));
      transpose(theta + layer_[l], ldw_, fan_in(l), ldw_, r.transposed, columns);
      gemm<T>(m_ * rows, columns, W_, D, ldw_, 1, r.transposed, columns, other, columns, other,
              From::ZERO);
      std::swap(D, other);
    }
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < m_; j++, jacobian += q_.inputs)
        memcpy(jacobian, D + (j * rows + i) * padded<T>(q_.inputs), sizeof(T) * q_.inputs);
  }

 private:
  long fan_in(int l) const { return l == 0 ? q_.inputs : W_; }
  long widest() const { return std::max(ldw_, padded<T>(q_.inputs)); }

  // The hidden layers' values, and slopes where they are needed, at `rows` inputs.
  void hidden(long rows, const T* theta, const T* X, T* const* h, T* const* slope) const {
    for (int l = 0; l < q_.depth; l++) {
      const T *W = theta + layer_[l], *before = l == 0 ? X : h[l - 1];
      gemm<T>(rows, ldw_, fan_in(l), before, l == 0 ? q_.inputs : ldw_, 1, W, ldw_, h[l], ldw_,
              W + fan_in(l) * ldw_, From::ROW);
      activate<T>(q_.activation, rows * ldw_, h[l], slope[l]);
    }
  }

  // The weights' prior.
  double prior(const T* theta, const T* precision, T* gradient) const {
    double value = 0.0;
    for (long start = 0; start < size_; start += 64 * L) {
      const long end = start + 64 * L < size_ ? start + 64 * L : size_;
      Vector<T> total{};
      for (long i = start; i < end; i += L) {
        const Vector<T> x = load(theta + i), g = -load(precision + i) * x;
        store(gradient + i, g);
        total += g * x;
      }
      value += sum<T>(total);
    }
    return 0.5 * value;
  }

  // Terms of the log variance of one output: the prior's and the likelihood's determinant.
  double noise_terms(long output, T log_variance, double fit, double used, T* gradient) const {
    const double l = log_variance;
    double value = -0.5 * n_ * l, slope = 0.5 * (fit - n_ + used);
    if (q_.noise == LOG_NORMAL) {
      const double deviation = (l - q_.noise_mean) / q_.noise_std;
      value -= 0.5 * deviation * deviation;
      slope -= deviation / q_.noise_std;
    } else {
      // log(1 + e^x) and its derivative, without overflow; as in networks/posterior.py.
      const double x = l - q_.noise_mean, e = std::exp(-std::fabs(x));
      value += 0.5 * x - (std::fmax(x, 0.0) + std::log1p(e));
      slope += 0.5 - (x > 0 ? 1.0 : e) / (1.0 + e);
    }
    gradient[noise_ + output] = T(slope);
    return value;
  }

  // The output layer sampled: D = dlog p / dh of the last hidden layer.
  double likelihood(long index, const T* theta, const T* h, T* gradient, T* D,
                    const Room& r) const {
    const T *w = theta + output_, *bias = w + m_ * ldw_;
    const T* y = static_cast<const T*>(q_.targets) + index * q_.target_stride;
    const T* known = static_cast<const T*>(q_.precision) + index * q_.precision_stride;
    T* gradient_bias = gradient + output_ + m_ * ldw_;
    double value = 0.0;
    for (long j = 0; j < m_; j++) {
      const T inferred = q_.noise == KNOWN ? T(0) : std::exp(-theta[noise_ + j]);
      double fit = 0.0, total = 0.0;
      for (long i = 0; i < n_; i++) {
        Vector<T> dot{};
        for (long k = 0; k < ldw_; k += L) dot += load(h + i * ldw_ + k) * load(w + j * ldw_ + k);
        const T residual = y[i * m_ + j] - (sum<T>(dot) + bias[j]);
        const T weighted = residual * (q_.noise == KNOWN ? known[i * m_ + j] : inferred);
        r.weighted[i * m_ + j] = weighted;
        fit += double(residual) * weighted;
        total += weighted;
      }
      gradient_bias[j] += T(total);
      value -= 0.5 * fit;
      if (q_.noise != KNOWN)
        value += noise_terms(j, theta[noise_ + j], fit, 0.0, gradient);
    }
    T* gradient_w = gradient + output_;
    gemm<T>(m_, ldw_, n_, r.weighted, 1, m_, h, ldw_, gradient_w, ldw_, gradient_w, From::C);
    gemm<T>(n_, ldw_, m_, r.weighted, m_, 1, w, ldw_, D, ldw_, D, From::ZERO);
    return value;
  }

  // The output layer integrated out.
  double marginal(long index, const T* theta, const T* h, T* gradient, T* D, const Room& r) const {
    const T* y = static_cast<const T*>(q_.targets) + index * q_.target_stride;
    const T* known = static_cast<const T*>(q_.precision) + index * q_.precision_stride;
    memset(D, 0, sizeof(T) * n_ * ldw_);
    double value = 0.0;
    for (long j = 0; j < m_; j++) {
      Regression::Result result;
      if (q_.noise == KNOWN) {
        const auto precision = [=](long i) { return double(known[i * m_ + j]); };
        result = regression_(j, h, ldw_, y, precision, D, r.regression);
      } else {
        const double inferred = std::exp(-double(theta[noise_ + j]));
        const auto precision = [=](long) { return inferred; };
        result = regression_(j, h, ldw_, y, precision, D, r.regression);
        value += noise_terms(j, theta[noise_ + j], result.fit, result.used, gradient);
      }
      value -= 0.5 * result.marginal;
    }
    return value;
  }

  const Problem& q_;
  const Regression regression_;
  const long n_, W_, ldw_, m_, ldm_;
  long layer_[4], output_, noise_, size_;
};
