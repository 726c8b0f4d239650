// The functions that Python calls: covariances of infinitely wide networks' outputs and tangents.
// Compiled on the user's machine by library.py; described in __init__.py.
#include <algorithm>
#include "recursion.hpp"
#include "threads.hpp"

namespace {

constexpr double OPERATIONS = 80;  // of an entry and a layer, about

// K and T, each of which may be null.
template <class Dual> int covariances(const Recursion& p, double* K, double* T, long threads) {
  typedef Layers<Dual> All;
  const All layers(p, Dual(p.first, p.second));
  Memory memory(p.matrices * (layers.bytes(p.rows) + (p.symmetric ? 0 : layers.bytes(p.columns))));
  std::vector<Points> one, two;
  for (long b = 0; b < p.matrices; b++) {
    const double bias = p.bias[b * p.bias_stride];
    one.push_back(layers.points(p.z1 + b * p.z1_stride, p.rows, bias, memory));
    two.push_back(p.symmetric ? one[b]
                              : layers.points(p.z2 + b * p.z2_stride, p.columns, bias, memory));
  }
  const long blocks = (p.rows + All::ROWS - 1) / All::ROWS, size = p.rows * p.columns;
  const double work = OPERATIONS * p.depth * p.columns * std::min(All::ROWS, long(p.rows));
  return each(p.matrices * blocks, threads, work, All::room_bytes(), [&](Memory& room) {
    double* roomK = room.take<double>(All::ROWS * All::COLUMNS);
    double* roomT = room.take<double>(All::ROWS * All::COLUMNS);
    return [=, &layers, &one, &two](long task) {
      const long b = task / blocks, start = task % blocks * All::ROWS;
      if (T == nullptr)
        layers.template rows<false>(b, start, one[b], two[b], K + b * size, T, roomK, roomT);
      else
        layers.template rows<true>(b, start, one[b], two[b], K == nullptr ? K : K + b * size,
                                   T + b * size, roomK, roomT);
    };
  });
}

}  // namespace

extern "C" int covariances(const Recursion* p, double* K, double* T, int64_t threads) {
  try {
    switch (p->activation) {
      case ARC_COSINE: return covariances<ArcCosine>(*p, K, T, threads);
      case ERF_DUAL: return covariances<ErfDual>(*p, K, T, threads);
      case GELU_DUAL: return covariances<GeluDual>(*p, K, T, threads);
      case SINE_DUAL: return covariances<SineDual>(*p, K, T, threads);
      default: return covariances<RBFSineDual>(*p, K, T, threads);
    }
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
