#pragma once
/// Between the pseudo-gradient and the codec: what a codec loses stays with its peer and is sent later (error feedback:
/// Seide et al. 2014; with decay, SparseLoCo, arXiv 2508.15706), or what receivers hold already is not sent again
/// (EF21, arXiv 2106.05203; EControl, arXiv 2311.05645). These are loops over ranges; whose residual moves on, and
/// when, is decided in peers/settlement.

#include "compress/codec.hpp"

namespace longhaul::compress {

/// A run's choice.
struct feedback_rule {
    bool keeps_residual = false;  ///< "ef": residual := β·residual + Δ − decode(payload); "none": nothing is kept
    float beta = 1;               ///< of the residual, once a round; 1 with all but "ef"
    float momentum = 0;           ///< "dgc": of the pseudo-gradients, before they are compressed
    float repeats = 0;            ///< "ef21", "econtrol": ρ, the receivers' outer momentum; 0: it is not followed
    float gain = 1;               ///< "econtrol": η, of the residual in a payload
    bool forgets = false;         ///< "ef21": there is no residual, what a payload does not say is given up
};

std::vector<std::string> feedback_names();
/// What [exchange] says of it.
struct feedback_wishes {
    double beta = 0.95;     ///< "ef"
    double momentum = 0.9;  ///< "dgc"
    double gain = 0.001;    ///< "econtrol"
    double heavy_ball = 0;  ///< the outer optimizer's momentum, 0 with another one: "ef21" and "econtrol" need it
};
/// errc::config naming the nearest: of an unknown feedback, of a β or gain outside (0, 1] or a momentum outside (0, 1),
/// when the codec needs feedback, when "dgc" has nothing to mask, or when there is no heavy ball to follow.
core::result<feedback_rule> find_feedback(std::string_view name, const feedback_wishes& wishes, const codec& c);

/// A payload in the making. All spans have the model's length.
struct payload_source {
    std::span<const float> anchor;
    std::span<const float> residual;  ///< empty: there is none
    float beta = 1;                   ///< what is left of the residual
    std::span<float> values;          ///< in: the local parameters, Δ = anchor − values; out: p = Δ + β·residual
    std::span<float> left;            ///< out, if not empty: p − decode(payload), the residual once it is accepted; it
                                      ///< may be in the residual's own place
    /// With momentum (Deep Gradient Compression, arXiv 1712.01887): u ← momentum·u + Δ, and p = u + residual. In and
    /// out: u, before what was sent of it is masked.
    std::span<float> velocity;
    float momentum = 0;
    /// What receivers will repeat of this peer's earlier payloads, as their momentum does with it: Δ − repeats·said is
    /// what they do not know, and p = Δ − repeats·said + gain·residual. Empty: nothing. With a gain below 1 `left` is
    /// not in the residual's place, and both p and what is left of it go back with the rest of the residual,
    /// (1 − gain)·residual, on top.
    std::span<const float> said;
    float repeats = 0;
    float gain = 1;
};

/// Momentum-factor masking, once a payload was accepted: where it said something, what moved there stands still.
/// `compensated` is p and `left` what the payload left of it.
void mask_sent(std::span<float> velocity, std::span<const float> compensated, std::span<const float> left);

/// EF21's and EControl's memory, once a payload was accepted: said ← repeats·said + decode(payload), which is made of
/// what `compensated` and `left` differ by.
void follow_sent(std::span<float> said, float repeats, std::span<const float> compensated, std::span<const float> left);

/// Sums of values, in double but for a few terms at a time. They are linear: what goes in must come out (I13), up to
/// the rounding of f32.
struct mass_sums {
    double produced = 0;     ///< Δ; with momentum what it makes of it, u; with `said` Δ − repeats·said
    double residual = 0;     ///< as it was found
    double compensated = 0;  ///< p
    double sent = 0;         ///< what the payload decodes to; only with `left`
    double size = 0;         ///< |p| + |residual|: what rounding is relative to

    mass_sums& operator+=(const mass_sums& o);
};

/// Elements [first, first + count): p alone, in `left` too.
mass_sums compensate(const payload_source& s, std::uint64_t first, std::size_t count);
/// A range in one pass: compensates, encodes into `out`, and takes away what was sent. Ranges may go in any order, each
/// once. errc::limit as codec::encode: its range is then compensated up to where a value could not be carried.
core::result<void> encode(const payload_source& s, const codec& c, const range& r, const rounding& how,
                          core::mutable_bytes out, mass_sums& sums);

}  // namespace longhaul::compress
