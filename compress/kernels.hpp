#pragma once
/// The inner loops of the codecs, compiled once for each instruction set and chosen when the program starts. All
/// variants are one source (kernels_body.hpp) without contraction or reordering: they give the same bytes. This header
/// includes nothing that has inline functions: the linker could take one from the variant that this machine cannot run.

#include <cstddef>
#include <cstdint>

namespace longhaul::compress {

/// A family's loops over one piece. Sizes are the caller's to get right.
struct piece_kernels {
    /// False when a value is not finite or too large. `key`: of the random numbers; null rounds to nearest.
    bool (*encode)(const float* values, std::size_t n, const std::uint64_t* key, unsigned char* out);
    bool (*check)(const unsigned char* in, std::size_t n);
    void (*decode)(const unsigned char* in, std::size_t n, float* out);
    void (*add)(const unsigned char* in, std::size_t n, float factor, float* sum);
};

/// Elements that share a scale.
inline constexpr std::size_t block_elements = 256;

/// Of a block's y: sums of (y − step)², |y| and y².
struct step_sums {
    float missed, magnitudes, squares;
};

struct kernels {
    const char* name;
    piece_kernels f32, bf16, int8, int4, e3m0, sign2, sign1;
    /// Indices of the k elements with the largest magnitudes of n ≤ 4,096, 1 ≤ k ≤ n, ascending; of equal ones the
    /// first are taken. False, with `out` in any state, when some element is not finite.
    bool (*select)(const float* values, std::size_t n, std::size_t k, std::uint16_t* out);
    /// Places of the elements whose magnitude's bits reach `limit`, ascending; their number goes to `found`. `places`
    /// has room for n + 64. False, with `places` in any state, when some element is not finite.
    bool (*collect)(const float* values, std::size_t n, std::uint32_t limit, std::uint32_t* places, std::size_t* found);
    /// values[i] = anchor[i] − values[i] + beta · residual[i], each step rounded; without a residual (null) the
    /// difference alone. `left`, if not null, gets the same; it may be `residual`. Adds to `sums` those of the
    /// difference, of the residual, of the result, and of the magnitudes of these two.
    void (*compensate)(const float* anchor, const float* residual, float beta, std::size_t n, float* values,
                       float* left, double* sums);
    /// Bits of the largest magnitude; NaN counts as more than infinity.
    std::uint32_t (*largest)(const float* values, std::size_t n);
    /// steps[i] = y = values[i] · inverse to the nearest integer, ties to even, or with `key` to one of the two beside
    /// it at random; |y| ≤ 2²¹. n ≤ block_elements, which are block number `block` of a piece.
    step_sums (*to_steps)(const float* values, std::size_t n, float inverse, const std::uint64_t* key,
                          std::size_t block, int* steps);
    /// rest[i] = values[i] − rest[i]; returns the sum of what rest was.
    double (*take_away)(const float* values, std::size_t n, float* rest);
};

/// The fastest that this machine runs.
const kernels& best_kernels();
/// All that it runs, the plain one first: for tests and benchmarks.
struct kernel_list {
    const kernels* items[3];
    std::size_t count;
};
kernel_list runnable_kernels();

}  // namespace longhaul::compress
