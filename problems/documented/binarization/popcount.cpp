// Of every row of a and every row of w, the number of bits that differ.
//
// Rows and outputs are taken four by four, so that a word once loaded is used four times.

#include <cstdint>

namespace {

template <int R, int O>
void tile(const std::uint64_t* a, const std::uint64_t* w, std::int32_t* counts,
          std::int64_t outputs, std::int64_t words) {
  std::int64_t sums[R][O] = {};
  for (std::int64_t k = 0; k < words; ++k)
    for (int r = 0; r < R; ++r)
      for (int o = 0; o < O; ++o)
        sums[r][o] += __builtin_popcountll(a[r * words + k] ^ w[o * words + k]);
  for (int r = 0; r < R; ++r)
    for (int o = 0; o < O; ++o) counts[r * outputs + o] = static_cast<std::int32_t>(sums[r][o]);
}

template <int R>
void strip(const std::uint64_t* a, const std::uint64_t* w, std::int32_t* counts,
           std::int64_t outputs, std::int64_t words) {
  std::int64_t o = 0;
  for (; o + 4 <= outputs; o += 4) tile<R, 4>(a, w + o * words, counts + o, outputs, words);
  for (; o < outputs; ++o) tile<R, 1>(a, w + o * words, counts + o, outputs, words);
}

}  // namespace

extern "C" void count_differing(const std::uint64_t* a, const std::uint64_t* w,
                                std::int32_t* counts, std::int64_t rows, std::int64_t outputs,
                                std::int64_t words) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    strip<4>(a + r * words, w, counts + r * outputs, outputs, words);
  for (; r < rows; ++r) strip<1>(a + r * words, w, counts + r * outputs, outputs, words);
}
