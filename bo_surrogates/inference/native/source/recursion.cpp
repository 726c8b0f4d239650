// The functions that Python calls: covariances of infinitely wide networks' outputs and tangents.
// Compiled on the user's machine by library.py; described in __init__.py.
#include <algorithm>
#include <type_traits>
#include "recursion_gradient.hpp"
#include "threads.hpp"

namespace {

constexpr double OPERATIONS = 80;  // of an entry and a layer, about

// Both sides of each matrix.
template <class All>
void prepare(const Recursion& p, const All& layers, Memory& memory, std::vector<Points>& one,
             std::vector<Points>& two) {
  for (long b = 0; b < p.matrices; b++) {
    const double bias = p.bias[b * p.bias_stride];
    one.push_back(layers.points(p.z1 + b * p.z1_stride, p.rows, bias, memory));
    two.push_back(p.symmetric ? one[b]
                              : layers.points(p.z2 + b * p.z2_stride, p.columns, bias, memory));
  }
}

template <class All> size_t prepared(const Recursion& p, const All& layers) {
  return p.matrices * (layers.bytes(p.rows) + (p.symmetric ? 0 : layers.bytes(p.columns)));
}

// K and T, each of which may be null.
template <class Dual> int covariances(const Recursion& p, double* K, double* T, long threads) {
  typedef Layers<Dual> All;
  const All layers(p, Dual(p.first, p.second));
  Memory memory(prepared(p, layers));
  std::vector<Points> one, two;
  prepare(p, layers, memory, one, two);
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

// Given derivatives in K and T, either of which may be null: those in K of the first layer, in its
// variances at rows and at columns, in the bias, and in the factors.
template <class Dual>
int gradients(const Recursion& p, Incoming s, double* W, double* variances1, double* variances2,
              double* bias, double* factor1, double* factor2, long threads) {
  typedef Gradients<Dual> All;
  const All layers(p, Dual(p.first, p.second));
  const long blocks = (p.rows + All::ROWS - 1) / All::ROWS, tasks = p.matrices * blocks;
  const long size = p.rows * p.columns;
  const long ld1 = padded<double>(p.rows), ld2 = padded<double>(p.columns);
  const long numbers1 = layers.numbers(ld1), numbers2 = layers.numbers(ld2);
  Memory memory(prepared(p, layers) + Memory::bytes<double>(p.matrices * numbers1) +
                Memory::bytes<double>(tasks * numbers2));
  std::vector<Points> one, two;
  prepare(p, layers, memory, one, two);
  double* rows = memory.take<double>(p.matrices * numbers1);  // all zero
  double* columns = memory.take<double>(tasks * numbers2);    // of each task: added up in order
  std::vector<double> biases(tasks);
  const double work = 3 * OPERATIONS * p.depth * p.columns * std::min(All::ROWS, long(p.rows));
  const int failed = each(tasks, threads, work, All::room_bytes(), [&](Memory& memory) {
    double* room = memory.take<double>(All::ROWS * All::COLUMNS);
    double* roomK = memory.take<double>(All::ROWS * All::COLUMNS);
    double* roomT = memory.take<double>(All::ROWS * All::COLUMNS);
    return [=, &layers, &one, &two, &biases](long task) {
      const long b = task / blocks, start = task % blocks * All::ROWS;
      const Incoming here{s.K == nullptr ? nullptr : s.K + b * size,
                          s.T == nullptr ? nullptr : s.T + b * size};
      const Sums by_row = layers.sums(rows + b * numbers1, ld1);
      const Sums by_column = layers.sums(columns + task * numbers2, ld2);
      const auto compute = s.T == nullptr ? &All::template rows<false> : &All::template rows<true>;
      biases[task] = (layers.*compute)(b, start, one[b], two[b], here, W + b * size, by_row,
                                       by_column, room, roomK, roomT);
    };
  });
  if (failed) return failed;
  for (long b = 0; b < p.matrices; b++) {
    double *by_row = rows + b * numbers1, *by_column = columns + b * blocks * numbers2;
    bias[b] = biases[b * blocks];
    for (long k = 1; k < blocks; k++) {
      bias[b] += biases[b * blocks + k];
      for (long j = 0; j < numbers2; j++) by_column[j] += by_column[k * numbers2 + j];
    }
    memcpy(factor1 + b * p.rows, layers.sums(by_row, ld1).factors, sizeof(double) * p.rows);
    memcpy(factor2 + b * p.columns, layers.sums(by_column, ld2).factors,
           sizeof(double) * p.columns);
    if (p.symmetric)
      for (long j = 0; j < p.depth * ld1; j++) by_row[j] += by_column[j];
    else {
      bias[b] += layers.through_layers(two[b], p.columns, by_column);
      memcpy(variances2 + b * p.columns, by_column, sizeof(double) * p.columns);
    }
    bias[b] += layers.through_layers(one[b], p.rows, by_row);
    memcpy(variances1 + b * p.rows, by_row, sizeof(double) * p.rows);
  }
  return 0;
}

template <class Work> int by_dual(const Recursion& p, Work work) {
  try {
    switch (p.activation) {
      case ARC_COSINE: return work(static_cast<ArcCosine*>(nullptr));
      case ERF_DUAL: return work(static_cast<ErfDual*>(nullptr));
      case GELU_DUAL: return work(static_cast<GeluDual*>(nullptr));
      case SINE_DUAL: return work(static_cast<SineDual*>(nullptr));
      default: return work(static_cast<RBFSineDual*>(nullptr));
    }
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

// 0, or 1 out of memory.
extern "C" int covariances(const Recursion* p, double* K, double* T, int64_t threads) {
  return by_dual(*p, [=](auto* dual) {
    return covariances<std::remove_pointer_t<decltype(dual)>>(*p, K, T, threads);
  });
}

extern "C" int gradients(const Recursion* p, const double* byK, const double* byT, double* W,
                         double* variances1, double* variances2, double* bias, double* factor1,
                         double* factor2, int64_t threads) {
  return by_dual(*p, [=](auto* dual) {
    return gradients<std::remove_pointer_t<decltype(dual)>>(
        *p, {byK, byT}, W, variances1, variances2, bias, factor1, factor2, threads);
  });
}
