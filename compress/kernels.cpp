#include "compress/kernels.hpp"

namespace longhaul::compress {

extern const kernels plain_kernels;
#if defined(__x86_64__)
extern const kernels avx2_kernels, avx512_kernels;
#endif

kernel_list runnable_kernels() {
    kernel_list list{{&plain_kernels, nullptr, nullptr}, 1};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) list.items[list.count++] = &avx2_kernels;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (wide) list.items[list.count++] = &avx512_kernels;
#endif
    return list;
}

const kernels& best_kernels() {
    static const kernel_list list = runnable_kernels();
    return *list.items[list.count - 1];
}

}  // namespace longhaul::compress
