#include <atomic>
#include <cstring>

#include "kernels.h"

namespace runnel {
namespace {

struct Found {
  const Kernels* tables[4] = {};
  const char* names[4] = {};

  Found() {
    int count = 0;
#if defined(RUNNEL_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    if (avx512) tables[count++] = avx512_kernels();
    if (avx2) tables[count++] = avx2_kernels();
#endif
    tables[count++] = portable_kernels();
    for (int i = 0; i < count; ++i) names[i] = tables[i]->name;
  }
};

const Found& found() {
  static const Found once;
  return once;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* table = chosen.load(std::memory_order_relaxed);
  return table != nullptr ? *table : *found().tables[0];
}

const char* const* available() { return found().names; }

bool use(const char* name) {
  for (const Kernels* table : found().tables) {
    if (table != nullptr && std::strcmp(table->name, name) == 0) {
      chosen.store(table);
      return true;
    }
  }
  return false;
}

}  // namespace runnel
