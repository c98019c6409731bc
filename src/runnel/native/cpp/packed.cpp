#include "packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace runnel {
namespace {

constexpr int64_t kPanel = Layout::kPanel;
constexpr int64_t kLeastBytes = 32 << 10;  // of weights: less is not worth taking
constexpr int64_t kSharesLeft = 4;  // a thread takes this part of what would be its share of what is left
constexpr int64_t kRowsInParallel = 4;

struct Bytes {
  int most, offset;
};
Bytes range_of(Weights kind) { return kind == kInt8 ? Bytes{127, 128} : Bytes{7, 8}; }

// What of the panels is taken at a time: first much, for a long reading is a fast one, and last little, so that all
// threads end together.
struct Shares {
  static constexpr int64_t kMost = 256;
  int64_t count = 0, begin[kMost + 1];

  Shares(const Layout& layout, int64_t rows, int threads) {
    const int64_t panels = layout.panels(), bytes = layout.panel_words() * kPanel * 4;
    const int64_t worth_it = rows > 16 ? 1 : kLeastBytes / std::max<int64_t>(1, bytes);
    const int64_t least = std::max<int64_t>({1, worth_it, (panels + kMost - 1) / kMost});
    begin[0] = 0;
    while (begin[count] < panels) {
      const int64_t left = panels - begin[count], share = std::max(least, left / (kSharesLeft * threads));
      begin[count + 1] = begin[count] + std::min(left, share);
      ++count;
    }
  }
};

uint16_t bf16_of(float x) {
  uint16_t out;
  kernels().to_bf16(&x, &out, 1);
  return out;
}

// One panel of int8 or int4, a group at a time: 32 scales, then the words.
void pack_bytes(const Layout& layout, const float* w, int64_t stride, int64_t panel, uint32_t* out) {
  const auto [most, offset] = range_of(layout.kind);
  const int64_t per_word = layout.kind == kInt8 ? 4 : 8, words = layout.group / per_word;
  const int bits = 32 / static_cast<int>(per_word);
  for (int64_t g = 0; g < layout.groups(); ++g, out += kPanel * (words + 1)) {
    auto* scales = reinterpret_cast<float*>(out);
    std::fill(out, out + kPanel * (words + 1), 0u);
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      const int64_t row = panel * kPanel + lane, begin = g * layout.group;
      const int64_t count = row < layout.outputs ? std::min(layout.group, layout.inputs - begin) : 0;
      const float* from = w + row * stride + begin;
      float largest = 0;
      for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(from[i]));
      const float scale = largest / static_cast<float>(most), inverse = largest > 0 ? 1 / scale : 0;
      scales[lane] = scale;
      for (int64_t i = 0; i < layout.group; ++i) {
        const float x = i < count ? std::nearbyint(from[i] * inverse) : 0.0f;
        const int whole = std::clamp(static_cast<int>(x), -most, most) + offset;
        const int64_t word = i / per_word, within = i % per_word;
        // int4: the low nibbles are the first four, the high nibbles the next four
        const int shift = bits == 8 ? 8 * static_cast<int>(within) : 8 * static_cast<int>(within % 4) + 4 * (within > 3);
        out[kPanel * (word + 1) + lane] |= static_cast<uint32_t>(whole) << shift;
      }
    }
  }
}

void pack_floats(const Layout& layout, const float* w, int64_t stride, int64_t panel, uint32_t* out) {
  const int64_t per_word = layout.per_word();
  for (int64_t k = 0; k < layout.words(); ++k) {
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      const int64_t row = panel * kPanel + lane;
      uint32_t word = 0;
      for (int64_t i = 0; i < per_word && row < layout.outputs; ++i) {
        const int64_t column = k * per_word + i;
        if (column >= layout.inputs) break;
        const float x = w[row * stride + column];
        if (layout.kind == kF32) {
          std::memcpy(&word, &x, 4);
        } else {
          word |= static_cast<uint32_t>(bf16_of(x)) << (16 * i);
        }
      }
      out[k * kPanel + lane] = word;
    }
  }
}

