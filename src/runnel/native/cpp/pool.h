// A pool of threads for short parallel regions.
//
// Work is handed out in chunks from a counter, and the caller works too: a worker that the system does not run holds
// nobody up, unless it is in the middle of a chunk. Workers spin while a lease is held (one run of a program) and sleep
// otherwise. Where the pool is taken by another thread, the work is done by the caller alone. After a fork the child
// makes itself a new pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace runnel {

class Pool {
 public:
  using Call = void (*)(void* context, int64_t chunk);

  static Pool& get();

  // Chunks [0, count) on at most `threads` threads. Only the holder of the lease may call it.
  void run(int threads, int64_t count, Call call, void* context);

  bool try_lease(int threads);
  void end_lease();

 private:
  void grow(int workers);
  void work();
  bool enter(uint64_t& seen);
  void take_chunks();

  // generation << 16 | open << 15 | workers inside
  std::atomic<uint64_t> gate_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<uint32_t> alarm_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> leased_{false}, taken_{false};
  int64_t count_ = 0;
  int most_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> workers_;
};

// Holds the pool for a while; `run` does everything on this thread where there is nothing to hold.
class Lease {
 public:
  explicit Lease(int threads) : threads_(threads < 1 ? 1 : threads) {
    held_ = threads_ > 1 && Pool::get().try_lease(threads_);
  }
  ~Lease() {
    if (held_) Pool::get().end_lease();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int threads() const { return held_ ? threads_ : 1; }

  template <class Work>
  void run(int64_t count, Work&& work) {
    if (!held_ || count < 2) {
      for (int64_t chunk = 0; chunk < count; ++chunk) work(chunk);
      return;
    }
    using Plain = std::remove_reference_t<Work>;
    Pool::get().run(
        threads_, count, [](void* context, int64_t chunk) { (*static_cast<Plain*>(context))(chunk); },
        const_cast<void*>(static_cast<const void*>(std::addressof(work))));
  }

 private:
  int threads_;
  bool held_;
};

}  // namespace runnel
