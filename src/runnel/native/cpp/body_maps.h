// What is done number by number, and sums.

template <class Function>
inline void each(const MapRow& m, Function&& function) {
  const auto fetch = [&](int operand, int64_t i, int64_t count) {
    const float* p = m.in[operand];
    const int64_t stride = m.strides[operand];
    if (stride == 0) return splat(*p);
    if (stride == 1) return count == kLanes ? load(p + i) : load_some(p + i, count);
    float lanes[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = lane < count ? p[(i + lane) * stride] : 0.0f;
    return load(lanes);
  };
  for (int64_t i = 0; i < m.count; i += kLanes) {
    const int64_t count = m.count - i < kLanes ? m.count - i : kLanes;
    const F16 y = function([&](int operand) { return fetch(operand, i, count); });
    if (m.out_stride != 1) {
      float lanes[kLanes];
      store(lanes, y);
      for (int64_t lane = 0; lane < count; ++lane) m.out[(i + lane) * m.out_stride] = lanes[lane];
    } else if (count == kLanes) {
      store(m.out + i, y);
    } else {
      store_some(m.out + i, y, count);
    }
  }
}

inline F16 truth(I16 mask) { return pick(mask, splat(1.0f), F16{}); }
inline float erf_(float x) { return __builtin_erff(x); }
inline float log_(float x) { return __builtin_logf(x); }
inline float log1p_(float x) { return __builtin_log1pf(x); }
inline float sin_(float x) { return __builtin_sinf(x); }
inline float cos_(float x) { return __builtin_cosf(x); }
inline float sqrt_(float x) { return __builtin_sqrtf(x); }
inline float floor_(float x) { return __builtin_floorf(x); }

void map_row(int code, const MapRow& m) {
  const float s = m.scalars[0], t = m.scalars[1];
  switch (static_cast<Map>(code)) {
    case Map::copy: return each(m, [&](auto x) { return x(0); });
    case Map::neg: return each(m, [&](auto x) { return -x(0); });
    case Map::exp: return each(m, [&](auto x) { return exp_of(x(0)); });
    case Map::expm1: return each(m, [&](auto x) { return expm1_of(x(0)); });
    case Map::log: return each(m, [&](auto x) { return by_lane<log_>(x(0)); });
    case Map::log1p: return each(m, [&](auto x) { return by_lane<log1p_>(x(0)); });
    case Map::sin: return each(m, [&](auto x) { return by_lane<sin_>(x(0)); });
    case Map::cos: return each(m, [&](auto x) { return by_lane<cos_>(x(0)); });
    case Map::erf: return each(m, [&](auto x) { return by_lane<erf_>(x(0)); });
    case Map::floor: return each(m, [&](auto x) { return by_lane<floor_>(x(0)); });
    case Map::sqrt: return each(m, [&](auto x) { return by_lane<sqrt_>(x(0)); });
    case Map::rsqrt: return each(m, [&](auto x) { return 1.0f / by_lane<sqrt_>(x(0)); });
    case Map::reciprocal: return each(m, [&](auto x) { return 1.0f / x(0); });
    case Map::abs: return each(m, [&](auto x) { return abs_of(x(0)); });
    case Map::relu: return each(m, [&](auto x) { return larger(x(0), F16{}); });
    case Map::sigmoid: return each(m, [&](auto x) { return sigmoid_of(x(0)); });
    case Map::silu: return each(m, [&](auto x) { return silu_of(x(0)); });
    case Map::softplus: return each(m, [&](auto x) { return softplus_of(x(0)); });
    case Map::log_sigmoid: return each(m, [&](auto x) { return -softplus_of(-x(0)); });
    case Map::tanh: return each(m, [&](auto x) { return tanh_of(x(0)); });
    case Map::elu: return each(m, [&](auto x) { return pick(x(0) > 0.0f, s * x(0), t * expm1_of(x(0))); });
    case Map::gelu: return each(m, [&](auto x) { return 0.5f * x(0) * (1.0f + by_lane<erf_>(0.70710678f * x(0))); });
    case Map::gelu_tanh:
      return each(m, [&](auto x) {
        const F16 v = x(0);
        return 0.5f * v * (1.0f + tanh_of(0.79788456f * (v + 0.044715f * v * v * v)));
      });
    case Map::square: return each(m, [&](auto x) { return x(0) * x(0); });
    case Map::cube: return each(m, [&](auto x) { return x(0) * x(0) * x(0); });
    case Map::affine: return each(m, [&](auto x) { return x(0) * s + t; });
    case Map::divide_by: return each(m, [&](auto x) { return x(0) / s; });
    case Map::divide_into: return each(m, [&](auto x) { return s / x(0); });
    case Map::clamp: return each(m, [&](auto x) { return smaller(larger(x(0), splat(s)), splat(t)); });
    case Map::power:
      return each(m, [&](auto x) {
        float lanes[kLanes];
        store(lanes, x(0));
        for (float& lane : lanes) lane = __builtin_powf(lane, s);
        return load(lanes);
      });
    case Map::add: return each(m, [&](auto x) { return x(0) + s * x(1); });
    case Map::mul: return each(m, [&](auto x) { return x(0) * x(1); });
    case Map::div: return each(m, [&](auto x) { return x(0) / x(1); });
    case Map::maximum: return each(m, [&](auto x) { return larger(x(0), x(1)); });
    case Map::minimum: return each(m, [&](auto x) { return smaller(x(0), x(1)); });
    case Map::addcmul: return each(m, [&](auto x) { return (s * x(1)) * x(2) + x(0); });
    case Map::lerp: return each(m, [&](auto x) { return x(2) * (x(1) - x(0)) + x(0); });
    case Map::where: return each(m, [&](auto x) { return pick(x(0) != 0.0f, x(1), x(2)); });
    case Map::equal: return each(m, [&](auto x) { return truth(x(0) == x(1)); });
    case Map::less: return each(m, [&](auto x) { return truth(x(0) < x(1)); });
    case Map::less_equal: return each(m, [&](auto x) { return truth(x(0) <= x(1)); });
    case Map::take:
      for (int64_t i = 0; i < m.count; ++i) {
        const auto place = static_cast<int64_t>(m.in[1][i * m.strides[1]]) * static_cast<int64_t>(s);
        m.out[i * m.out_stride] = m.in[0][i * m.strides[0] + place];
      }
  }
}

template <class Function, class Join>
inline float fold(const float* x, int64_t count, int64_t stride, float start, Function&& function, Join&& join) {
  F16 lanes = splat(start);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t some = count - i < kLanes ? count - i : kLanes;
    float taken[kLanes];
    if (stride != 1)
      for (int64_t lane = 0; lane < some; ++lane) taken[lane] = x[(i + lane) * stride];
    const float* from = stride == 1 ? x + i : taken;
    const F16 v = some == kLanes ? load(from) : load_some(from, some, start);
    lanes = join(lanes, function(v));
  }
  return start == 0.0f ? sum_of(lanes) : largest_of(lanes);
}

