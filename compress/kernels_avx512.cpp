#define LONGHAUL_KERNELS avx512_kernels
#define LONGHAUL_KERNELS_NAME "avx512"
#include "compress/kernels_body.hpp"
