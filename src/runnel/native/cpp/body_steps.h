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

inline F16 turned(F16 x) { return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }

// The same of complex numbers, as pairs (real, imaginary). begin and end count numbers, two a pair.
void complex_diagonal_step(const float* a, const float* b, const float* from, float* to, float* y, int64_t begin,
                           int64_t end) {
  const F16 sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  for (int64_t c = begin; c < end; c += kLanes) {
    const int64_t count = end - c < kLanes ? end - c : kLanes;
    const F16 decay = load_some(a + c, count), before = load_some(from + c, count);
    const F16 real = __builtin_shufflevector(decay, decay, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
    const F16 imaginary = __builtin_shufflevector(decay, decay, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15);
    const F16 h = real * before + ((sign * imaginary) * turned(before) + load_some(b + c, count));
    store_some(to + c, h, count);
    store_some(y + c, h, count);
  }
}

// h [D, N] = a h + x,  y = Re sum over n of c h: a and c are the same for all tokens.
void lti_step(const LtiStep& s, const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end) {
  const F16 pairs = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
  const F16 enters = s.turn != nullptr ? pairs : splat(1.0f);
  for (int64_t d = begin; d < end; ++d) {
    const F16 written = x[d] * enters;
    F16 sum = F16{};
    for (int64_t i = 0; i < s.numbers; i += kLanes) {
      const int64_t count = s.numbers - i < kLanes ? s.numbers - i : kLanes, at = d * s.numbers + i;
      const F16 before = load_some(from + at, count);
      F16 h = load_some(s.keep + at, count) * before + written;
      if (s.turn != nullptr) h = load_some(s.turn + at, count) * turned(before) + h;
      store_some(to + at, h, count);
      sum = load_some(s.read + at, count) * h + sum;
    }
    y[d] = sum_of(sum);
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

// S_l = a S_l;  y = scales[0] (q . k) v + sum over l of scales[l + 1] S_l^T q, and then the buckets of the set bits below
// the lowest clear bit of the position, and k v^T, become the bucket of that bit. The last bucket takes in all above it.
void log_linear_step(const MatrixStep& s, const Buckets& b, const float* q, const float* k, const float* v,
                     const float* log_decay, const float* scales, const float* from, float* to, float* y) {
  int64_t into = 0;
  while (into + 1 < b.count && (b.position >> into & 1) != 0) ++into;
  const float decay = exp_of(splat(log_decay[0]))[0];
  for_columns(s.values, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 value[B], sum[B];
    for (int i = 0; i < B; ++i) {
      value[i] = columns.at(v, i);
      sum[i] = F16{};
    }
    for (int64_t j = 0; j < s.keys; ++j)
      for (int i = 0; i < B; ++i) {
        F16 merged = k[j] * value[i], seen = scales[0] * merged;
        for (int64_t l = 0; l < b.count; ++l) {
          const F16 kept = decay * columns.at(from + l * b.apart + j * s.values, i);
          seen = scales[l + 1] * kept + seen;
          if (l <= into) merged = merged + kept;
          columns.put(to + l * b.apart + j * s.values, i, l < into ? F16{} : l == into ? merged : kept);
        }
        sum[i] = q[j] * seen + sum[i];
      }
    for (int i = 0; i < B; ++i) columns.put(y, i, sum[i]);
  });
}

constexpr int64_t kKeysAtOnce = 64;  // they and their values stay in the first cache while all queries look at them

// scores of the keys [begin, end), 16 at a time and then one by one; `terms_of(key)` is to be summed over its lanes.
template <class Terms, class Scored>
inline void scores_of(const float* const* keys, int64_t begin, int64_t end, float* scores, Terms&& terms_of,
                      Scored&& scored) {
  int64_t key = begin;
  for (; key + kLanes <= end; key += kLanes) {
    F16 terms[kLanes];
    for (int i = 0; i < kLanes; ++i) terms[i] = terms_of(keys[key + i]);
    store(scores + key, scored(sums_of(terms)));
  }
  for (; key < end; ++key) scores[key] = scored(splat(sum_of(terms_of(keys[key]))))[0];
}

// The same with a query of V whole vectors, which stays in registers.
template <int V, class Scored>
inline void scores_of_whole(const float* q, const float* const* keys, int64_t begin, int64_t end, float* scores,
                            Scored&& scored) {
  F16 query[V];
  for (int i = 0; i < V; ++i) query[i] = load(q + i * kLanes);
  const auto terms_of = [&](const float* key) {
    F16 sum = F16{};
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) sum = query[i] * load(key + i * kLanes) + sum;
    return sum;
  };
  scores_of(keys, begin, end, scores, terms_of, scored);
}

inline void scores_of_query(const AttendStep& s, const float* q, const float* const* keys, int64_t begin, int64_t end,
                            float* scores) {
  const int64_t width = s.width, whole = width / kLanes * kLanes;
  const auto scored = [&](F16 x) { return s.cap > 0 ? s.cap * tanh_of((s.scale * x) / s.cap) : s.scale * x; };
  if (width == 4 * kLanes) return scores_of_whole<4>(q, keys, begin, end, scores, scored);
  if (width == 8 * kLanes) return scores_of_whole<8>(q, keys, begin, end, scores, scored);
  const auto terms_of = [&](const float* key) {
    F16 sum = F16{};
    for (int64_t i = 0; i < whole; i += kLanes) sum = load(q + i) * load(key + i) + sum;
    if (whole < width) sum = load_some(q + whole, width - whole) * load_some(key + whole, width - whole) + sum;
    return sum;
  };
  scores_of(keys, begin, end, scores, terms_of, scored);
}

// exp(scores - the largest); returns 1 / their sum.
inline float soften(float* scores, int64_t count) {
  F16 most = splat(-__builtin_inff()), total = F16{};
  const auto some_at = [&](int64_t j) { return count - j < kLanes ? count - j : kLanes; };
  for (int64_t j = 0; j < count; j += kLanes)
    most = larger(most, load_some(scores + j, some_at(j), -__builtin_inff()));
  const float top = largest_of(most);
  for (int64_t j = 0; j < count; j += kLanes) {
    const F16 weight = exp_of(load_some(scores + j, some_at(j), -__builtin_inff()) - top);
    total = total + weight;
    store_some(scores + j, weight, some_at(j));
  }
  return 1.0f / sum_of(total);
}

// y = y + weight_j v_j over the keys [begin, end) for Q queries at once, so that enough sums are in flight; after the
// last key they are divided by the sum of the weights.
template <int Q>
inline void add_values(const AttendStep& s, const AttendQuery* queries, int64_t begin, int64_t end,
                       const float* const* values) {
  if (begin >= end) return;
  const float* weights[Q];
  for (int i = 0; i < Q; ++i) weights[i] = queries[i].scores - queries[i].begin;
  for_columns(s.values, [&](auto columns) {
    constexpr int B = blocks(columns);
    F16 sum[Q][B];
    for (int i = 0; i < Q; ++i)
      for (int b = 0; b < B; ++b) sum[i][b] = columns.at(queries[i].y, b);
    for (int64_t j = begin; j < end; ++j)
      for (int b = 0; b < B; ++b) {
        const F16 value = columns.at(values[j], b);
        for (int i = 0; i < Q; ++i) sum[i][b] = weights[i][j] * value + sum[i][b];
      }
    for (int i = 0; i < Q; ++i) {
      const float last = end == queries[i].end ? queries[i].inverse : 1.0f;
      for (int b = 0; b < B; ++b) columns.put(queries[i].y, b, last * sum[i][b]);
    }
  });
}

// y = softmax(scale q . k_j) v_j for queries that look at one list of keys and values, each at its own part of it.
void attend_step(const AttendStep& s, AttendQuery* queries, int64_t count, const float* const* keys,
                 const float* const* values) {
  int64_t begin = queries[0].begin, end = queries[0].end;
  for (int64_t i = 1; i < count; ++i) {
    begin = queries[i].begin < begin ? queries[i].begin : begin;
    end = queries[i].end > end ? queries[i].end : end;
  }
  const auto from = [&](int64_t i, int64_t first) { return queries[i].begin > first ? queries[i].begin : first; };
  const auto to = [&](int64_t i, int64_t first) {
    return queries[i].end < first + kKeysAtOnce ? queries[i].end : first + kKeysAtOnce;
  };
  for (int64_t first = begin; first < end; first += kKeysAtOnce)
    for (int64_t i = 0; i < count; ++i)
      scores_of_query(s, queries[i].q, keys, from(i, first), to(i, first), queries[i].scores - queries[i].begin);
  for (int64_t i = 0; i < count; ++i) {
    queries[i].inverse = soften(queries[i].scores, queries[i].end - queries[i].begin);
    for (int64_t v = 0; v < s.values; ++v) queries[i].y[v] = 0.0f;
  }
  for (int64_t first = begin; first < end; first += kKeysAtOnce)
    for (int64_t i = 0; i < count;) {
      const int64_t begins = from(i, first), ends = to(i, first);
      const bool two = i + 1 < count && from(i + 1, first) == begins && to(i + 1, first) == ends;
      (two ? add_values<2> : add_values<1>)(s, queries + i, begins, ends, values);
      i += two ? 2 : 1;
    }
}
