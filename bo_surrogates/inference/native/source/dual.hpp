// Dual maps of activations on vectors: expectations of products of phi, and of phi', under a normal
// distribution with variances q1, q2 and covariance K. Formulas and symbols:
// kernels/dual_activations.py.
//
// Each class has
//   prepare    two numbers of a variance that are computed once a point, not once a pair;
//   pair       F and, if SECOND, Fd, given those numbers of both points;
//   diagonal   both, where the points coincide.
#pragma once
#include <cmath>
#include "activation.hpp"

typedef Vector<double> V;

enum Dual { ARC_COSINE = 0, ERF_DUAL = 1, GELU_DUAL = 2, SINE_DUAL = 3, RBF_SINE_DUAL = 4 };

constexpr double PI = 3.14159265358979323846, TO_PI = 1.2246467991473532e-16;  // and what is left

INLINE V root(V x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = std::sqrt(x[i]);
  return x;
}
INLINE V magnitude(V x) { return x < 0.0 ? -x : x; }

// The angle in [0, pi / 2] that has this sine and this cosine, both known to all digits: by the
// arcsine of the smaller one, whose square is at most 1/2. The coefficients interpolate
// (arcsin(x) / x - 1) / x^2 as a function of x^2 at Chebyshev's points, to 6e-17 of arcsin(x).
INLINE V angle(V sine, V cosine) {
  constexpr double even[] = {
      0.1666666666666665973, 0.044642857123585067549, 0.022372086303384447231,
      0.013929824170098248765, 0.0058919494641887118988, -0.11747877891108136248,
      -1.2586844660234880418, -3.7416070599989236119, -2.2779941739333467552};
  constexpr double odd[] = {
      0.075000000000089827343, 0.030381946078030974068, 0.017354730676767070612,
      0.011985560569973888786, 0.033824057143016401459, 0.46581185806604116928,
      2.5735139443281963697, 3.7316543687733262214, 0.66294845236939567092};
  const auto below = sine <= cosine;
  const V x = below ? sine : cosine, z = x * x, zz = z * z;
  const V p = polynomial<double>(even, zz) + z * polynomial<double>(odd, zz);
  const V a = x + x * (z * p);
  return below ? a : PI / 2 - (a - TO_PI / 2);
}
// arcsin(x), with the cosine of that, which is not negative.
INLINE V arcsine(V x, V cosine) {
  const V a = angle(magnitude(x), cosine);
  return x < 0.0 ? -a : a;
}
// e^x; 3e-308 where that is less.
INLINE V exponential(V x) {
  V power, small;
  exponential<double>(clamp<double>(x, Constants<double>::largest), power, small);
  return power + small;
}

// Piecewise linear activations (kernels/arc_cosine.py).
class ArcCosine {
 public:
  ArcCosine(double slope, double)
      : slope_(slope), share_((1 - slope) * (1 - slope) / (2 * PI)),
        square_((1 + slope * slope) / 2) {}

  INLINE void prepare(V q, V& a, V& inverse) const {
    a = root(q);
    inverse = 1.0 / a;
  }
  template <bool SECOND>
  INLINE void pair(V a, V inverse_a, V b, V inverse_b, V K, V& F, V& Fd) const {
    const V c = clamp<double>(K * inverse_a * inverse_b, 1.0);
    const V s = root((1.0 - c) * (1.0 + c));
    const V acute = angle(s, magnitude(c));
    const V J0 = c < 0.0 ? acute : PI - (acute - TO_PI);
    F = share_ * (s * a * b + J0 * K) + slope_ * K;
    if (SECOND) Fd = share_ * J0 + slope_;
  }
  INLINE void diagonal(V q, V& F, V& Fd) const {
    F = q * square_;
    Fd = all<double>(square_);
  }

 private:
  const double slope_, share_, square_;
};

class ErfDual {
 public:
  ErfDual(double, double) {}

  INLINE void prepare(V q, V& p, V& inverse_root) const {
    p = 1.0 + 2.0 * q;
    inverse_root = 1.0 / root(p);
  }
  template <bool SECOND>
  INLINE void pair(V p1, V r1, V p2, V r2, V K, V& F, V& Fd) const {
    const V twice = 2.0 * K, r = r1 * r2, w = root(p1 * p2 - twice * twice);
    F = (2 / PI) * arcsine(twice * r, w * r);
    if (SECOND) Fd = (4 / PI) / w;
  }
  INLINE void diagonal(V q, V& F, V& Fd) const {
    const V inverse = 1.0 / (1.0 + 2.0 * q), w = root(1.0 + 4.0 * q);
    F = (2 / PI) * arcsine(2.0 * q * inverse, w * inverse);
    Fd = (4 / PI) / w;
  }
};

class GeluDual {
 public:
  GeluDual(double, double) {}

  INLINE void prepare(V q, V& kept, V& inverse_root) const {
    kept = q;
    inverse_root = 1.0 / root(1.0 + q);
  }
  template <bool SECOND>
  INLINE void pair(V q1, V r1, V q2, V r2, V K, V& F, V& Fd) const {
    const V r = r1 * r2, KK = K * K, qq = q1 * q2;
    const V DD = (1.0 + q1) * (1.0 + q2) - KK, D = root(DD), inverse = 1.0 / D;
    const V half = arcsine(K * r, D * r) * (0.5 / PI) + 0.25;
    F = K * half + (KK + qq * DD) * (inverse * r * r) * (0.5 / PI);
    if (SECOND)
      Fd = half + K * inverse * (inverse * inverse + ((1.0 - qq) * (r * r) + 1.0)) * (0.5 / PI);
  }
  INLINE void diagonal(V q, V& F, V& Fd) const {
    const V p = 1.0 / (1.0 + q), w = root(1.0 + 2.0 * q);
    const V half = arcsine(q * p, w * p) * (0.5 / PI) + 0.25;
    F = q * half + q * q * p / w * (1 / PI);
    Fd = half + q / w * (1.0 / (w * w) + ((1.0 - q) * p + 1.0)) * (0.5 / PI);
  }
};

// amplitude sin(u + phase) (kernels/sine.py).
class SineDual {
 public:
  SineDual(double amplitude, double phase)
      : factor_(amplitude * amplitude / 2), cosine_(std::cos(2 * phase)) {}

  INLINE void prepare(V q, V& half, V& unused) const {
    half = 0.5 * q;
    unused = V{};
  }
  template <bool SECOND> INLINE void pair(V m1, V, V m2, V, V K, V& F, V& Fd) const {
    const V m = m1 + m2;
    const V near = factor_ * exponential(K - m), far = factor_ * cosine_ * exponential(-K - m);
    F = near - far;
    if (SECOND) Fd = near + far;
  }
  INLINE void diagonal(V q, V& F, V& Fd) const {
    V power, small;
    exponential<double>(clamp<double>(-2.0 * q, Constants<double>::largest), power, small);
    F = factor_ * (1.0 - cosine_ - cosine_ * (small + (power - 1.0)));
    Fd = factor_ * (1.0 + cosine_ * (small + power));
  }

 private:
  const double factor_, cosine_;
};

class RBFSineDual {
 public:
  RBFSineDual(double, double) {}

  INLINE void prepare(V q, V& half, V& unused) const {
    half = 0.5 * q;
    unused = V{};
  }
  template <bool SECOND> INLINE void pair(V m1, V, V m2, V, V K, V& F, V& Fd) const {
    F = exponential(K - (m1 + m2));
    if (SECOND) Fd = F;
  }
  INLINE void diagonal(V, V& F, V& Fd) const { F = Fd = all<double>(1.0); }
};
