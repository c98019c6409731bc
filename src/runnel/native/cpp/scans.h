// Scans over whole sequences, forward and backward: what training runs. Shapes in brackets, row-major.
//
// Work is cut into parts that do not depend on the number of threads, so neither do the results.
#pragma once

#include <cstdint>

namespace runnel {

// [batch, time, channels] in steps of floats; a row's channels lie side by side.
struct Rows {
  float* data;
  int64_t batch_stride, time_stride;
};
static inline float* row_at(const Rows& rows, int64_t row, int64_t t) {
  return rows.data + row * rows.batch_stride + t * rows.time_stride;
}

// h = exp(dt a) h + (dt x) b,  y = h c,  h [channels, states]. See body_scans.h.
// Gated, where skip is not null: dt is softplus(dt + dt_bias), and the output is (y + skip x) silu(z).
struct SelectiveScan {
  int64_t batch, length, channels, states;
  Rows x, dt, b, c, y, z;
  const float *a, *memory;  // [channels, states], [batch, channels, states]
  const uint8_t* reset;     // [batch, length]: the state is zero before this token; or null
  float* last;              // as memory: forward writes it, backward reads its gradient
  float* kept;              // [batch, blocks, chunks, states, 16]: the state before every chunk; null where no backward follows
  const float *skip, *dt_bias;  // [channels], or null
  // Backward only: gradients, y holding that of the outputs. db, dc [parts, batch, length, states] are to be summed over
  // parts, da [batch, channels, states], dskip and ddt_bias [batch, channels] over the batch.
  Rows dx, ddt, dz;
  float *da, *db, *dc, *dmemory, *dskip, *ddt_bias;
};

// h = a h + b
struct DiagonalScan {
  int64_t batch, length, channels;
  Rows a, b, h;  // backward: b receives the gradient of b and reads nothing
  const float* memory;  // [batch, channels]
  Rows dh, da;          // backward only
  float* dmemory;
};

// y = bias + sum over w of weight[w] times x at the w-th ancestor, then perhaps silu.
struct Convolution {
  int64_t batch, length, channels, width;
  bool silu;
  Rows x, y;
  const float *weight, *bias, *tail;  // [width, channels] newest last; [channels] or null; [batch, width - 1, channels]
  const int64_t* taps;                // [batch, length, width] as `Lineage.taps`; or null for an ordinary sequence
  // Backward only. dy is that of y; dweight [batch, width, channels] and dbias [batch, channels] are to be summed.
  Rows dy, dx;
  float *dtail, *dweight, *dbias;
};

constexpr int64_t kScanLanes = 16;
constexpr int64_t kScanChunk = 32;  // tokens whose states are held at once

static inline int64_t blocks_of(int64_t channels) { return (channels + kScanLanes - 1) / kScanLanes; }
static inline int64_t chunks_of(int64_t length) { return (length + kScanChunk - 1) / kScanChunk; }
// Blocks of channels that one part of a selective scan's backward takes, and how many parts there are.
constexpr int64_t kMostBlocks = 8;
static inline int64_t blocks_of_part(int64_t channels) {
  const int64_t even = (blocks_of(channels) + 7) / 8;
  return even < kMostBlocks ? even : kMostBlocks;
}
static inline int64_t parts_of(int64_t channels) {
  const int64_t size = blocks_of_part(channels);
  return size == 0 ? 0 : (blocks_of(channels) + size - 1) / size;
}
// Blocks of channels that one part of the other scans takes.
constexpr int64_t kWideBlocks = 8;
static inline int64_t wide_parts_of(int64_t channels) { return (blocks_of(channels) + kWideBlocks - 1) / kWideBlocks; }

void selective_forward(const SelectiveScan& s, int threads);
void selective_backward(const SelectiveScan& s, int threads);
void diagonal_forward(const DiagonalScan& s, int threads);
void diagonal_backward(const DiagonalScan& s, int threads);
void convolution_forward(const Convolution& s, int threads);
void convolution_backward(const Convolution& s, int threads);
// log [chunks, size] -> decay [chunks, size, size]
void decays_forward(int64_t chunks, int64_t size, const float* log, float* decay, int threads);
void decays_backward(int64_t chunks, int64_t size, const float* decay, const float* ddecay, float* dlog, int threads);

}  // namespace runnel
