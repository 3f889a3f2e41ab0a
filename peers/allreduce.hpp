#pragma once
/// An all-reduce among a few machines without a run: the exchange of a training round, on synthetic tensors. For `bench
/// allreduce`: try your network before you train on it.

#include <functional>
#include <optional>

#include "core/task.hpp"
#include "net/environment.hpp"
#include "net/stream.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

inline constexpr std::size_t most_bench_peers = 64;

struct allreduce_wishes {
    net::endpoint listen;             ///< the host's; guests listen on any port, for one another
    std::vector<net::endpoint> join;  ///< the host's addresses; none: be the host
    // The host's to say:
    std::size_t peers = 2;           ///< the host included
    std::uint64_t bytes = 64 << 20;  ///< of the f32 tensor, a multiple of 4
    std::string codec = "f32";
    std::string mode = "auto";  ///< auto | gather | shard
    std::uint32_t repeat = 5;
    core::duration patience = std::chrono::minutes(10);  ///< for all peers to come, and for one all-reduce
};

/// The same on every machine but for the wire's bytes. errc::protocol when two peers got different sums.
struct allreduce_report {
    std::size_t peers = 0;
    std::uint64_t bytes = 0;
    std::vector<double> seconds;            ///< of each repetition: the slowest peer's, from the common start
    std::vector<double> predicted_seconds;  ///< by the time model; 0: nothing was measured yet
    std::string mode;                       ///< of the last one
    std::string reason;
    std::string codec;
    core::digest checksum;                           ///< root of the last sum
    std::uint64_t wire_sent = 0, wire_received = 0;  ///< by this machine, all repetitions
    std::uint64_t padding_sent = 0;                  ///< of wire_sent: what warmed new connections
};

/// `on_listening` is called with the bound address.
core::task<core::result<allreduce_report>> allreduce(net::environment& env, allreduce_wishes wishes,
                                                     std::function<void(const net::endpoint&)> on_listening);

}  // namespace longhaul::peers
