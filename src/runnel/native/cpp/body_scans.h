// Scans over whole sequences, forward and backward. A lane is a channel; a part is some channels of one row of a batch.

struct Block {  // 16 channels from `first` on, of which `count` exist
  int64_t first, count;
  F16 at(const float* p) const { return count == kLanes ? load(p + first) : load_some(p + first, count); }
  void put(float* p, F16 v) const { count == kLanes ? store(p + first, v) : store_some(p + first, v, count); }
};
inline Block block_at(int64_t block, int64_t channels) {
  const int64_t first = block * kLanes;
  return {first, channels - first < kLanes ? channels - first : kLanes};
}

// ---- selective scan -------------------------------------------------------------------------------------------------

// [channels, states] -> [states, 16] of one block, and back.
inline void fetch_states(const float* p, const Block& block, int64_t states, float* out) {
  for (int64_t n = 0; n < states; ++n)
    for (int64_t lane = 0; lane < kLanes; ++lane)
      out[n * kLanes + lane] = lane < block.count ? p[(block.first + lane) * states + n] : 0.0f;
}
inline void put_states(float* p, const Block& block, int64_t states, const float* from) {
  for (int64_t lane = 0; lane < block.count; ++lane)
    for (int64_t n = 0; n < states; ++n) p[(block.first + lane) * states + n] = from[n * kLanes + lane];
}
inline float* kept_at(const SelectiveScan& s, int64_t row, int64_t block, int64_t chunk) {
  return s.kept + ((row * blocks_of(s.channels) + block) * chunks_of(s.length) + chunk) * s.states * kLanes;
}
inline bool starts(const uint8_t* reset, int64_t row, int64_t length, int64_t t) {
  return reset != nullptr && reset[row * length + t] != 0;
}

// The size of a token's step.
inline F16 step_size(const SelectiveScan& s, const Block& block, int64_t row, int64_t t) {
  const F16 dt = block.at(row_at(s.dt, row, t));
  return s.skip == nullptr ? dt : softplus_of(dt + block.at(s.dt_bias));
}

// room: 2 states vectors.
void selective_scan_forward(const SelectiveScan& s, int64_t row, int64_t index, float* room) {
  const int64_t states = s.states, wide = states * kLanes;
  const Block block = block_at(index, s.channels);
  float *a = room, *h = room + wide;
  fetch_states(s.a, block, states, a);
  fetch_states(s.memory + row * s.channels * states, block, states, h);
  for (int64_t t = 0; t < s.length; ++t) {
    if (s.kept != nullptr && t % kScanChunk == 0)
      std::memcpy(kept_at(s, row, index, t / kScanChunk), h, wide * sizeof(float));
    if (starts(s.reset, row, s.length, t)) std::memset(h, 0, wide * sizeof(float));
    const F16 dt = step_size(s, block, row, t), x = block.at(row_at(s.x, row, t)), write = dt * x;
    const float *b = row_at(s.b, row, t), *c = row_at(s.c, row, t);
    F16 sum = F16{};
    for (int64_t n = 0; n < states; ++n) {
      const F16 now = exp_of(dt * load(a + n * kLanes)) * load(h + n * kLanes) + b[n] * write;
      store(h + n * kLanes, now);
      sum = c[n] * now + sum;
    }
    if (s.skip != nullptr) sum = (sum + block.at(s.skip) * x) * silu_of(block.at(row_at(s.z, row, t)));
    block.put(row_at(s.y, row, t), sum);
  }
  put_states(s.last + row * s.channels * states, block, states, h);
}

// What a chunk went through: the decays and states [time, states, 16], which begin with the one before the chunk, and
// the steps and (ungated) outputs.
inline void selective_states(const SelectiveScan& s, int64_t row, const Block& block, int64_t begin, int64_t end,
                             const float* a, float* decays, float* all, F16* steps, F16* outputs) {
  const int64_t states = s.states, wide = states * kLanes;
  for (int64_t t = begin; t < end; ++t, decays += wide, all += wide) {
    const F16 dt = step_size(s, block, row, t), write = dt * block.at(row_at(s.x, row, t));
    const float *b = row_at(s.b, row, t), *c = row_at(s.c, row, t);
    F16 sum = F16{};
    const bool anew = starts(s.reset, row, s.length, t);
    for (int64_t n = 0; n < states; ++n) {
      const F16 decay = anew ? F16{} : exp_of(dt * load(a + n * kLanes));
      store(decays + n * kLanes, decay);
      const F16 now = decay * load(all + n * kLanes) + b[n] * write;
      store(all + wide + n * kLanes, now);
      sum = c[n] * now + sum;
    }
    steps[t - begin] = dt;
    outputs[t - begin] = sum;
  }
}

