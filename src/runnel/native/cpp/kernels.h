// The table of kernels that one instruction set provides. Shapes in brackets, row-major.
#pragma once

#include <cstdint>

#include "scans.h"

namespace runnel {

enum Weights { kF32, kBf16, kInt8, kInt4, kWeightKinds };

// y [rows, outputs] = x [rows, inputs] W^T + bias. See body_products.h for the layout of w and what a word is.
struct Product {
  const uint32_t* w;
  int64_t words;  // of a row of x
  int64_t outputs;
  const uint32_t* x;
  int64_t x_stride;  // in words
  int64_t rows;
  float* y;
  int64_t y_stride;
  const float* bias;  // or null
  // int8 and int4 only
  int64_t groups, group_words;
  const float *x_scales, *x_offsets;  // [rows, groups]
};

// What is done number by number. Order as in `runnel/native/program.py`.
enum class Map {
  copy, neg, exp, expm1, log, log1p, sin, cos, erf, floor, sqrt, rsqrt, reciprocal, abs, relu, sigmoid, silu, softplus,
  log_sigmoid, tanh, elu, gelu, gelu_tanh, square, cube, affine, divide_by, divide_into, clamp, power,  // of one number
  add, mul, div, maximum, minimum, equal, less, less_equal,                                      // of two
  addcmul, lerp, where,                                                                          // of three
  take,  // out[i] = in[0][in[1][i] * scalars[0]]: numbers by their places
};
enum class Reduce { sum, mean, norm, largest };

// One run of numbers: out[i * out_stride] = f(in[0][i * strides[0]], ...).
struct MapRow {
  float* out;
  int64_t out_stride;
  const float* in[3];
  int64_t strides[3];
  int64_t count;
  float scalars[2];
};

struct SmallProduct {
  const float *a, *b;
  float* out;
  int64_t m, k, n, a_rows, a_columns, b_rows, b_columns, out_rows, out_columns;
};

struct ConvStep {
  int64_t width, channels;
  const float *weight, *bias;  // weight [width, channels]; bias [channels] or null
};

// A state of `numbers` numbers a channel, pairs (real, imaginary) where `turn` is given. All [channels, numbers]: keep is
// the real part of the decay, for both of a pair; turn the imaginary part, negative for the first; read what y sums up.
struct LtiStep {
  int64_t numbers;
  const float *keep, *turn, *read;
};

// cap: 0 for none.
struct AttendStep {
  int64_t width, values;
  float scale, cap;
};

// One query: the keys [begin, end) of a list are what it sees. scores [end - begin] is room to work in.
struct AttendQuery {
  const float* q;
  float *y, *scores;
  float inverse;  // 1 / the sum of the weights
  int64_t begin, end;
};

// Outer-product sums by the bits of the position, `apart` numbers from each other.
struct Buckets {
  int64_t count, apart, position;
};

// A state [keys, values] of one head; decays: 1 or keys.
struct MatrixStep {
  int64_t keys, values, decays;
};

struct Kernels {
  const char* name;

  // out [count] bf16, rounded to nearest even.
  void (*to_bf16)(const float* x, uint16_t* out, int64_t count);
  // One row of x [inputs] as signed bytes [groups * group] with scales [groups]; offsets [groups] is what unsigned weights,
  // weight_offset too large, add to a group's sum.
  void (*to_bytes)(const float* x, int64_t inputs, int64_t group, float weight_offset, int8_t* out, float* scales,
                   float* offsets);
  // Panels [begin, end) of a product, for each kind of weights.
  void (*product[kWeightKinds])(const Product& p, int64_t begin, int64_t end);

  void (*map)(int code, const MapRow& m);
  float (*reduce)(int code, const float* x, int64_t count, int64_t stride);
  void (*normalise)(const float* x, int64_t count, float eps, const float* weight, const float* bias, float* y);
  void (*small_product)(const SmallProduct& p);

  // One token of a primitive: see body_steps.h. `from` and `to` may be the same memory.
  void (*conv)(const ConvStep& s, const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end);
  void (*shift)(const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end);
  void (*diagonal)(const float* a, const float* b, const float* from, float* to, float* y, int64_t begin, int64_t end);
  void (*complex_diagonal)(const float* a, const float* b, const float* from, float* to, float* y, int64_t begin,
                           int64_t end);
  void (*lti)(const LtiStep& s, const float* x, const float* from, float* to, float* y, int64_t begin, int64_t end);
  void (*selective)(int64_t n, const float* x, const float* dt, const float* a, const float* b, const float* c,
                    const float* from, float* to, float* y, int64_t begin, int64_t end);
  void (*outer)(const MatrixStep& s, const float* q, const float* k, const float* v, const float* log_decay,
                const float* from, float* to, float* y);
  void (*delta)(const MatrixStep& s, const float* q, const float* k, const float* v, float beta, const float* log_decay,
                const float* from, float* to, float* y);
  void (*dplr)(const MatrixStep& s, const float* q, const float* k, const float* v, const float* read,
               const float* erase, const float* log_decay, const float* from, float* to, float* y);
  void (*log_linear)(const MatrixStep& s, const Buckets& b, const float* q, const float* k, const float* v,
                     const float* log_decay, const float* scales, const float* from, float* to, float* y);
  void (*attend)(const AttendStep& s, AttendQuery* queries, int64_t count, const float* const* keys,
                 const float* const* values);

  // One part of a scan: see body_scans.h.
  void (*selective_forward)(const SelectiveScan& s, int64_t row, int64_t block, float* room);
  void (*selective_backward)(const SelectiveScan& s, int64_t row, int64_t part, float* room);
  void (*diagonal_forward)(const DiagonalScan& s, int64_t row, int64_t part);
  void (*diagonal_backward)(const DiagonalScan& s, int64_t row, int64_t part);
  void (*convolution_forward)(const Convolution& s, int64_t row, int64_t part);
  void (*convolution_backward)(const Convolution& s, int64_t row, int64_t part);
  void (*decays_forward)(int64_t size, const float* log, float* decay);
  void (*decays_backward)(int64_t size, const float* decay, const float* ddecay, float* dlog);
};

const Kernels* portable_kernels();
#if defined(RUNNEL_X86)
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
#endif

// The best that this machine runs, or the one that `use` was told.
const Kernels& kernels();
// Names from best to most portable, of those that this machine runs.
const char* const* available();
// False where this machine does not run it.
bool use(const char* name);

}  // namespace runnel
