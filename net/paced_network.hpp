#pragma once
/// A network that keeps to the limits which its user gave to this node: `up_limit` and `down_limit`, over all of its
/// connections together, control, handshakes and an estimate of the packets' headers included. Control is counted and
/// never waits; bulk waits. Unix-domain sockets are not limited.

#include "core/units.hpp"
#include "net/pacing.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

class paced_network final : public network {
public:
    /// Rates of zero: no limit. `under` and `clock` must outlive the network and its streams.
    paced_network(network& under, core::clock& clock, core::bit_rate up, core::bit_rate down);

    core::task<core::result<std::vector<endpoint>>> resolve(endpoint of) override {
        return under_.resolve(std::move(of));
    }
    core::task<core::result<std::unique_ptr<stream>>> connect(endpoint to, stream_purpose purpose) override;
    core::result<std::unique_ptr<listener>> listen(endpoint at) override;

private:
    network& under_;
    core::clock& clock_;
    pacer up_, down_;
};

}  // namespace longhaul::net
