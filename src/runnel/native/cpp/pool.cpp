#include "pool.h"

#include <pthread.h>

#include <chrono>
#include <mutex>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace runnel {
namespace {

constexpr uint64_t kOpen = 1u << 15;
constexpr uint64_t kInside = kOpen - 1;
constexpr uint64_t kGeneration = 1u << 16;
constexpr int kPausesBeforeYield = 512;
constexpr int kPausesBeforeSleep = 1024;

std::atomic<Pool*> instance{nullptr};

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits a moment; gives the core away when it has waited long.
inline void wait_a_moment(int& spins) {
  if (++spins < kPausesBeforeYield) {
    pause();
  } else {
    std::this_thread::yield();
  }
}

void forget_after_fork() { instance.store(nullptr); }  // its threads exist in the parent only: let it leak

}  // namespace

Pool& Pool::get() {
  Pool* pool = instance.load(std::memory_order_acquire);
  if (pool != nullptr) return *pool;
  static std::once_flag watch_forks;
  std::call_once(watch_forks, [] { pthread_atfork(nullptr, nullptr, forget_after_fork); });
  auto* fresh = new Pool;  // never destroyed: workers may outlive static destruction
  if (instance.compare_exchange_strong(pool, fresh)) return *fresh;
  delete fresh;
  return *pool;
}

bool Pool::try_lease(int threads) {
  if (taken_.exchange(true, std::memory_order_acquire)) return false;
  grow(threads - 1);
  leased_.store(true, std::memory_order_release);
  if (sleepers_.load() > 0) {
    alarm_.fetch_add(1);
    alarm_.notify_all();
  }
  return true;
}

void Pool::end_lease() {
  leased_.store(false, std::memory_order_release);
  taken_.store(false, std::memory_order_release);
}

void Pool::grow(int workers) {
  while (static_cast<int>(workers_.size()) < workers) workers_.emplace_back([this] { work(); });
  for (auto& worker : workers_)
    if (worker.joinable()) worker.detach();
}

void Pool::run(int threads, int64_t count, Call call, void* context) {
  call_ = call;
  context_ = context;
  count_ = count;
  most_ = threads - 1;
  next_.store(0, std::memory_order_relaxed);
  const uint64_t generation = gate_.load(std::memory_order_relaxed) / kGeneration + 1;
  gate_.store(generation * kGeneration | kOpen, std::memory_order_release);
  take_chunks();
  gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (gate_.load(std::memory_order_acquire) & kInside) != 0;) wait_a_moment(spins);
}

void Pool::take_chunks() {
  for (int64_t chunk; (chunk = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, chunk);
}

bool Pool::enter(uint64_t& seen) {
  uint64_t gate = gate_.load(std::memory_order_acquire);
  while ((gate & kOpen) != 0 && gate / kGeneration != seen) {
    if (static_cast<int>(gate & kInside) >= most_) return false;
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
      seen = gate / kGeneration;
      return true;
    }
  }
  return false;
}

void Pool::work() {
  uint64_t seen = 0;
  int spins = 0;
  for (;;) {
    if (enter(seen)) {
      take_chunks();
      gate_.fetch_sub(1, std::memory_order_release);
      spins = 0;
    } else if (leased_.load(std::memory_order_acquire) || spins < kPausesBeforeSleep) {
      wait_a_moment(spins);
    } else {
      const uint32_t heard = alarm_.load();
      sleepers_.fetch_add(1);
      if (!leased_.load()) alarm_.wait(heard);
      sleepers_.fetch_sub(1);
      spins = 0;
    }
  }
}

}  // namespace runnel
