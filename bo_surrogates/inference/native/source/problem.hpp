// What is computed, as the caller describes it.
#pragma once
#include <cstdint>

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