float reduce_row(int code, const float* x, int64_t count, int64_t stride) {
  const auto plus = [](F16 a, F16 b) { return a + b; };
  const auto same = [](F16 v) { return v; };
  switch (static_cast<Reduce>(code)) {
    case Reduce::sum: return fold(x, count, stride, 0.0f, same, plus);
    case Reduce::mean: return fold(x, count, stride, 0.0f, same, plus) / static_cast<float>(count);
    case Reduce::norm:
      return __builtin_sqrtf(fold(x, count, stride, 0.0f, [](F16 v) { return v * v; }, plus));
    case Reduce::largest:
      return fold(x, count, stride, -__builtin_inff(), same, [](F16 a, F16 b) { return larger(b, a); });
  }
  return 0.0f;
}

// (x - mean) / sqrt(var + eps) * weight + bias
void normalise(const float* x, int64_t count, float eps, const float* weight, const float* bias, float* y) {
  const float mean = reduce_row(static_cast<int>(Reduce::mean), x, count, 1);
  F16 squares = F16{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const F16 d = load_some(x + i, count - i < kLanes ? count - i : kLanes, mean) - mean;
    squares = d * d + squares;
  }
  const float var = sum_of(squares) / static_cast<float>(count);
  const float scale = 1.0f / __builtin_sqrtf(var + eps);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t some = count - i < kLanes ? count - i : kLanes;
    F16 v = (load_some(x + i, some) - mean) * scale;
    if (weight != nullptr) v = v * load_some(weight + i, some);
    if (bias != nullptr) v = v + load_some(bias + i, some);
    store_some(y + i, v, some);
  }
}

// out [M, N] = a [M, K] b [K, N], all with strides.
void small_product(const SmallProduct& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; j += kLanes) {
      const int64_t some = p.n - j < kLanes ? p.n - j : kLanes;
      F16 sum = F16{};
      for (int64_t k = 0; k < p.k; ++k) {
        const float* b = p.b + k * p.b_rows + j * p.b_columns;
        F16 row;
        if (p.b_columns == 1) {
          row = some == kLanes ? load(b) : load_some(b, some);
        } else {
          float lanes[kLanes];
          for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = lane < some ? b[lane * p.b_columns] : 0.0f;
          row = load(lanes);
        }
        sum = p.a[i * p.a_rows + k * p.a_columns] * row + sum;
      }
      float lanes[kLanes];
      store(lanes, sum);
      for (int64_t lane = 0; lane < some; ++lane) p.out[i * p.out_rows + (j + lane) * p.out_columns] = lanes[lane];
    }
  }
}
