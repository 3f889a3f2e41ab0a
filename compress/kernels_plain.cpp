#define LONGHAUL_KERNELS plain_kernels
#define LONGHAUL_KERNELS_NAME "plain"
#include "compress/kernels_body.hpp"
