#define LONGHAUL_KERNELS avx2_kernels
#define LONGHAUL_KERNELS_NAME "avx2"
#include "compress/kernels_body.hpp"
