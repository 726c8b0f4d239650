// Vectors of the widest registers the compiler was allowed to use, in GCC's and Clang's extension.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, REGISTERS = 32;
#else
constexpr int VECTOR_BYTES = 16, REGISTERS = 16;
#endif

#define INLINE inline __attribute__((always_inline))

template <class T> struct Lane;
template <> struct Lane<float> {
  typedef float vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
  typedef int32_t bits __attribute__((vector_size(VECTOR_BYTES), may_alias));
};
template <> struct Lane<double> {
  typedef double vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
  typedef int64_t bits __attribute__((vector_size(VECTOR_BYTES), may_alias));
};
template <class T> using Vector = typename Lane<T>::vector;
template <class T> using Bits = typename Lane<T>::bits;
template <class T> constexpr int LANES = VECTOR_BYTES / sizeof(T);

template <class T> constexpr long padded(long n) { return (n + LANES<T> - 1) / LANES<T> * LANES<T>; }

// All arrays of the kernel are aligned, and their rows padded to whole vectors with zeros.
template <class T> INLINE Vector<T> load(const T* p) { return *(const Vector<T>*)p; }
template <class T> INLINE void store(T* p, Vector<T> v) { *(Vector<T>*)p = v; }
template <class T> INLINE Vector<T> all(T x) { return x - Vector<T>{}; }

template <class T> INLINE T sum(Vector<T> v) {
  T parts[LANES<T>];
  memcpy(parts, &v, sizeof(v));
  for (int half = LANES<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) parts[i] += parts[i + half];
  return parts[0];
}

// One of log2(lanes) passes of a transpose: out rows 2i, 2i + 1 interleave in rows i, i + lanes / 2.
template <class T, int... I> INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, int high,
                                                         std::integer_sequence<int, I...>) {
  constexpr int L = LANES<T>;
#if defined(__clang__) || __GNUC__ >= 12
  return high ? __builtin_shufflevector(a, b, (I / 2 + L / 2 + I % 2 * L)...)
              : __builtin_shufflevector(a, b, (I / 2 + I % 2 * L)...);
#else
  return high ? __builtin_shuffle(a, b, Bits<T>{(I / 2 + L / 2 + I % 2 * L)...})
              : __builtin_shuffle(a, b, Bits<T>{(I / 2 + I % 2 * L)...});
#endif
}

template <class T> INLINE void transpose(Vector<T> (&rows)[LANES<T>]) {
  constexpr int L = LANES<T>;
  constexpr auto index = std::make_integer_sequence<int, L>{};
#pragma GCC unroll 4
  for (int pass = 1; pass < L; pass *= 2) {
    Vector<T> next[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; i++) {
      next[2 * i] = interleave<T>(rows[i], rows[i + L / 2], 0, index);
      next[2 * i + 1] = interleave<T>(rows[i], rows[i + L / 2], 1, index);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) rows[i] = next[i];
  }
}

// to[j][i] = from[i][j] for i < rows and j < padded(columns); to has padded(columns) rows of ldt,
// with zeros at i >= rows.
template <class T>
static void transpose(const T* from, long ldf, long rows, long columns, T* to, long ldt) {
  constexpr int L = LANES<T>;
  for (long i = 0; i < rows; i += L)
    for (long j = 0; j < columns; j += L) {
      Vector<T> block[L];
#pragma GCC unroll 16
      for (int k = 0; k < L; k++)
        block[k] = i + k < rows ? load(from + (i + k) * ldf + j) : Vector<T>{};
      transpose<T>(block);
#pragma GCC unroll 16
      for (int k = 0; k < L; k++) store(to + (j + k) * ldt + i, block[k]);
    }
}
