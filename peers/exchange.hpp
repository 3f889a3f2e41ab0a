#pragma once
/// What this node holds of the exchange: the payloads of the open round, and the aggregates of the last few, which it
/// serves to whoever missed one. Data only; peers/transfers.cpp moves it.

#include <deque>
#include <map>
#include <memory>

#include "core/tensor.hpp"
#include "peers/payload.hpp"

namespace longhaul::peers {

/// The averaged pseudo-gradient of a round, as every member applies it: the same bytes everywhere.
struct aggregate {
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    std::vector<contribution> contributions;  ///< in the order of summation
    core::flat_buffer values;
    core::digest root;  ///< of contributions and values
};
using shared_aggregate = std::shared_ptr<const aggregate>;

/// Root of an aggregate: it covers who contributed what, so that one hash agrees on all of it.
core::digest root_of(const std::vector<contribution>& contributions, std::span<const float> values);

/// Decodes and sums `payloads` in the given order: Δ̄ = (Σ w_i H_i) · Σ w_i Δ_i / H_i with w the token shares (DESIGN
/// §6). CPU work. Errors name the peer whose payload does not decode.
core::result<shared_aggregate> sum(const core::tensor_manifest& manifest, const std::vector<payload>& payloads);

/// A foreign aggregate's bytes (f32 values), checked against the commit that names it.
core::result<shared_aggregate> parse_aggregate(const core::tensor_manifest& manifest, std::uint64_t generation,
                                               const commit_record& commit, core::const_bytes bytes);

class exchange {
public:
    /// Aggregates kept for those who missed one.
    static constexpr std::size_t retained = 4;

    /// Payloads are now collected for this round. Those of the round before stay until the next call: its commit may
    /// arrive before we have summed it.
    void open(std::uint64_t generation, std::uint64_t round);
    std::uint64_t generation() const { return now_.generation; }
    std::uint64_t round() const { return now_.round; }
    /// Keeps a verified payload of the open round or the one before. errc::protocol when its author already sent
    /// another one: the two signatures are the proof. Of any other round: not kept, and no error.
    core::result<void> add(payload p);
    /// A payload of the open round, or nullptr.
    const payload* find(peer_number author) const;
    /// A payload of the open round or the one before, or nullptr.
    const payload* find(std::uint64_t generation, std::uint64_t round, peer_number author) const;
    /// Authors of the open round's payloads, sorted.
    std::vector<peer_number> authors() const;
    /// Bytes of the open round's payloads.
    std::uint64_t bytes() const;
    /// The open round's payloads of `contributors` in their order, or empty if one is missing.
    std::vector<payload> complete(const std::vector<peer_number>& contributors) const;

    void retain(shared_aggregate a);
    shared_aggregate find_aggregate(std::uint64_t generation, std::uint64_t round) const;

private:
    struct collection {
        std::uint64_t generation = 0, round = 0;
        std::map<peer_number, payload> payloads;
    };
    collection* of(std::uint64_t generation, std::uint64_t round);
    collection now_, before_;
    std::deque<shared_aggregate> aggregates_;
};

}  // namespace longhaul::peers
