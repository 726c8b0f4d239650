// Dual maps of activations on vectors: expectations of products of phi, and of phi', under a normal
// distribution with variances q1, q2 and covariance K. Formulas and symbols:
// kernels/dual_activations.py.
//
// Each class has
//   prepare    two numbers of a variance that are computed once a point, not once a pair;
//   pair       F and, if SECOND, Fd, given those numbers of both points;
//   diagonal   both, where the points coincide;
//   slopes     their derivatives in q1, q2 and K, given both; that of F in K is Fd;
//   diagonal_slope  that of F where the points coincide, in q.
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
// Derivatives of a layer's maps.
struct Slopes {
  V F1, F2, FdK, Fd1, Fd2;  // of Fd: where it is wanted
};

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

// Piecewise linear activations (kernels/arc_cosine.py, where REGULAR is explained).
class ArcCosine {
  static constexpr double REGULAR = 1e-14;

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
  template <bool SECOND>
  INLINE Slopes slopes(V a, V inverse_a, V b, V inverse_b, V K, V, V) const {
    const V inverse = inverse_a * inverse_b, c = clamp<double>(K * inverse, 1.0);
    const V squared_sine = (1.0 - c) * (1.0 + c), s = root(squared_sine);
    Slopes d{};
    d.F1 = 0.5 * share_ * s * b * inverse_a;
    d.F2 = 0.5 * share_ * s * a * inverse_b;
    if (SECOND) {
      d.FdK = squared_sine <= REGULAR ? V{} : share_ * inverse / s;
      d.Fd1 = -0.5 * d.FdK * K * inverse_a * inverse_a;
      d.Fd2 = -0.5 * d.FdK * K * inverse_b * inverse_b;
    }
    return d;
  }
  INLINE V diagonal_slope(V, V) const { return all<double>(square_); }

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
  template <bool SECOND> INLINE Slopes slopes(V p1, V r1, V p2, V r2, V K, V, V Fd) const {
    Slopes d{};
    d.F1 = -Fd * K * (r1 * r1);
    d.F2 = -Fd * K * (r2 * r2);
    if (SECOND) {
      const V ratio = Fd / (p1 * p2 - 4.0 * K * K);
      d.FdK = 4.0 * K * ratio;
      d.Fd1 = -p2 * ratio;
      d.Fd2 = -p1 * ratio;
    }
    return d;
  }
  INLINE V diagonal_slope(V p, V r) const { return (4 / PI) * (r * r) / root(2.0 * p - 1.0); }
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
  // With N = K^2 + q1 q2 D^2 and g = 1 / D^2 + (1 - q1 q2) / P + 1, F = K (A / (2 pi) + 1 / 4) +
  // N / (2 pi P D) and Fd = A / (2 pi) + 1 / 4 + K g / (2 pi D).
  template <bool SECOND> INLINE Slopes slopes(V q1, V r1, V q2, V r2, V K, V, V) const {
    const V p1 = 1.0 + q1, p2 = 1.0 + q2, P = p1 * p2, KK = K * K, qq = q1 * q2, DD = P - KK;
    const V i = 1.0 / root(DD), ii = i * i, iP = (r1 * r1) * (r2 * r2), N = KK + qq * DD;
    const V shared = -N * iP * (iP + 0.5 * ii);
    Slopes d{};
    d.F1 = (0.5 / PI) * i * (-0.5 * KK * (r1 * r1) + (q2 * DD + qq * p2) * iP + p2 * shared);
    d.F2 = (0.5 / PI) * i * (-0.5 * KK * (r2 * r2) + (q1 * DD + qq * p1) * iP + p1 * shared);
    if (SECOND) {
      const V g = ii + (1.0 - qq) * iP + 1.0, steep = -K * (0.5 * g * ii + ii * ii);
      d.FdK = (0.5 / PI) * i * (1.0 + P * ii * g + 2.0 * KK * ii * ii);
      d.Fd1 = (0.5 / PI) * i *
              (-0.5 * K * (r1 * r1) + p2 * steep - K * iP * (q2 + (1.0 - qq) * (r1 * r1)));
      d.Fd2 = (0.5 / PI) * i *
              (-0.5 * K * (r2 * r2) + p1 * steep - K * iP * (q1 + (1.0 - qq) * (r2 * r2)));
    }
    return d;
  }
  INLINE V diagonal_slope(V q, V r) const {
    V F, Fd;
    diagonal(q, F, Fd);
    return 2.0 * slopes<false>(q, r, q, r, q, F, Fd).F1 + Fd;
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
  template <bool SECOND> INLINE Slopes slopes(V, V, V, V, V, V F, V Fd) const {
    return {-0.5 * F, -0.5 * F, F, -0.5 * Fd, -0.5 * Fd};
  }
  INLINE V diagonal_slope(V half, V) const {
    return 2.0 * factor_ * cosine_ * exponential(-4.0 * half);
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
  template <bool SECOND> INLINE Slopes slopes(V, V, V, V, V, V F, V Fd) const {
    return {-0.5 * F, -0.5 * F, F, -0.5 * Fd, -0.5 * Fd};
  }
  INLINE V diagonal_slope(V, V) const { return V{}; }
};