// With g_t the gradient of h_t:  g_t = dy_t c_t + decay_{t+1} g_{t+1}. From the last chunk to the first, each chunk's
// states being computed anew from the one before it.
// room: 3 states vectors for every block of the part (a, g, da), and 4 chunks of states vectors and one more.
void selective_scan_backward(const SelectiveScan& s, int64_t row, int64_t part, float* room) {
  const int64_t states = s.states, wide = states * kLanes, size = blocks_of_part(s.channels);
  const int64_t first = part * size;
  const int64_t blocks = blocks_of(s.channels) - first < size ? blocks_of(s.channels) - first : size;
  float *all_a = room, *all_g = all_a + size * wide, *all_da = all_g + size * wide, *decays = all_da + size * wide;
  float *all = decays + kScanChunk * wide, *db = all + (kScanChunk + 1) * wide, *dc = db + kScanChunk * wide;
  F16 steps[kScanChunk], outputs[kScanChunk], dskip[kMostBlocks], ddt_bias[kMostBlocks];
  for (int64_t i = 0; i < blocks; ++i) {
    const Block block = block_at(first + i, s.channels);
    dskip[i] = ddt_bias[i] = F16{};
    fetch_states(s.a, block, states, all_a + i * wide);
    fetch_states(s.last + row * s.channels * states, block, states, all_g + i * wide);
    std::memset(all_da + i * wide, 0, wide * sizeof(float));
  }
  for (int64_t chunk = chunks_of(s.length) - 1; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kScanChunk;
    const int64_t end = s.length - begin < kScanChunk ? s.length : begin + kScanChunk;
    std::memset(db, 0, 2 * kScanChunk * wide * sizeof(float));  // and dc
    for (int64_t i = 0; i < blocks; ++i) {
      const Block block = block_at(first + i, s.channels);
      float *a = all_a + i * wide, *g = all_g + i * wide, *da = all_da + i * wide;
      std::memcpy(all, kept_at(s, row, first + i, chunk), wide * sizeof(float));
      selective_states(s, row, block, begin, end, a, decays, all, steps, outputs);
      for (int64_t t = end - 1; t >= begin; --t) {
        const float *decay = decays + (t - begin) * wide, *before = all + (t - begin) * wide, *now = before + wide;
        const float *b = row_at(s.b, row, t), *c = row_at(s.c, row, t);
        float *db_t = db + (t - begin) * wide, *dc_t = dc + (t - begin) * wide;
        const F16 x = block.at(row_at(s.x, row, t)), dt = steps[t - begin], write = dt * x;
        F16 dy = block.at(row_at(s.y, row, t)), dx = F16{};
        if (s.skip != nullptr) {
          const F16 z = block.at(row_at(s.z, row, t)), open = sigmoid_of(z), skip = block.at(s.skip);
          block.put(row_at(s.dz, row, t), dy * (outputs[t - begin] + skip * x) * open * (1.0f + z * (1.0f - open)));
          dy = dy * z * open;
          dskip[i] = dy * x + dskip[i];
          dx = dy * skip;
        }
        F16 dwrite = F16{}, ddt = F16{};
        for (int64_t n = 0; n < states; ++n) {
          const int64_t at = n * kLanes;
          const F16 gradient = c[n] * dy + load(g + at), passed = gradient * load(decay + at);
          const F16 dlog = passed * load(before + at);
          store(g + at, passed);
          store(db_t + at, gradient * write + load(db_t + at));
          store(dc_t + at, dy * load(now + at) + load(dc_t + at));
          store(da + at, dlog * dt + load(da + at));
          dwrite = b[n] * gradient + dwrite;
          ddt = dlog * load(a + at) + ddt;
        }
        ddt = dwrite * x + ddt;
        if (s.skip != nullptr) {
          ddt = ddt * -expm1_of(-dt);  // the slope of softplus where its value is dt
          ddt_bias[i] = ddt + ddt_bias[i];
        }
        block.put(row_at(s.dx, row, t), dwrite * dt + dx);
        block.put(row_at(s.ddt, row, t), ddt);
      }
    }
    const int64_t to = ((part * s.batch + row) * s.length + begin) * states;
    for (int64_t i = 0; i < (end - begin) * states; ++i) {
      s.db[to + i] = sum_of(load(db + i * kLanes));
      s.dc[to + i] = sum_of(load(dc + i * kLanes));
    }
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const Block block = block_at(first + i, s.channels);
    put_states(s.da + row * s.channels * states, block, states, all_da + i * wide);
    put_states(s.dmemory + row * s.channels * states, block, states, all_g + i * wide);
    if (s.skip == nullptr) continue;
    block.put(s.dskip + row * s.channels, dskip[i]);
    block.put(s.ddt_bias + row * s.channels, ddt_bias[i]);
  }
}

