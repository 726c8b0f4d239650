// What is computed, as the caller describes it, and memory to compute in.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include "vector.hpp"

enum Noise { KNOWN = 0, LOG_NORMAL = 1, HALF_CAUCHY = 2 };

// K networks' posterior. Arrays are contiguous and of the type of the called function, unless said.
// Has its mirror in kernel.py.
struct Problem {
  int64_t inputs, outputs, width, depth, activation;  // the latter an Activation
  int64_t points;                                     // n
  int64_t collapsed;       // whether the output layer is integrated out
  int64_t noise;           // a Noise
  int64_t target_stride;   // between networks' targets: 0 (the same) or n m
  int64_t precision_stride;
  double noise_mean, noise_std;  // of the log variance; half-Cauchy: its mean, and nothing
  const void* X;                 // n x inputs
  const void* targets;           // [K x] n x m
  const void* precision;         // [K x] n x m, if known
  const void* prior_precision;   // of each sampled weight
  const double* output_scales;   // m x (width + 1), of weights and bias, if collapsed
};

// Zeroed, aligned memory, handed out piece by piece.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_((bytes + 4095) / 4096 * 4096) {
    begin_ = next_ = static_cast<char*>(std::aligned_alloc(4096, bytes_));
    if (begin_ == nullptr) throw std::bad_alloc();
    memset(begin_, 0, bytes_);
  }
  ~Memory() { std::free(begin_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <class T> T* take(long count) {
    T* p = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(count);
    return p;
  }
  // The odd vector between pieces keeps them from falling on the same lines of the cache.
  template <class T> static size_t bytes(long count) {
    return padded<T>(count) * sizeof(T) + VECTOR_BYTES;
  }

 private:
  size_t bytes_;
  char *begin_, *next_;
};
