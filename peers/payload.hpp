#pragma once
/// What a contributor sends in a round: a header signed by its author, then the codec's bytes. Immutable until settled,
/// so that any holder can forward it and whoever signs two for one round has signed the proof.

#include <memory>

#include "net/identity.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

struct payload_header {
    core::digest run;
    std::uint64_t generation = 0;
    std::uint64_t round = 0;
    peer_number author = 0;
    std::string codec;
    std::uint64_t bytes = 0;  ///< of the codec's part
    core::digest root;        ///< hash of the codec's part
    std::uint64_t tokens = 0;
    std::uint32_t steps = 0;
    double loss = 0;  ///< mean training loss of the steps
};

/// A payload as it travels and is kept. The hash of all of `bytes` names it in COMMIT.
struct payload {
    payload_header header;
    core::digest id;
    std::shared_ptr<const core::byte_vector> bytes;
    /// The codec's part, borrowed.
    core::const_bytes body() const;
    std::size_t body_offset = 0;
};

/// Upper bound of what precedes the codec's part.
inline constexpr std::uint64_t max_payload_header = 512;

/// Signs and assembles. `body` is the codec's output.
payload make_payload(payload_header header, core::const_bytes body, const net::identity& author);
/// Checks signature, root and sizes of a payload from a stranger. errc::malformed, errc::protocol.
core::result<payload> open_payload(std::shared_ptr<const core::byte_vector> bytes, const net::peer_key& author);

}  // namespace longhaul::peers
