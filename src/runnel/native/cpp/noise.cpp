#include "noise.h"

#include <array>
#include <cstddef>

namespace runnel {
namespace {

using Block = std::array<uint64_t, 4>;

// The halves of a product of 128 bits: high, low.
inline std::array<uint64_t, 2> product(uint64_t a, uint64_t b) {
  const unsigned __int128 whole = static_cast<unsigned __int128>(a) * b;
  return {static_cast<uint64_t>(whole >> 64), static_cast<uint64_t>(whole)};
}

Block philox(Block c, uint64_t first, uint64_t second) {
  for (int round = 0; round < 10; ++round) {
    const auto a = product(0xD2E7470EE14C6C93u, c[0]), b = product(0xCA5A826395121157u, c[2]);
    c = {b[0] ^ c[1] ^ first, b[1], a[0] ^ c[3] ^ second, a[1]};
    first += 0x9E3779B97F4A7C15u;
    second += 0xBB67AE8584CAA73Bu;
  }
  return c;
}

}  // namespace

void uniform(const std::vector<uint64_t>& seeds, const std::vector<uint64_t>& positions, uint64_t high, uint64_t low,
             int64_t outcomes, double* out) {
  for (std::size_t row = 0; row < seeds.size(); ++row, out += outcomes)
    for (int64_t i = 0; i < outcomes; i += 4) {
      const Block block = philox({static_cast<uint64_t>(i / 4 + 1), 0, high, low}, seeds[row], positions[row]);
      for (int64_t j = i; j < outcomes && j < i + 4; ++j)
        out[j] = (static_cast<double>(block[j - i] >> 12) + 0.5) * 0x1p-52;
    }
}

}  // namespace runnel
