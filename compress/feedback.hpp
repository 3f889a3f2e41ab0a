#pragma once
/// Between the pseudo-gradient and the codec: what a codec loses stays with its peer and is sent later (error feedback:
/// Seide et al. 2014; with decay, SparseLoCo, arXiv 2508.15706). These are loops over ranges; whose residual moves on,
/// and when, is decided in peers/settlement.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// A run's choice.
struct feedback_rule {
    bool keeps_residual = false;  ///< "ef": residual := β·residual + Δ − decode(payload); "none": nothing is kept
    float beta = 1;               ///< of the residual, once a round; 1 with "none"
};

std::vector<std::string> feedback_names();
/// errc::config naming the nearest: of an unknown feedback, of a β outside (0, 1], or when the codec needs feedback.
core::result<feedback_rule> find_feedback(std::string_view name, double beta, const codec& c);

/// A payload in the making. All spans have the model's length.
struct payload_source {
    std::span<const float> anchor;
    std::span<const float> residual;  ///< empty: there is none
    float beta = 1;                   ///< what is left of the residual
    std::span<float> values;          ///< in: the local parameters, Δ = anchor − values; out: p = Δ + β·residual
    std::span<float> left;            ///< out, if not empty: p − decode(payload), the residual once it is accepted; it
                                      ///< may be in the residual's own place
};

/// Sums of values, in double. They are linear: what goes in must come out (I13), up to the rounding of f32.
struct mass_sums {
    double produced = 0;     ///< Δ
    double residual = 0;     ///< as it was found
    double compensated = 0;  ///< p
    double sent = 0;         ///< what the payload decodes to; only with `left`
    double size = 0;         ///< |p| + |residual|: what rounding is relative to

    mass_sums& operator+=(const mass_sums& o);
};

/// Elements [first, first + count): p alone, in `left` too.
mass_sums compensate(const payload_source& s, std::uint64_t first, std::size_t count);
/// A range in one pass: compensates, encodes into `out`, and takes away what was sent. Ranges may go in any order, each
/// once. errc::limit as codec::encode: its range is then compensated and not encoded.
core::result<void> encode(const payload_source& s, const codec& c, const range& r, const rounding& how,
                          core::mutable_bytes out, mass_sums& sums);

}  // namespace longhaul::compress
