#pragma once
/// node.toml: what concerns this node alone. It never travels; RUN.toml holds what all peers agree on.

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "net/stream.hpp"

namespace longhaul::peers {

/// The [node] table of node.toml; every key also as LONGHAUL_NODE_<KEY> and as a flag of `run` and `join`.
struct node_config {
    std::string name;                        ///< for people; empty: the host's name
    std::string listen = ":7400";            ///< HOST:PORT; no host: all addresses; port 0: any free one
    std::vector<std::string> advertise;      ///< how others reach this node; empty: found out
    std::string data;                        ///< this node's copy of the data
    std::string device = "auto";             ///< auto | cpu | cuda:N
    std::int64_t threads = 0;                ///< of the trainer; 0: all cores
    std::uint64_t memory = 0;                ///< bytes of declared buffers; 0: three quarters of the machine's
    core::bit_rate up_limit, down_limit;     ///< of all links together, headers included; 0: none
    std::string congestion_control = "bbr";  ///< of bulk connections, where the kernel offers it; empty: its default
    std::string log_format = "console";      ///< console | logfmt | json
};

void bind(core::config_binder& binder, node_config& c);
/// errc::config: what no single key can check.
core::result<void> validate(const node_config& c);

/// The addresses to listen on and to advertise that `c` names. `own` are this machine's addresses: they are advertised
/// when `c` names none and listens on all of them.
core::result<net::endpoint> listen_endpoint(const node_config& c);
core::result<std::vector<net::endpoint>> advertised_endpoints(const node_config& c,
                                                              const std::vector<std::string>& own);

}  // namespace longhaul::peers
