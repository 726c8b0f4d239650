// The functions that Python calls: log posterior densities with gradients, leapfrog trajectories,
// whole runs of Adam, and values with derivatives in the inputs, for K networks, each a task of its own: a result does not depend on the number
// of threads. Compiled on the user's machine by library.py; described in __init__.py.
#include <algorithm>
#include <cmath>
#include "network.hpp"
#include "threads.hpp"

namespace {

// Floating-point operations of one gradient, about.
double operations(const Problem& q) {
  const double n = q.points, W = q.width, p = W + 1, s = std::min(n, p);
  double total = 4 * n * q.inputs * W + (q.depth - 1) * 6 * n * W * W + 40 * q.depth * n * W;
  total += q.outputs * (q.collapsed ? 3 * n * p * s + 2 * s * s * s : 6 * n * W);
  return total;
}

template <class T>
int densities(const Problem& q, long K, const T* theta, double* density, T* gradient,
              long threads) {
  const Network<T> network(q);
  const long size = network.size(), flat = network.flat();
  const size_t bytes = network.bytes() + 3 * Memory::bytes<T>(size);
  return each(K, threads, operations(q), bytes, [&](Memory& memory) {
    T *x = memory.take<T>(size), *g = memory.take<T>(size), *precision = memory.take<T>(size);
    const auto room = network.room(memory);
    network.pack(static_cast<const T*>(q.prior_precision), precision, false);
    return [=, &network](long k) {
      network.pack(theta + k * flat, x);
      density[k] = network(k, x, precision, g, room);
      network.unpack(g, gradient + k * flat);
    };
  });
}

// inference/hmc.py's leapfrog. `position`, `velocity` and `gradient` are those of the start and
// become those of the end.
template <class T>
int trajectories(const Problem& q, long K, const T* scale, T* position, T* velocity, T* gradient,
                 double* density, double step_size, long steps, long threads) {
  constexpr int L = LANES<T>;
  const Network<T> network(q);
  const long size = network.size(), flat = network.flat();
  const size_t bytes = network.bytes() + 5 * Memory::bytes<T>(size);
  return each(K, threads, steps * operations(q), bytes, [&](Memory& memory) {
    T *x = memory.take<T>(size), *v = memory.take<T>(size), *g = memory.take<T>(size);
    T *precision = memory.take<T>(size), *kick = memory.take<T>(size);
    const auto room = network.room(memory);
    network.pack(static_cast<const T*>(q.prior_precision), precision, false);
    network.pack(scale, kick);
    for (long i = 0; i < size; i++) kick[i] *= T(step_size);
    return [=, &network](long k) {
      network.pack(position + k * flat, x);
      network.pack(velocity + k * flat, v);
      network.pack(gradient + k * flat, g);
      double value = NAN;
      for (long step = 0; step < steps; step++) {
        const T part = step == 0 ? T(0.5) : T(1);
        for (long i = 0; i < size; i += L) {
          const Vector<T> s = load(kick + i), u = load(v + i) + part * s * load(g + i);
          store(v + i, u);
          store(x + i, load(x + i) + s * u);
        }
        value = network(k, x, precision, g, room);
        if (std::isnan(value)) break;  // the way back passes here too: both are rejected
      }
      for (long i = 0; i < size; i += L)
        store(v + i, load(v + i) + T(0.5) * load(kick + i) * load(g + i));
      density[k] = value;
      network.unpack(x, position + k * flat);
      network.unpack(v, velocity + k * flat);
      network.unpack(g, gradient + k * flat);
    };
  });
}

template <class T> INLINE Vector<T> square_root(Vector<T> x) {
  for (int i = 0; i < LANES<T>; i++) x[i] = std::sqrt(x[i]);
  return x;
}

// inference/adam.py's `minimize` of minus the log density, as a function of theta / scale; an entry
// with scale 0 stays. theta becomes the last one; first and last are log densities.
template <class T>
int adam(const Problem& q, long K, const T* scale, T* theta, long steps, double learning_rate,
         double* first, double* last, long threads) {
  constexpr int L = LANES<T>;
  constexpr double BETA_1 = 0.9, BETA_2 = 0.999, EPSILON = 1e-8;
  const Network<T> network(q);
  const long size = network.size(), flat = network.flat();
  const size_t bytes = network.bytes() + 6 * Memory::bytes<T>(size);
  return each(K, threads, steps * operations(q), bytes, [&](Memory& memory) {
    T *x = memory.take<T>(size), *g = memory.take<T>(size), *s = memory.take<T>(size);
    T *m1 = memory.take<T>(size), *m2 = memory.take<T>(size), *precision = memory.take<T>(size);
    const auto room = network.room(memory);
    network.pack(static_cast<const T*>(q.prior_precision), precision, false);
    network.pack(scale, s);
    return [=, &network](long k) {
      network.pack(theta + k * flat, x);
      memset(m1, 0, sizeof(T) * size);
      memset(m2, 0, sizeof(T) * size);
      for (long step = 0; step < steps; step++) {
        const double value = network(k, x, precision, g, room);
        if (step == 0) first[k] = value;
        const double rate = 0.5 * learning_rate * (1.0 + std::cos(M_PI * step / steps));
        const T ascent = T(rate / (1.0 - std::pow(BETA_1, step + 1)));
        const T unbiased = T(1.0 / (1.0 - std::pow(BETA_2, step + 1)));
        for (long i = 0; i < size; i += L) {
          const Vector<T> unit = load(s + i), slope = unit * load(g + i);
          const Vector<T> a = load(m1 + i) + T(1.0 - BETA_1) * (slope - load(m1 + i));
          const Vector<T> b = T(BETA_2) * load(m2 + i) + T(1.0 - BETA_2) * slope * slope;
          store(m1 + i, a);
          store(m2 + i, b);
          const Vector<T> step = ascent * a / (square_root<T>(unbiased * b) + T(EPSILON));
          store(x + i, load(x + i) + unit * step);
        }
      }
      last[k] = network(k, x, precision, g, room);
      network.unpack(x, theta + k * flat);
    };
  });
}

// Values of K networks, and derivatives in the inputs unless `jacobian` is null; `points` is the number
// at one network. `stride`: between networks' inputs, 0 where they share them. A network's points go
// through it block by block: weights and activations stay in the nearest caches.
template <class T>
int values(const Problem& given, long K, const T* theta, const T* X, long stride, T* values,
           T* jacobian, long threads) {
  constexpr long BLOCK = 48;
  Problem q = given;
  const long n = q.points, m = q.outputs, d = q.inputs;
  q.points = std::min(n, BLOCK);
  const Network<T> network(q);
  const long size = network.size(), flat = network.flat();
  const size_t bytes = network.evaluation_bytes() + Memory::bytes<T>(size);
  const double passes = jacobian == nullptr ? 1 : 1 + m;
  const double work = passes * n * (2.0 * flat + 20 * q.width * q.depth) + 4.0 * flat;
  return each(K, threads, work, bytes, [&](Memory& memory) {
    T* x = memory.take<T>(size);
    const auto room = network.evaluation_room(memory);
    return [=, &network, &q](long k) {
      network.fill(theta + k * flat, x);
      for (long i = 0; i < n; i += q.points)
        network.evaluate(std::min(q.points, n - i), x, X + k * stride + i * d,
                         values + (k * n + i) * m,
                         jacobian == nullptr ? nullptr : jacobian + (k * n + i) * m * d, room);
    };
  });
}

}  // namespace

