// Memory to compute in.
#pragma once
#include <cstdlib>
#include <new>
#include "vector.hpp"

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
