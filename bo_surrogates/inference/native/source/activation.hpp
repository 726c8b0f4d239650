// Elementary functions of vectors, with relative errors of a few units of rounding, and the
// activations made of them. Not a number stays not a number: comparisons are written so that it
// fails them and passes through.
//
// The coefficients are interpolations at Chebyshev's points, of (e^r - 1 - r) / r^2 on
// |r| <= log(2) / 2, (sin r / r - 1) / r^2 and (cos r - 1) / r^2 on |r| <= pi / 2 (as functions of
// r^2), and for tanh x / x a rational function of x^2 fitted by reweighted least squares, of maximal
// relative error 2.1e-8 on |x| <= 9.02.
#pragma once
#include <cmath>
#include "vector.hpp"

enum Activation { TANH = 0, RELU = 1, SILU = 2, SINE = 3 };

template <class T, int N> INLINE Vector<T> polynomial(const T (&c)[N], Vector<T> x) {
  Vector<T> p = all<T>(c[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; i--) p = p * x + c[i];
  return p;
}

template <class T> struct Constants;
template <> struct Constants<float> {
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float log2_high = 0x1.62e4p-1f, log2_low = 1.42860682e-6f;
  static constexpr float largest = 87.0f;
  static constexpr float expm1[] = {0.5f, 0.166665766661f, 0.0416665542130f, 0.00836323288368f,
                                    0.00139262508315f};
  static constexpr float pi[] = {3.140625f, 0.000967502593994140625f, 1.5099579909783764e-7f};
  static constexpr float reducible = 6000.0f;
  static constexpr float sine[] = {-0.166666659582f, 0.00833324159225f, -0.000198226663134f,
                                   2.63451956285e-6f};
  static constexpr float cosine[] = {-0.4999999996359f, 0.04166665930186f, -0.001388865023562f,
                                     2.4774473126179e-5f, -2.629505188262e-7f};
};
template <> struct Constants<double> {
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double log2_high = 0x1.62e42fefa2p-1, log2_low = 7.3710025651677989018e-13;
  static constexpr double largest = 708.0;
  static constexpr double expm1[] = {
      0.5, 0.1666666666666667103, 0.041666666666666669783, 0.0083333333333260831202,
      0.0013888888888883711167, 0.00019841269875002278793, 0.0000248015873256774619,
      2.7557255170000887438e-6, 2.7557273478718580474e-7, 2.5105312729622101787e-8,
      2.09147553258932022e-9};
  static constexpr double pi[] = {3.1415926534682512283, 1.2154201012607931953e-10,
                                  4.0445324975919014648e-21};
  static constexpr double reducible = 3e6;
  static constexpr double sine[] = {
      -0.16666666666666666632, 0.0083333333333333156236, -0.00019841269841254795074,
      2.755731921911501115e-6, -2.5052107610861158327e-8, 1.6058976915095007024e-10,
      -7.6439576225606140613e-13, 2.7312868913091985771e-15};
  static constexpr double cosine[] = {
      -0.49999999999999999999, 0.041666666666666665974, -0.0013888888888888814204,
      2.4801587301556277997e-5, -2.7557319217529125192e-7, 2.0876756232789943231e-9,
      -1.1470693702746751274e-11, 4.7773966649430718047e-14, -1.5168279037261313855e-16};
};

template <class T> INLINE Vector<T> clamp(Vector<T> x, T limit) {
  x = x > limit ? all<T>(limit) : x;
  return x < -limit ? all<T>(-limit) : x;
}

// With x = k log 2 + r: power = 2^k, small = 2^k (e^r - 1). For |x| <= `largest`.
template <class T> INLINE void exponential(Vector<T> x, Vector<T>& power, Vector<T>& small) {
  typedef Constants<T> C;
  const Vector<T> shifted = x * T(1.4426950408889634) + C::round;
  const Vector<T> k = shifted - C::round;
  const Vector<T> r = (x - k * C::log2_high) - k * C::log2_low;
  // The integer k stands in the lowest bits of the sum.
  const Bits<T> exponent = ((Bits<T>)shifted << C::mantissa) + ((Bits<T>{} + C::bias) << C::mantissa);
  power = (Vector<T>)exponent;
  small = power * (r + r * r * polynomial<T>(C::expm1, r));
}

INLINE Vector<float> tanh(Vector<float> x) {
  constexpr float p[] = {9.9999997920e-01f, 1.3379672865e-01f, 3.4939802558e-03f,
                         2.0582572322e-05f, 1.3317809881e-08f};
  constexpr float q[] = {1.0f, 4.6712988173e-01f, 2.5870868403e-02f, 3.2830031815e-04f,
                         7.7615021784e-07f};
  x = clamp<float>(x, 9.02f);
  const Vector<float> u = x * x;
  return x * polynomial<float>(p, u) / polynomial<float>(q, u);
}

INLINE Vector<double> tanh(Vector<double> x) {
  Vector<double> power, small;
  exponential<double>(clamp<double>(2.0 * x, 40.0), power, small);
  const Vector<double> e = small + (power - 1.0);  // e^2x - 1, without cancellation at zero
  return e / (e + 2.0);
}

// x s with the logistic function s, and its derivative s (1 + x (1 - s)).
template <class T> INLINE void silu(Vector<T> x, Vector<T>& value, Vector<T>& slope) {
  Vector<T> power, small;
  exponential<T>(clamp<T>(-x, Constants<T>::largest), power, small);
  const Vector<T> e = power + small, s = T(1) / (T(1) + e);
  value = x * s;
  slope = s + value * (e * s);
}

// sin x and cos x as (-1)^k times those of r = x - k pi. The parts of pi are short enough for exact
// products; where k is too large for that, the system's functions take over.
template <class T> INLINE void sine(Vector<T> x, Vector<T>& value, Vector<T>& slope) {
  typedef Constants<T> C;
  const Bits<T> outside = (Bits<T>)(x > C::reducible) | (Bits<T>)(x < -C::reducible);
  bool any = false;
  for (int i = 0; i < LANES<T>; i++) any |= outside[i] != 0;
  if (__builtin_expect(any, 0)) {
    for (int i = 0; i < LANES<T>; i++) value[i] = std::sin(x[i]), slope[i] = std::cos(x[i]);
    return;
  }
  const Vector<T> shifted = x * T(0.31830988618379067) + C::round;
  const Vector<T> k = shifted - C::round;
  const Vector<T> r = ((x - k * C::pi[0]) - k * C::pi[1]) - k * C::pi[2];
  const Vector<T> u = r * r;
  const Bits<T> sign = (Bits<T>)shifted << (8 * sizeof(T) - 1);
  value = (Vector<T>)((Bits<T>)(r + r * u * polynomial<T>(C::sine, u)) ^ sign);
  slope = (Vector<T>)((Bits<T>)(T(1) + u * polynomial<T>(C::cosine, u)) ^ sign);
}

// z becomes phi(z). slope, phi'(z), is written where it is no function of phi(z).
template <class T> static void activate(int kind, long size, T* z, T* slope) {
  constexpr int L = LANES<T>;
  switch (kind) {
    case TANH:
      for (long i = 0; i < size; i += L) store(z + i, tanh(load(z + i)));
      break;
    case RELU:
      for (long i = 0; i < size; i += L) {
        const Vector<T> x = load(z + i);
        store(z + i, x < T(0) ? Vector<T>{} : x);
      }
      break;
    case SILU:
      for (long i = 0; i < size; i += L) {
        Vector<T> value, derivative;
        silu<T>(load(z + i), value, derivative);
        store(z + i, value);
        store(slope + i, derivative);
      }
      break;
    default:
      for (long i = 0; i < size; i += L) {
        Vector<T> value, derivative;
        sine<T>(load(z + i), value, derivative);
        store(z + i, value);
        store(slope + i, derivative);
      }
  }
}

INLINE bool stores_slope(int kind) { return kind == SILU || kind == SINE; }

// The vector d times phi' where values and slopes have the index i.
template <class T>
INLINE Vector<T> backward(int kind, Vector<T> d, const T* value, const T* slope, long i) {
  if (kind == TANH) {
    const Vector<T> h = load(value + i);
    return d * (T(1) - h * h);
  }
  if (kind == RELU) return load(value + i) > T(0) ? d : Vector<T>{};
  return d * load(slope + i);
}

// D, `size` numbers, times phi' in place.
template <class T>
static void differentiate(int kind, long size, T* D, const T* value, const T* slope) {
  for (long i = 0; i < size; i += LANES<T>)
    store(D + i, backward<T>(kind, load(D + i), value, slope, i));
}

// The same of `rows x width`; the sums of its columns are added to `total`.
template <class T>
static void differentiate(int kind, long rows, long width, T* D, const T* value, const T* slope,
                          T* total) {
  constexpr int L = LANES<T>;
  for (long j = 0; j < width; j += L) {
    Vector<T> column = load(total + j);
    for (long i = j; i < rows * width + j; i += width) {
      const Vector<T> d = backward<T>(kind, load(D + i), value, slope, i);
      store(D + i, d);
      column += d;
    }
    store(total + j, column);
  }
}