#define EXPORT(T, NAME)                                                                          \
  extern "C" int densities_##NAME(const Problem* q, int64_t K, const T* theta, double* density,  \
                                  T* gradient, int64_t threads) {                                \
    return densities<T>(*q, K, theta, density, gradient, threads);                               \
  }                                                                                              \
  extern "C" int trajectories_##NAME(const Problem* q, int64_t K, const T* scale, T* position,   \
                                     T* velocity, T* gradient, double* density,                  \
                                     double step_size, int64_t steps, int64_t threads) {         \
    return trajectories<T>(*q, K, scale, position, velocity, gradient, density, step_size, steps, \
                           threads);                                                             \
  }                                                                                              \
  extern "C" int adam_##NAME(const Problem* q, int64_t K, const T* scale, T* theta,              \
                             int64_t steps, double learning_rate, double* first, double* last,   \
                             int64_t threads) {                                                  \
    return adam<T>(*q, K, scale, theta, steps, learning_rate, first, last, threads);             \
  }                                                                                              \
  extern "C" int values_##NAME(const Problem* q, int64_t K, const T* theta, const T* X,          \
                               int64_t stride, T* result, T* jacobian, int64_t threads) {        \
    return values<T>(*q, K, theta, X, stride, result, jacobian, threads);                        \
  }

EXPORT(float, f32)
EXPORT(double, f64)
