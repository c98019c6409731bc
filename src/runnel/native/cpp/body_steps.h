// One token of every primitive of `runnel.ops`: from the state before it (`from`) to the state after it (`to`, which may
// be the same memory), for a part of its channels or one head.

// y = sum over w of weight[w] * the w-th input before; weight [W, D], tail [W-1, D] oldest first.
void conv_step(const ConvStep& s, const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end) {
  const int64_t width = s.width, channels = s.channels;
  for (int64_t c = begin; c < end; c += kLanes) {
    const int64_t count = end - c < kLanes ? end - c : kLanes;
    const auto at = [&](const float* p) { return count == kLanes ? load(p + c) : load_some(p + c, count); };
    const auto put = [&](float* p, F16 v) { count == kLanes ? store(p + c, v) : store_some(p + c, v, count); };
    const F16 own = at(x);
    F16 sum = own * at(s.weight + (width - 1) * channels);
    if (s.bias != nullptr) sum = own * at(s.weight + (width - 1) * channels) + at(s.bias);
    for (int64_t w = width - 2; w >= 0; --w) sum = at(from + w * channels) * at(s.weight + w * channels) + sum;
    for (int64_t w = 0; w + 2 < width; ++w) put(to + w * channels, at(from + (w + 1) * channels));
    if (width > 1) put(to + (width - 2) * channels, own);
    put(y, sum);
  }
}

// y = the input before; the state is the input itself.
void shift_step(const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const float before = from[c];
    to[c] = x[c];
    y[c] = before;
  }
}

void diagonal_step(const float* a, const float* b, const float* from, float* to, float* y, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; c += kLanes) {
    const int64_t count = end - c < kLanes ? end - c : kLanes;
    const auto at = [&](const float* p) { return count == kLanes ? load(p + c) : load_some(p + c, count); };
    const auto put = [&](float* p, F16 v) { count == kLanes ? store(p + c, v) : store_some(p + c, v, count); };
    const F16 h = at(a) * at(from) + at(b);
    put(to, h);
    put(y, h);
  }
}

// h [D, N] = exp(dt a) h + (dt x) b,  y = h c
void selective_step(int64_t n, const float* x, const float* dt, const float* a, const float* b, const float* c,
                    const float* from, float* to, float* y, int64_t begin, int64_t end) {
  if (n == kLanes) {
    const F16 write = load(b), read = load(c);
    const auto next = [&](int64_t d) {
      const F16 h = exp_of(dt[d] * load(a + d * n)) * load(from + d * n) + (dt[d] * x[d]) * write;
      store(to + d * n, h);
      return h * read;
    };
    int64_t d = begin;
    for (; d + kLanes <= end; d += kLanes) {
      F16 terms[kLanes];
      for (int i = 0; i < kLanes; ++i) terms[i] = next(d + i);
      store(y + d, sums_of(terms));
    }
    for (; d < end; ++d) y[d] = sum_of(next(d));
    return;
  }
  for (int64_t d = begin; d < end; ++d) {
    F16 sum = F16{};
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t count = n - i < kLanes ? n - i : kLanes, at = d * n + i;
      const F16 decay = exp_of(dt[d] * load_some(a + at, count));
      const F16 h = decay * load_some(from + at, count) + (dt[d] * x[d]) * load_some(b + i, count);
      store_some(to + at, h, count);
      sum = sum + h * load_some(c + i, count);
    }
    y[d] = sum_of(sum);
  }
}

// The columns of a matrix state [K, V], 64 at a time and then what is left; `visit(column, accessors)`.
template <int B>
struct Columns {
  int64_t first, count;  // count < 16 only where B = 1
  F16 at(const float* p, int block) const {
    return B > 1 || count == kLanes ? load(p + first + block * kLanes) : load_some(p + first, count);
  }
  void put(float* p, int block, F16 v) const {
    B > 1 || count == kLanes ? store(p + first + block * kLanes, v) : store_some(p + first, v, count);
  }
};
template <class Visit>
inline void for_columns(int64_t width, Visit&& visit) {
  int64_t v = 0;
  for (; v + 4 * kLanes <= width; v += 4 * kLanes) visit(Columns<4>{v, kLanes});
  for (; v < width; v += kLanes) visit(Columns<1>{v, width - v < kLanes ? width - v : kLanes});
}
template <int B>
constexpr int blocks(const Columns<B>&) {
  return B;
}

constexpr int64_t kMostKeys = 1024;

// exp of the log decays of a head's K keys, or of the one that they share.
inline void decays_of(const float* log_decay, int64_t given, int64_t k, float* out) {
  if (given == 1) {
    const float decay = exp_of(splat(log_decay[0]))[0];
    for (int64_t i = 0; i < k; ++i) out[i] = decay;
    return;
  }
  for (int64_t i = 0; i < k; i += kLanes) {
    const int64_t count = k - i < kLanes ? k - i : kLanes;
    store_some(out + i, exp_of(load_some(log_decay + i, count)), count);
  }
}