float element(const Layout& layout, const uint32_t* panel, int64_t lane, int64_t column) {
  if (layout.kind == kF32 || layout.kind == kBf16) {
    const int64_t per_word = layout.per_word();
    uint32_t word = panel[column / per_word * kPanel + lane];
    if (layout.kind == kBf16) word = column % 2 == 0 ? word << 16 : word & 0xffff0000;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
  }
  const auto [most, offset] = range_of(layout.kind);
  const int64_t per_word = layout.kind == kInt8 ? 4 : 8, words = layout.group / per_word;
  const uint32_t* group = panel + column / layout.group * kPanel * (words + 1);
  const int64_t i = column % layout.group;
  const uint32_t word = group[kPanel * (i / per_word + 1) + lane];
  const int64_t within = i % per_word;
  const int whole = layout.kind == kInt8 ? static_cast<int>(word >> (8 * within) & 255)
                                         : static_cast<int>(word >> (8 * (within % 4) + 4 * (within > 3)) & 15);
  return static_cast<float>(whole - offset) * reinterpret_cast<const float*>(group)[lane];
}

}  // namespace

int64_t Layout::words() const {
  if (kind == kF32) return inputs;
  if (kind == kBf16) return (inputs + 1) / 2;
  return groups() * group / 4;
}

int64_t Layout::panel_words() const {
  if (kind == kF32 || kind == kBf16) return words();
  return groups() * (group / (kind == kInt8 ? 4 : 8) + 1);
}

void pack(const Layout& layout, const float* w, int64_t stride, void* packed, Lease& lease) {
  auto* out = static_cast<uint32_t*>(packed);
  const bool bytes = layout.kind == kInt8 || layout.kind == kInt4;
  lease.run(layout.panels(), [&](int64_t panel) {
    (bytes ? pack_bytes : pack_floats)(layout, w, stride, panel, out + panel * layout.panel_words() * kPanel);
  });
}

void unpack(const Layout& layout, const void* packed, float* w) {
  const auto* in = static_cast<const uint32_t*>(packed);
  for (int64_t row = 0; row < layout.outputs; ++row)
    for (int64_t column = 0; column < layout.inputs; ++column)
      w[row * layout.inputs + column] =
          element(layout, in + row / kPanel * layout.panel_words() * kPanel, row % kPanel, column);
}

void multiply(const Layout& layout, const void* packed, const float* bias, const float* x, int64_t x_stride, int64_t rows,
              float* y, int64_t y_stride, Workspace& space, Lease& lease) {
  if (rows == 0 || layout.outputs == 0) return;
  const Kernels& table = kernels();
  const int64_t words = layout.words();
  Product p{static_cast<const uint32_t*>(packed), words, layout.outputs, nullptr, words, rows, y, y_stride, bias,
            0, 0, nullptr, nullptr};
  if (layout.kind == kF32) {
    p.x = reinterpret_cast<const uint32_t*>(x);
    p.x_stride = x_stride;
  } else {
    space.words.resize(std::max<size_t>(space.words.size(), static_cast<size_t>(rows * words)));
    p.x = space.words.data();
    const int64_t groups = layout.kind == kBf16 ? 0 : layout.groups();
    space.scales.resize(std::max<size_t>(space.scales.size(), static_cast<size_t>(rows * groups)));
    space.offsets.resize(std::max<size_t>(space.offsets.size(), static_cast<size_t>(rows * groups)));
    p.groups = groups;
    p.group_words = layout.group / (layout.kind == kInt4 ? 8 : 4);
    p.x_scales = space.scales.data();
    p.x_offsets = space.offsets.data();
    const auto prepare = [&](int64_t row) {
      uint32_t* out = space.words.data() + row * words;
      if (layout.kind == kBf16) {
        if (words > 0) out[words - 1] = 0;
        table.to_bf16(x + row * x_stride, reinterpret_cast<uint16_t*>(out), layout.inputs);
      } else {
        table.to_bytes(x + row * x_stride, layout.inputs, layout.group,
                       static_cast<float>(range_of(layout.kind).offset), reinterpret_cast<int8_t*>(out),
                       space.scales.data() + row * groups, space.offsets.data() + row * groups);
      }
    };
    if (rows <= kRowsInParallel) {
      for (int64_t row = 0; row < rows; ++row) prepare(row);
    } else {
      lease.run(rows, prepare);
    }
  }
  const Shares shares(layout, rows, lease.threads());
  lease.run(shares.count, [&](int64_t chunk) {
    table.product[layout.kind](p, shares.begin[chunk], shares.begin[chunk + 1]);
  });
}

}  // namespace runnel