// ---- diagonal scan --------------------------------------------------------------------------------------------------

// The blocks of one wide part: `visit(place among them, block)`.
template <class Visit>
inline void for_blocks(int64_t part, int64_t channels, Visit&& visit) {
  const int64_t first = part * kWideBlocks, all = blocks_of(channels);
  for (int64_t i = 0; i < kWideBlocks && first + i < all; ++i) visit(i, block_at(first + i, channels));
}

void diagonal_scan_forward(const DiagonalScan& s, int64_t row, int64_t part) {
  F16 h[kWideBlocks];
  for_blocks(part, s.channels, [&](int64_t i, Block block) { h[i] = block.at(s.memory + row * s.channels); });
  for (int64_t t = 0; t < s.length; ++t) {
    const float *a = row_at(s.a, row, t), *b = row_at(s.b, row, t);
    float* to = row_at(s.h, row, t);
    for_blocks(part, s.channels, [&](int64_t i, Block block) {
      h[i] = block.at(a) * h[i] + block.at(b);
      block.put(to, h[i]);
    });
  }
}

// The gradient of a linear scan is one from the other end: g_t = dh_t + a_{t+1} g_{t+1}.
void diagonal_scan_backward(const DiagonalScan& s, int64_t row, int64_t part) {
  F16 g[kWideBlocks];
  for (F16& lanes : g) lanes = F16{};
  for (int64_t t = s.length - 1; t >= 0; --t) {
    const float *a = row_at(s.a, row, t), *dh = row_at(s.dh, row, t);
    const float* before = t > 0 ? row_at(s.h, row, t - 1) : s.memory + row * s.channels;
    float *da = row_at(s.da, row, t), *db = row_at(s.b, row, t);
    for_blocks(part, s.channels, [&](int64_t i, Block block) {
      const F16 now = block.at(dh) + g[i];
      block.put(db, now);
      block.put(da, now * block.at(before));
      g[i] = now * block.at(a);
    });
  }
  for_blocks(part, s.channels, [&](int64_t i, Block block) { block.put(s.dmemory + row * s.channels, g[i]); });
}

// ---- causal convolution ---------------------------------------------------------------------------------------------

constexpr int64_t kMostTaps = 16;

// Where every tap of a token lies: in x, in the tail, or nowhere (null).
inline void find_taps(const Convolution& s, int64_t row, int64_t t, const Rows& x, float* tail, float** found) {
  for (int64_t w = 0; w < s.width; ++w) {
    const int64_t own = t + s.width - 1 - w;
    const int64_t at = s.taps == nullptr ? own : s.taps[(row * s.length + t) * s.width + w];
    if (at < s.width - 1) {
      found[w] = tail + (row * (s.width - 1) + at) * s.channels;
    } else {
      found[w] = at < s.width - 1 + s.length ? row_at(x, row, at - (s.width - 1)) : nullptr;
    }
  }
}