// S = a S + k v^T,  y = S^T q
void outer_step(const MatrixStep& s, const float* q, const float* k, const float* v, const float* log_decay,
                const float* from, float* to, float* y) {
  float decay[kMostKeys];
  decays_of(log_decay, s.decays, s.keys, decay);
  for_columns(s.values, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 value[B], sum[B];
    for (int i = 0; i < B; ++i) {
      value[i] = columns.at(v, i);
      sum[i] = F16{};
    }
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) {
        const F16 now = decay[j] * columns.at(from + j * s.values, i) + k[j] * value[i];
        columns.put(to + j * s.values, i, now);
        sum[i] = q[j] * now + sum[i];
      }
    for (int i = 0; i < B; ++i) columns.put(y, i, sum[i]);
  });
}

// S = a S;  S = S + k (beta (v - S^T k))^T;  y = S^T q
void delta_step(const MatrixStep& s, const float* q, const float* k, const float* v, float beta, const float* log_decay,
                const float* from, float* to, float* y) {
  float decay[kMostKeys];
  decays_of(log_decay, s.decays, s.keys, decay);
  for_columns(s.values, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 found[B], sum[B];
    for (int i = 0; i < B; ++i) found[i] = sum[i] = F16{};
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) found[i] = (decay[j] * columns.at(from + j * s.values, i)) * k[j] + found[i];
    for (int i = 0; i < B; ++i) found[i] = beta * (columns.at(v, i) - found[i]);
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) {
        const F16 now = decay[j] * columns.at(from + j * s.values, i) + k[j] * found[i];
        columns.put(to + j * s.values, i, now);
        sum[i] = q[j] * now + sum[i];
      }
    for (int i = 0; i < B; ++i) columns.put(y, i, sum[i]);
  });
}

// S = a S + erase (S^T read)^T + k v^T;  y = S^T q
void dplr_step(const MatrixStep& s, const float* q, const float* k, const float* v, const float* read,
               const float* erase, const float* log_decay, const float* from, float* to, float* y) {
  float decay[kMostKeys];
  decays_of(log_decay, s.decays, s.keys, decay);
  for_columns(s.values, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 found[B], value[B], sum[B];
    for (int i = 0; i < B; ++i) {
      found[i] = sum[i] = F16{};
      value[i] = columns.at(v, i);
    }
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) found[i] = columns.at(from + j * s.values, i) * read[j] + found[i];
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) {
        const F16 kept = decay[j] * columns.at(from + j * s.values, i) + erase[j] * found[i];
        const F16 now = k[j] * value[i] + kept;
        columns.put(to + j * s.values, i, now);
        sum[i] = q[j] * now + sum[i];
      }
    for (int i = 0; i < B; ++i) columns.put(y, i, sum[i]);
  });
}

// softmax(scale q . k_j) v_j over a list of keys and values, for one head. scores [count] is room to work in.
void attend_step(int64_t width, float scale, const float* q, const float* const* keys, const float* const* values,
                 int64_t count, float* scores, float* y) {
  const int64_t whole = width / kLanes * kLanes;
  F16 most = splat(-__builtin_inff());
  const auto terms_of = [&](const float* key) {
    F16 sum = F16{};
    for (int64_t i = 0; i < whole; i += kLanes) sum = load(q + i) * load(key + i) + sum;
    if (whole < width) sum = load_some(q + whole, width - whole) * load_some(key + whole, width - whole) + sum;
    return sum;
  };
  int64_t key = 0;
  for (; key + kLanes <= count; key += kLanes) {
    F16 terms[kLanes];
    for (int i = 0; i < kLanes; ++i) terms[i] = terms_of(keys[key + i]);
    store(scores + key, scale * sums_of(terms));
  }
  for (; key < count; ++key) scores[key] = scale * sum_of(terms_of(keys[key]));
  for (int64_t j = 0; j < count; j += kLanes)
    most = larger(most, load_some(scores + j, count - j < kLanes ? count - j : kLanes, -__builtin_inff()));
  const float top = largest_of(most);
  F16 total = F16{};
  for (int64_t j = 0; j < count; j += kLanes) {
    const int64_t some = count - j < kLanes ? count - j : kLanes;
    const F16 weight = exp_of(load_some(scores + j, some, -__builtin_inff()) - top);
    total = total + weight;
    store_some(scores + j, weight, some);
  }
  const float inverse = 1.0f / sum_of(total);
  for_columns(width, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 sum[B];
    for (int i = 0; i < B; ++i) sum[i] = F16{};
    for (int64_t j = 0; j < count; ++j)
      for (int i = 0; i < B; ++i) sum[i] = scores[j] * columns.at(values[j], i) + sum[i];
    for (int i = 0; i < B; ++i) columns.put(y, i, inverse * sum[i]);
  });
}
