// Independent tasks, divided among threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>
#include "memory.hpp"

constexpr double PER_SECOND = 2e10;     // operations, about: whether threads are worth their start
constexpr double WORTH_A_THREAD = 1e-4; // seconds of work

// Runs work(k, memory) for k < K on up to `threads` threads. Returns 0, or 1 out of memory.
template <class Work>
static int each(long K, long threads, double operations, size_t bytes, Work work) {
  threads = std::min({threads, K, long(operations * K / PER_SECOND / WORTH_A_THREAD)});
  std::atomic<long> next{0};
  std::atomic<int> failed{0};
  auto run = [&] {
    try {
      Memory memory(bytes);
      auto task = work(memory);
      for (long k = next++; k < K; k = next++) task(k);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  };
  std::vector<std::thread> others;
  try {
    for (long i = 1; i < threads; i++) others.emplace_back(run);
  } catch (const std::system_error&) {
    // The system has no more threads: those that there are do the work.
  }
  run();
  for (auto& thread : others) thread.join();
  return failed;
}
