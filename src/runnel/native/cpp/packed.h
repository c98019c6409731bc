// Weights in panels, and products with them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace runnel {

// What decides the layout of a packed matrix (outputs, inputs).
struct Layout {
  Weights kind;
  int64_t outputs, inputs, group;  // group: inputs that share a scale (int8 and int4)

  static constexpr int64_t kPanel = 32;
  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  int64_t groups() const { return (inputs + group - 1) / group; }
  int64_t per_word() const { return kind == kF32 ? 1 : kind == kBf16 ? 2 : 4; }  // numbers in a word of x
  int64_t words() const;         // of a row of x
  int64_t panel_words() const;   // of a panel of w
  int64_t nbytes() const { return panels() * panel_words() * kPanel * 4; }
};

// w (outputs, inputs), rows `stride` apart -> panels, layout.nbytes() bytes.
void pack(const Layout& layout, const float* w, int64_t stride, void* packed, Lease& lease);
// The matrix that the panels stand for.
void unpack(const Layout& layout, const void* packed, float* w);

// Where rows are made ready for a product; grows as needed.
struct Workspace {
  std::vector<uint32_t> words;
  std::vector<float> scales, offsets;
};

// y (rows, outputs) = x (rows, inputs) W^T + bias; strides in floats, between rows.
void multiply(const Layout& layout, const void* packed, const float* bias, const float* x, int64_t x_stride, int64_t rows,
              float* y, int64_t y_stride, Workspace& space, Lease& lease);

}  // namespace runnel
