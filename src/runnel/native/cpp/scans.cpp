#include "scans.h"

#include <vector>

#include "kernels.h"
#include "pool.h"

namespace runnel {
namespace {

// Parts of every row of the batch, each with room of its thread to work in.
template <class Work>
void for_parts(int64_t batch, int64_t parts, int64_t room, int threads, Work&& work) {
  Lease lease(threads);
  lease.run(batch * parts, [&](int64_t index) {
    thread_local std::vector<float> space;
    if (static_cast<int64_t>(space.size()) < room) space.resize(room);
    work(index / parts, index % parts, space.data());
  });
}

}  // namespace

void selective_forward(const SelectiveScan& s, int threads) {
  for_parts(s.batch, blocks_of(s.channels), 2 * s.states * kScanLanes, threads,
            [&](int64_t row, int64_t block, float* room) { kernels().selective_forward(s, row, block, room); });
}

void selective_backward(const SelectiveScan& s, int threads) {
  const int64_t room = (3 * blocks_of_part(s.channels) + 4 * kScanChunk + 1) * s.states * kScanLanes;
  for_parts(s.batch, parts_of(s.channels), room, threads,
            [&](int64_t row, int64_t part, float* room) { kernels().selective_backward(s, row, part, room); });
}

void diagonal_forward(const DiagonalScan& s, int threads) {
  for_parts(s.batch, wide_parts_of(s.channels), 0, threads,
            [&](int64_t row, int64_t part, float*) { kernels().diagonal_forward(s, row, part); });
}

void diagonal_backward(const DiagonalScan& s, int threads) {
  for_parts(s.batch, wide_parts_of(s.channels), 0, threads,
            [&](int64_t row, int64_t part, float*) { kernels().diagonal_backward(s, row, part); });
}

void convolution_forward(const Convolution& s, int threads) {
  for_parts(s.batch, wide_parts_of(s.channels), 0, threads,
            [&](int64_t row, int64_t part, float*) { kernels().convolution_forward(s, row, part); });
}

void convolution_backward(const Convolution& s, int threads) {
  for_parts(s.batch, wide_parts_of(s.channels), 0, threads,
            [&](int64_t row, int64_t part, float*) { kernels().convolution_backward(s, row, part); });
}

void decays_forward(int64_t chunks, int64_t size, const float* log, float* decay, int threads) {
  Lease lease(threads);
  lease.run(chunks, [&](int64_t i) { kernels().decays_forward(size, log + i * size, decay + i * size * size); });
}

void decays_backward(int64_t chunks, int64_t size, const float* decay, const float* ddecay, float* dlog, int threads) {
  Lease lease(threads);
  lease.run(chunks, [&](int64_t i) {
    kernels().decays_backward(size, decay + i * size * size, ddecay + i * size * size, dlog + i * size);
  });
}

}  // namespace runnel
