// Vectors of 16 floats and the functions of one variable. An operation on 16 lanes becomes one AVX-512 instruction, two
// of AVX2 or four of SSE or NEON. Loops go by whole vectors; what is left over goes through a padded copy, so that an
// element's value never depends on where it stands.

constexpr int kLanes = 16;
typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef float F16u __attribute__((vector_size(64), aligned(4), may_alias));

inline F16 load(const float* p) { return *reinterpret_cast<const F16u*>(p); }
inline void store(float* p, F16 v) { *reinterpret_cast<F16u*>(p) = v; }
inline F16 splat(float x) { return F16{} + x; }
inline I16 bits_of(F16 x) { return reinterpret_cast<I16>(x); }
inline F16 float_of(I16 x) { return reinterpret_cast<F16>(x); }
inline F16 pick(I16 mask, F16 yes, F16 no) { return float_of((mask & bits_of(yes)) | (~mask & bits_of(no))); }
inline F16 to_float(I16 x) { return __builtin_convertvector(x, F16); }
inline F16 abs_of(F16 x) { return float_of(bits_of(x) & 0x7fffffff); }
inline F16 larger(F16 x, F16 y) { return pick((x > y) | (x != x), x, y); }  // NaN stays
inline F16 smaller(F16 x, F16 y) { return pick((x < y) | (x != x), x, y); }

inline F16 load_some(const float* p, int64_t count, float rest = 0.0f) {
  float padded[kLanes];
  for (int i = 0; i < kLanes; ++i) padded[i] = i < count ? p[i] : rest;
  return load(padded);
}
inline void store_some(float* p, F16 v, int64_t count) {
  float padded[kLanes];
  store(padded, v);
  for (int64_t i = 0; i < count; ++i) p[i] = padded[i];
}

// The sums of the lanes of 16 vectors: always lane i with i + 8, then with i + 4, i + 2, i + 1.
inline F16 sums_of(const F16* v) {
  F16 by8[8], by4[4], by2[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const F16 a = v[i], b = v[i + 8];
    by8[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
             __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const F16 a = by8[i], b = by8[i + 4];
    by4[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
             __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const F16 a = by4[i], b = by4[i + 2];
    by2[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
             __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  const F16 a = by2[0], b = by2[1];
  return __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
// The sum of one, in the same order.
inline float sum_of(F16 v) {
  v = v + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v = v + __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v = v + __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return v[0] + v[1];
}
inline float largest_of(F16 v) {
  float x[kLanes];
  store(x, v);
  for (int i = 1; i < kLanes; ++i) x[0] = x[i] > x[0] || x[i] != x[i] ? x[i] : x[0];
  return x[0];
}

// exp(r) for |r| <= log(2) / 2.
inline F16 exp_of_rest(F16 r) {
  F16 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r + 1.0f;
  return p * r + 1.0f;
}
#if defined(__AVX512F__)
inline F16 exp_of(F16 x) {
  const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(88.8f), reinterpret_cast<__m512>(x));  // NaN stays
  const __m512 power = _mm512_roundscale_ps(bounded * _mm512_set1_ps(1.44269504088896341f), 0);
  const F16 whole = reinterpret_cast<F16>(power);
  F16 r = reinterpret_cast<F16>(bounded) - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  const __mmask16 kept = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ);
  const __m512 y = _mm512_maskz_scalef_ps(kept, reinterpret_cast<__m512>(exp_of_rest(r)), power);
  return reinterpret_cast<F16>(y);
}
#else
inline F16 exp_of(F16 x) {
  const F16 shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
  const F16 whole = shifted - 12582912.0f;
  F16 r = x - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  const I16 power = (bits_of(shifted) - 0x4b400000 + 127) << 23;
  F16 y = exp_of_rest(r) * float_of(power);
  y = pick(x < -87.33654f, F16{}, y);
  return pick(x > 88.37626f, splat(__builtin_inff()), y);
}
#endif

// log(1 + u) for u in [0, 1]: 2 artanh(u / (2 + u)).
inline F16 log1p_of(F16 u) {
  const F16 s = u / (u + 2.0f), z = s * s;
  F16 p = splat(1.0f / 15);
  p = p * z + 1.0f / 13;
  p = p * z + 1.0f / 11;
  p = p * z + 1.0f / 9;
  p = p * z + 1.0f / 7;
  p = p * z + 1.0f / 5;
  p = p * z + 1.0f / 3;
  return 2.0f * (s + s * z * p);
}

inline F16 sigmoid_of(F16 x) { return 1.0f / (1.0f + exp_of(-x)); }
inline F16 silu_of(F16 x) { return x / (1.0f + exp_of(-x)); }
inline F16 softplus_of(F16 x) { return larger(x, F16{}) + log1p_of(exp_of(-abs_of(x))); }
inline F16 expm1_of(F16 x) {
  F16 p = splat(1.0f / 5040);
  p = p * x + 1.0f / 720;
  p = p * x + 1.0f / 120;
  p = p * x + 1.0f / 24;
  p = p * x + 1.0f / 6;
  p = p * x + 0.5f;
  p = p * x * x + x;
  return pick(abs_of(x) < 0.35f, p, exp_of(x) - 1.0f);
}
inline F16 tanh_of(F16 x) {
  const F16 z = x * x, e = exp_of(-2.0f * abs_of(x));
  F16 p = splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  p = p * z * x + x;
  const F16 far = (1.0f - e) / (1.0f + e);
  return pick(abs_of(x) < 0.625f, p, float_of(bits_of(far) | (bits_of(x) & static_cast<int32_t>(0x80000000))));
}
template <float (*scalar)(float)>
inline F16 by_lane(F16 x) {
  float lanes[kLanes];
  store(lanes, x);
  for (float& lane : lanes) lane = scalar(lane);
  return load(lanes);
}
