// Products y = x W^T for a few rows x and a W that is read once.
//
// A panel is 32 outputs; a lane is an output; the reduction runs over k in order. Whatever the number of rows, every
// output therefore adds the same numbers in the same order, and a row's result is the same bits alone, in company and
// in the product of a prefill.
//
// A word is what one lane takes of a row of x at once: a float, two bf16, or four int8. Panel layouts, in words:
//   f32   [K][32]          bf16  [K/2][32]
//   int8  [groups][scale [32] floats, [group/4][32]]      weights + 128, unsigned
//   int4  [groups][scale [32] floats, [group/8][32]]      weights + 8; the low nibbles of a word are its first four k
// Weights outside of W are zero.

constexpr int kPanel = 32;

#if defined(__AVX512F__)
constexpr int kVector = 16, kMostRows = 14, kWidePanels = 4;
typedef __m512 VF;
typedef __m512i VI;
inline VI load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline VI splat_word(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
inline VI zero_words() { return _mm512_setzero_si512(); }
inline VF zero_floats() { return _mm512_setzero_ps(); }
inline VI as_words(VF x) { return _mm512_castps_si512(x); }
inline VF as_floats(VI x) { return _mm512_castsi512_ps(x); }
inline VF fma_of(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
inline VF mul_of(VF a, VF b) { return _mm512_mul_ps(a, b); }
inline VF add_of(VF a, VF b) { return _mm512_add_ps(a, b); }
inline VF splat_float(float x) { return _mm512_set1_ps(x); }
inline VF floats_of(VI x) { return _mm512_cvtepi32_ps(x); }
inline void store_floats(float* p, VF x) { _mm512_storeu_ps(p, x); }
inline VF load_floats(const float* p) { return _mm512_loadu_ps(p); }
inline VI dot_bytes(VI sum, VI w, VI x) { return _mm512_dpbusd_epi32(sum, w, x); }
inline VI low_nibbles(VI x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline VI high_nibbles(VI x) { return low_nibbles(_mm512_srli_epi32(x, 4)); }
inline VF dot_pair(VF sum, VI w, VI x) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}
#elif defined(__AVX2__)
constexpr int kVector = 8, kMostRows = 3, kWidePanels = 2;
typedef __m256 VF;
typedef __m256i VI;
inline VI load_words(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline VI splat_word(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int>(*p)); }
inline VI zero_words() { return _mm256_setzero_si256(); }
inline VF zero_floats() { return _mm256_setzero_ps(); }
inline VI as_words(VF x) { return _mm256_castps_si256(x); }
inline VF as_floats(VI x) { return _mm256_castsi256_ps(x); }
inline VF fma_of(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
inline VF mul_of(VF a, VF b) { return _mm256_mul_ps(a, b); }
inline VF add_of(VF a, VF b) { return _mm256_add_ps(a, b); }
inline VF splat_float(float x) { return _mm256_set1_ps(x); }
inline VF floats_of(VI x) { return _mm256_cvtepi32_ps(x); }
inline void store_floats(float* p, VF x) { _mm256_storeu_ps(p, x); }
inline VF load_floats(const float* p) { return _mm256_loadu_ps(p); }
inline VI dot_bytes(VI sum, VI w, VI x) {  // through 16 bits: the byte form saturates
  const VI low = _mm256_set1_epi16(255);
  const VI even = _mm256_madd_epi16(_mm256_and_si256(w, low), _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
  const VI odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
inline VI low_nibbles(VI x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline VI high_nibbles(VI x) { return low_nibbles(_mm256_srli_epi32(x, 4)); }
inline VF dot_pair(VF sum, VI w, VI x) {
  const VI high = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  sum = fma_of(as_floats(_mm256_and_si256(w, high)), as_floats(_mm256_and_si256(x, high)), sum);
  return fma_of(as_floats(_mm256_slli_epi32(w, 16)), as_floats(_mm256_slli_epi32(x, 16)), sum);
}
#else
constexpr int kVector = 4, kMostRows = 2, kWidePanels = 1;
typedef float VF __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
inline VI load_words(const uint32_t* p) {
  VI v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VI splat_word(const uint32_t* p) { return VI{} + static_cast<int32_t>(*p); }
inline VI zero_words() { return VI{}; }
inline VF zero_floats() { return VF{}; }
inline VI as_words(VF x) { return reinterpret_cast<VI>(x); }
inline VF as_floats(VI x) { return reinterpret_cast<VF>(x); }
inline VF fma_of(VF a, VF b, VF c) { return a * b + c; }
inline VF mul_of(VF a, VF b) { return a * b; }
inline VF add_of(VF a, VF b) { return a + b; }
inline VF splat_float(float x) { return VF{} + x; }
inline VF floats_of(VI x) { return __builtin_convertvector(x, VF); }
inline void store_floats(float* p, VF x) { std::memcpy(p, &x, sizeof x); }
inline VF load_floats(const float* p) {
  VF v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VI dot_bytes(VI sum, VI w, VI x) {
  for (int byte = 0; byte < 4; ++byte) sum += ((w >> (8 * byte)) & 255) * ((x << (24 - 8 * byte)) >> 24);
  return sum;
}
inline VI low_nibbles(VI x) { return x & 0x0f0f0f0f; }
inline VI high_nibbles(VI x) { return (x >> 4) & 0x0f0f0f0f; }
inline VF dot_pair(VF sum, VI w, VI x) {
  sum = as_floats(w & static_cast<int32_t>(0xffff0000)) * as_floats(x & static_cast<int32_t>(0xffff0000)) + sum;
  return as_floats(w << 16) * as_floats(x << 16) + sum;
}
#endif

constexpr int kVectors = kPanel / kVector;

// How far ahead of the reading the next words are asked for.
constexpr int64_t kAhead = 1024;

struct DotF32 {
  static VF add(VF sum, VI w, VI x) { return fma_of(as_floats(w), as_floats(x), sum); }
};
// The odd number of a pair is added before the even one: so does AVX-512's instruction (a product of two bf16 is exact
// in a float, so fusing changes nothing).
struct DotBf16 {
  static VF add(VF sum, VI w, VI x) { return dot_pair(sum, w, x); }
};

// sums: one panel of one row.
inline void store_panel(const Product& p, int64_t panel, int64_t row, const VF* sums) {
  const int64_t first = panel * kPanel, left = p.outputs - first;
  float* y = p.y + row * p.y_stride + first;
  float all[kPanel];
  float* to = left < kPanel ? all : y;
  for (int v = 0; v < kVectors; ++v) store_floats(to + v * kVector, sums[v]);
  if (left < kPanel)
    for (int64_t i = 0; i < left; ++i) y[i] = all[i];
  if (p.bias != nullptr)
    for (int64_t i = 0; i < (left < kPanel ? left : kPanel); ++i) y[i] += p.bias[first + i];
}

// What a tile will write is asked for before it is computed: many rows are more than a cache holds.
inline void want_panel(const Product& p, int64_t panel, int64_t row) {
  const float* y = p.y + row * p.y_stride + panel * kPanel;
  __builtin_prefetch(y, 1, 3);
  __builtin_prefetch(y + 16, 1, 3);
}

// R rows of x from `row` on times P panels.
template <class Dot, int R, int P>
void float_tile(const Product& p, int64_t panel, int64_t row) {
  const int64_t panel_words = p.words * kPanel, stride = p.x_stride;
  const uint32_t* w = p.w + panel * panel_words;
  const uint32_t* x = p.x + row * stride;
  VF sum[P][R][kVectors];
#pragma GCC unroll 4
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      want_panel(p, panel + q, row + r);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[q][r][v] = zero_floats();
    }
  for (int64_t k = 0; k < p.words; ++k) {
#pragma GCC unroll 4
    for (int q = 0; q < P; ++q) {
      VI weights[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) weights[v] = load_words(w + q * panel_words + v * kVector);
      __builtin_prefetch(w + q * panel_words + kAhead, 0, 2);
      __builtin_prefetch(w + q * panel_words + kAhead + 16, 0, 2);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const VI word = splat_word(x + r * stride + k);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[q][r][v] = Dot::add(sum[q][r][v], weights[v], word);
      }
    }
    w += kPanel;
  }
#pragma GCC unroll 4
  for (int q = 0; q < P; ++q)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) store_panel(p, panel + q, row + r, sum[q][r]);
}

// Within a group sums are whole numbers, so their order does not matter; groups are added in order.
template <int kPerWord, int R>
void byte_tile(const Product& p, int64_t panel, int64_t row) {
  const int64_t group_words = p.group_words, panel_words = p.groups * (group_words + 1) * kPanel;
  const uint32_t* w = p.w + panel * panel_words;
  VF total[R][kVectors];
  for (int r = 0; r < R; ++r) {
    want_panel(p, panel, row + r);
    for (int v = 0; v < kVectors; ++v) total[r][v] = zero_floats();
  }
  for (int64_t group = 0; group < p.groups; ++group) {
    const float* scales = reinterpret_cast<const float*>(w);
    const uint32_t* x = p.x + row * p.x_stride + group * group_words * (kPerWord / 4);
    w += kPanel;
    VI sum[R][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = zero_words();
    for (int64_t k = 0; k < group_words; ++k) {
      VI weights[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) weights[v] = load_words(w + v * kVector);
      __builtin_prefetch(w + kAhead, 0, 2);
      __builtin_prefetch(w + kAhead + 16, 0, 2);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const uint32_t* words = x + r * p.x_stride + k * (kPerWord / 4);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kPerWord == 4) {
            sum[r][v] = dot_bytes(sum[r][v], weights[v], splat_word(words));
          } else {
            sum[r][v] = dot_bytes(sum[r][v], low_nibbles(weights[v]), splat_word(words));
            sum[r][v] = dot_bytes(sum[r][v], high_nibbles(weights[v]), splat_word(words + 1));
          }
        }
      }
      w += kPanel;
    }
    for (int r = 0; r < R; ++r) {
      const int64_t at = (row + r) * p.groups + group;
      const VF scale = splat_float(p.x_scales[at]), offset = splat_float(p.x_offsets[at]);
      for (int v = 0; v < kVectors; ++v) {
        const VF whole = add_of(floats_of(sum[r][v]), offset);
        total[r][v] = fma_of(whole, mul_of(load_floats(scales + v * kVector), scale), total[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r) store_panel(p, panel, row + r, total[r]);
}

template <class Dot>
struct FloatTiles {
  // Few rows: several panels at once, so that enough sums are in flight.
  template <int R>
  static void panels(const Product& p, int64_t begin, int64_t end, int64_t row) {
    constexpr int P = R * kWidePanels <= 8 ? kWidePanels : R * 2 <= 8 && kWidePanels > 2 ? 2 : 1;
    for (; begin + P <= end; begin += P) float_tile<Dot, R, P>(p, begin, row);
    for (; begin < end; ++begin) float_tile<Dot, R, 1>(p, begin, row);
  }
};
template <int kPerWord>
struct ByteTiles {
  template <int R>
  static void panels(const Product& p, int64_t begin, int64_t end, int64_t row) {
    for (; begin < end; ++begin) byte_tile<kPerWord, R>(p, begin, row);
  }
};

template <class Tiles, int R = kMostRows>
void panels_of(const Product& p, int64_t begin, int64_t end, int64_t row, int64_t rows) {
  if (rows == R) {
    Tiles::template panels<R>(p, begin, end, row);
  } else if constexpr (R > 1) {
    panels_of<Tiles, R - 1>(p, begin, end, row, rows);
  }
}

// Panels [begin, end) for all rows. Many rows go tile by tile over one panel, which stays in cache.
template <class Tiles>
void product(const Product& p, int64_t begin, int64_t end) {
  const int64_t tiles = (p.rows + kMostRows - 1) / kMostRows;
  if (tiles == 0) return;
  if (tiles == 1) {
    panels_of<Tiles>(p, begin, end, 0, p.rows);
    return;
  }
  for (int64_t panel = begin; panel < end; ++panel)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * p.rows / tiles, last = (tile + 1) * p.rows / tiles;
      panels_of<Tiles>(p, panel, panel + 1, first, last - first);
    }
}

void to_bf16(const float* x, uint16_t* out, int64_t count) {
  typedef uint32_t U16 __attribute__((vector_size(64)));
  typedef uint16_t H16 __attribute__((vector_size(32), aligned(2), may_alias));
  const auto rounded = [](F16 v) {
    const U16 bits = reinterpret_cast<U16>(v);
    const U16 even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;  // NaN stays NaN
    const U16 is_nan = reinterpret_cast<U16>(v != v);
    return __builtin_convertvector((is_nan & nan) | (~is_nan & even), H16);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) *reinterpret_cast<H16*>(out + i) = rounded(load(x + i));
  for (; i < count; ++i) out[i] = rounded(splat(x[i]))[0];
}

// One row of x as signed bytes, a scale for each group. offset: what the products of unsigned weights have too much.
void to_bytes(const float* x, int64_t inputs, int64_t group, float weight_offset, int8_t* out, float* scales,
              float* offsets) {
  typedef int8_t Bytes16 __attribute__((vector_size(16)));
  for (int64_t g = 0; g * group < inputs; ++g) {
    const int64_t begin = g * group, end = begin + group < inputs ? begin + group : inputs;
    const auto at = [&](int64_t i) { return i + kLanes <= end ? load(x + i) : load_some(x + i, end - i); };
    F16 largest = F16{};
    for (int64_t i = begin; i < end; i += kLanes) {
      const F16 size = abs_of(at(i));
      largest = pick(size > largest, size, largest);
    }
    const float most = largest_of(largest), scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
    I16 sums = I16{};
    for (int64_t i = begin; i < begin + group; i += kLanes) {
      const F16 v = i < end ? at(i) : F16{};
      const I16 whole = bits_of(v * inverse + 12582912.0f) - 0x4b400000;  // 1.5 * 2^23: rounds to a whole number
      const Bytes16 bytes = __builtin_convertvector(whole, Bytes16);
      std::memcpy(out + i, &bytes, sizeof bytes);
      sums += whole;
    }
    int32_t sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    scales[g] = scale;
    offsets[g] = -weight_offset * static_cast<float>(sum);
  }
}
