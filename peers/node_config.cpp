#include "peers/node_config.hpp"

#include <algorithm>

#include "net/ticket.hpp"
#include "peers/records.hpp"

namespace longhaul::peers {

namespace {

constexpr std::size_t max_advertised = 16;

bool is_device(std::string_view d) {
    if (d == "auto" || d == "cpu") return true;
    constexpr std::string_view cuda = "cuda:";
    if (!d.starts_with(cuda)) return false;
    const auto number = d.substr(cuda.size());
    return !number.empty() && number.size() <= 3 &&
           std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

void bind(core::config_binder& b, node_config& c) {
    b.bind("node.name", c.name, "of this node, for people; empty: the host's name");
    b.bind("node.listen", c.listen, "HOST:PORT to listen on; \":7400\": all addresses; port 0: any free one");
    b.bind("node.advertise", c.advertise, "addresses by which others reach this node; empty: found out");
    b.bind("node.data", c.data, "this node's copy of the data; empty: as in RUN.toml");
    b.bind("node.device", c.device, "auto, cpu or cuda:N");
    b.bind("node.threads", c.threads, "of the trainer; 0: all cores", 0, 4096);
    b.bind_bytes("node.memory", c.memory, "limit of all buffers together; 0 B: three quarters of the machine's memory");
    b.bind("node.up_limit", c.up_limit, "of all links together, like 50 Mbit/s; 0 bit/s: none");
    b.bind("node.down_limit", c.down_limit, "of all links together; 0 bit/s: none");
    b.bind("node.congestion_control", c.congestion_control,
           "of bulk connections, where the kernel offers it; empty: the kernel's default");
    b.bind_choice("node.log_format", c.log_format, {"console", "logfmt", "json"}, "of the log on stderr");
}

core::result<void> validate(const node_config& c) {
    const auto is_control = [](char ch) { return (ch >= 0 && ch < ' ') || ch == 0x7f; };
    if (c.name.size() > max_name || std::ranges::any_of(c.name, is_control)) {
        return core::fail(core::errc::config, "node.name must be at most {} printable characters", max_name);
    }
    if (!is_device(c.device)) {
        return core::fail(core::errc::config, "node.device = \"{}\" is not a device: use auto, cpu or cuda:0",
                          c.device);
    }
    constexpr double least_limit = 64e3;
    for (const auto& [key, rate] : {std::pair("up_limit", c.up_limit), std::pair("down_limit", c.down_limit)}) {
        if (rate.bits_per_second != 0 && rate.bits_per_second < least_limit) {
            return core::fail(core::errc::config,
                              "node.{} = {} is too little to take part: give at least {}, or 0 bit/s", key,
                              core::format_rate(rate), core::format_rate({least_limit}));
        }
    }
    LONGHAUL_TRY(listen_endpoint(c));
    LONGHAUL_TRY(advertised_endpoints(c, {}));
    return core::ok();
}

core::result<net::endpoint> listen_endpoint(const node_config& c) {
    auto at = net::parse_listen_endpoint(c.listen);
    if (!at) {
        return core::fail(core::errc::config, "node.listen = \"{}\" is not an address to listen on: {}", c.listen,
                          at.error().message);
    }
    return at;
}

core::result<std::vector<net::endpoint>> advertised_endpoints(const node_config& c,
                                                              const std::vector<std::string>& own) {
    std::vector<net::endpoint> out;
    LONGHAUL_TRY_ASSIGN(const auto at, listen_endpoint(c));
    if (c.advertise.size() > max_advertised) {
        return core::fail(core::errc::config, "node.advertise names {} addresses; at most {} are possible",
                          c.advertise.size(), max_advertised);
    }
    for (const auto& text : c.advertise) {
        // Without a port: the one that it listens on, which the mesh fills in where it is 0.
        auto e = net::parse_endpoint(text, at.port);
        if (!e) {
            return core::fail(core::errc::config, "node.advertise = \"{}\" is not an address: {}", text,
                              e.error().message);
        }
        out.push_back(std::move(*e));
    }
    const bool all = at.host.empty() || at.host == "0.0.0.0" || at.host == "::";
    if (out.empty() && all) {
        for (const auto& host : own) out.push_back({host, at.port});
        if (out.size() > max_advertised) out.resize(max_advertised);
    }
    return out;
}

}  // namespace longhaul::peers