inline F16 convolved(const Convolution& s, const Block& block, float* const* taps) {
  const F16 own = block.at(taps[0]) * block.at(s.weight + (s.width - 1) * s.channels);
  F16 sum = s.bias == nullptr ? own : own + block.at(s.bias);
  for (int64_t w = 1; w < s.width; ++w)
    if (taps[w] != nullptr) sum = block.at(taps[w]) * block.at(s.weight + (s.width - 1 - w) * s.channels) + sum;
  return sum;
}

void causal_convolution_forward(const Convolution& s, int64_t row, int64_t part) {
  float* taps[kMostTaps];
  for (int64_t t = 0; t < s.length; ++t) {
    find_taps(s, row, t, s.x, const_cast<float*>(s.tail), taps);
    float* y = row_at(s.y, row, t);
    for_blocks(part, s.channels, [&](int64_t, Block block) {
      const F16 sum = convolved(s, block, taps);
      block.put(y, s.silu ? silu_of(sum) : sum);
    });
  }
}

// Where silu follows, what went into it is computed anew. dx and dtail are added to.
void causal_convolution_backward(const Convolution& s, int64_t row, int64_t part) {
  float *taps[kMostTaps], *dtaps[kMostTaps];
  F16 dweight[kMostTaps][kWideBlocks], dbias[kWideBlocks];
  for (int64_t i = 0; i < kWideBlocks; ++i) {
    dbias[i] = F16{};
    for (int64_t w = 0; w < s.width; ++w) dweight[w][i] = F16{};
  }
  for (int64_t t = s.length - 1; t >= 0; --t) {
    find_taps(s, row, t, s.x, const_cast<float*>(s.tail), taps);
    find_taps(s, row, t, s.dx, s.dtail, dtaps);
    const float* dy = row_at(s.dy, row, t);
    for_blocks(part, s.channels, [&](int64_t i, Block block) {
      F16 g = block.at(dy);
      if (s.silu) {
        const F16 sum = convolved(s, block, taps), gate = sigmoid_of(sum);
        g = g * gate * (1.0f + sum * (1.0f - gate));
      }
      dbias[i] = dbias[i] + g;
      for (int64_t w = 0; w < s.width; ++w) {
        if (taps[w] == nullptr) continue;
        dweight[w][i] = g * block.at(taps[w]) + dweight[w][i];
        block.put(dtaps[w], g * block.at(s.weight + (s.width - 1 - w) * s.channels) + block.at(dtaps[w]));
      }
    });
  }
  for_blocks(part, s.channels, [&](int64_t i, Block block) {
    block.put(s.dbias + row * s.channels, dbias[i]);
    for (int64_t w = 0; w < s.width; ++w)
      block.put(s.dweight + (row * s.width + s.width - 1 - w) * s.channels, dweight[w][i]);
  });
}

// ---- decays between the tokens of a chunk ---------------------------------------------------------------------------

// decay [size, size] of one chunk: exp of the sum of log over (j, t] where j <= t, else 0. Sums are accumulated one by one.
void decays_forward(int64_t size, const float* log, float* decay) {
  for (int64_t j = 0; j < size; j += kLanes) {
    const Block block = block_at(j / kLanes, size);
    const I16 columns = I16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + static_cast<int32_t>(j);
    F16 sum = F16{};
    for (int64_t t = 0; t < size; ++t) {
      const I16 before = columns < static_cast<int32_t>(t), seen = columns <= static_cast<int32_t>(t);
      sum = sum + pick(before, splat(log[t]), F16{});
      block.put(decay + t * size, t < j ? F16{} : pick(seen, exp_of(sum), F16{}));
    }
  }
}

// dlog [size] from the gradient of decay: what lies between j and t counts in every decay from j to t or beyond.
void decays_backward(int64_t size, const float* decay, const float* ddecay, float* dlog) {
  for (int64_t t = 0; t < size; ++t) dlog[t] = 0.0f;
  for (int64_t j = 0; j < size; j += kLanes) {
    const Block block = block_at(j / kLanes, size);
    const I16 columns = I16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + static_cast<int32_t>(j);
    F16 beyond = F16{};
    for (int64_t t = size - 1; t > j; --t) {
      const I16 before = columns < static_cast<int32_t>(t);
      beyond = beyond + pick(before, block.at(ddecay + t * size) * block.at(decay + t * size), F16{});
      dlog[t] += sum_of(pick(before, beyond, F16{}));
    }
  }
}
