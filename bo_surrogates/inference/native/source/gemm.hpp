// Products of small matrices whose rows are whole vectors.
#pragma once
#include "vector.hpp"

// What C starts from.
enum class From { ZERO, ROW, C };

template <class T> using Tile = void (*)(long, const T*, long, long, const T*, long, T*, long,
                                         const T*, From);

// C (M x N vectors) = start + A B with A(i, k) = A[i * ra + k * ca], k < depth: C stays in registers.
template <class T, int M, int N>
static void tile(long depth, const T* A, long ra, long ca, const T* B, long ldb, T* C, long ldc,
                 const T* row, From from) {
  constexpr int L = LANES<T>;
  Vector<T> c[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++)
      c[i][j] = from == From::ZERO ? Vector<T>{}
                : from == From::ROW ? load(row + j * L) : load(C + i * ldc + j * L);
  for (long k = 0; k < depth; k++) {
    Vector<T> b[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) b[j] = load(B + k * ldb + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const Vector<T> a = all<T>(A[i * ra + k * ca]);
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) c[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) store(C + i * ldc + j * L, c[i][j]);
}

// Vectors and rows of the largest tile: what the registers hold, with room for b and a.
constexpr int MOST_VECTORS = REGISTERS == 32 ? 4 : 2;
constexpr int most_rows(int vectors) {
  return vectors == 1 ? 12 : REGISTERS == 32 ? (vectors == 2 ? 12 : vectors == 3 ? 8 : 6) : 6;
}

template <class T, int N, int... M>
static Tile<T> tile_of(int rows, std::integer_sequence<int, M...>) {
  static constexpr Tile<T> tiles[] = {tile<T, M + 1, N>...};
  return tiles[rows - 1];
}
template <class T, int N> static Tile<T> tile_of(int rows) {
  return tile_of<T, N>(rows, std::make_integer_sequence<int, most_rows(N)>{});
}
template <class T> static Tile<T> tile_of(int rows, int vectors) {
  if constexpr (MOST_VECTORS == 4) {
    if (vectors == 4) return tile_of<T, 4>(rows);
    if (vectors == 3) return tile_of<T, 3>(rows);
  }
  return vectors == 2 ? tile_of<T, 2>(rows) : tile_of<T, 1>(rows);
}

// C (rows x columns, whole vectors) = start + A B, A as in `tile`.
template <class T>
static void gemm(long rows, long columns, long depth, const T* A, long ra, long ca, const T* B,
                 long ldb, T* C, long ldc, const T* row, From from) {
  constexpr int L = LANES<T>;
  for (long j = 0; j < columns;) {
    const long left = (columns - j) / L;
    const int vectors = left < MOST_VECTORS ? left : MOST_VECTORS;
    // Tiles of equal height: a low last one would waste the pipeline.
    const long tiles = (rows + most_rows(vectors) - 1) / most_rows(vectors);
    for (long t = 0, i = 0; t < tiles; t++) {
      const int height = (rows - i) / (tiles - t);
      tile_of<T>(height, vectors)(depth, A + i * ra, ra, ca, B + j, ldb, C + i * ldc + j, ldc,
                                  row + (from == From::ROW ? j : 0), from);
      i += height;
    }
    j += vectors * L;
  }
}
