// Uniform noise that is a pure function of its keys: Philox 4x64 with ten rounds.
#pragma once

#include <cstdint>
#include <vector>

namespace runnel {

// out [keys, outcomes] in (0, 1): row n has the key (seeds[n], positions[n]); the blocks of four numbers are counted from
// (1, 0, high, low) on. 52 bits and a half: never 0, never 1.
void uniform(const std::vector<uint64_t>& seeds, const std::vector<uint64_t>& positions, uint64_t high, uint64_t low,
             int64_t outcomes, double* out);

}  // namespace runnel
