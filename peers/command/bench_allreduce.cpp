/// `longhaul bench allreduce`: one machine is the host, the others join it; all sum a tensor by the very exchange that
/// a training round uses, and each prints the same result.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "compress/codec.hpp"
#include "core/json.hpp"
#include "core/units.hpp"
#include "net/ticket.hpp"
#include "peers/allreduce.hpp"
#include "peers/command/command.hpp"
#include "peers/command/world.hpp"

namespace longhaul::peers::command {

namespace {

using core::errc;
using json = nlohmann::ordered_json;

struct allreduce_flags {
    std::string address;
    std::string listen;
    std::string size = "64 MiB";
    std::string codec = "f32";
    std::string mode = "auto";
    std::string congestion_control = "bbr";
    std::int64_t peers = 2;
    std::int64_t repeat = 5;
    bool as_json = false;
};

void print(const allreduce_report& r, bool as_json) {
    if (!as_json) {
        fmt::print("{} summed by {} peers in {:.3f} s (median of {}; the model said {:.3f} s)\n",
                   core::format_bytes(r.bytes), r.peers, median(r.seconds), r.seconds.size(),
                   r.predicted_seconds.back());
        fmt::print("{}; codec {}, sum {}\n", r.reason, r.codec, r.checksum.brief());
        return;
    }
    json j;
    j["peers"] = r.peers;
    j["bytes"] = r.bytes;
    j["seconds"] = r.seconds;
    j["mode"] = r.mode;
    j["codec"] = r.codec;
    j["checksum"] = r.checksum.hex();
    j["wire_sent"] = r.wire_sent;
    j["wire_received"] = r.wire_received;
    j["padding_sent"] = r.padding_sent;
    j["predicted_seconds"] = r.predicted_seconds;
    j["reason"] = r.reason;
    std::puts(core::json_text(j).c_str());
}

core::result<int> bench(const allreduce_flags& w) {
    allreduce_wishes a;
    LONGHAUL_TRY_ASSIGN(a.bytes, core::parse_bytes(w.size));
    if (a.bytes < 4 || a.bytes % 4 != 0 || a.bytes > std::uint64_t{16} << 30) {
        return core::fail(errc::usage, "--size {} is not a multiple of 4 B within 16 GiB", w.size);
    }
    a.codec = w.codec;
    a.mode = w.mode;
    a.peers = static_cast<std::size_t>(w.peers);
    a.repeat = static_cast<std::uint32_t>(w.repeat);
    if (!w.address.empty()) {
        LONGHAUL_TRY_ASSIGN(const auto to, net::parse_ticket(w.address));
        a.join = to.addresses;
    }
    LONGHAUL_TRY_ASSIGN(a.listen, net::parse_listen_endpoint(w.listen.empty() ? ":7400" : w.listen));
    visitor here;
    here.host().network.set_congestion_control(w.congestion_control);
    const auto told = [&](const net::endpoint& at) {
        if (!a.join.empty()) return;
        if (w.as_json) {
            json ready;
            ready["listen"] = at.text();
            std::puts(core::json_text(ready).c_str());
        } else {
            fmt::print("listening on {} for {} more; on each: longhaul bench allreduce HOST:{}\n", at.text(),
                       a.peers - 1, at.port);
        }
        std::fflush(stdout);
    };
    LONGHAUL_TRY_ASSIGN(const auto report, here.ask(allreduce(here.env(), a, told)));
    print(report, w.as_json);
    return 0;
}

}  // namespace

void add_bench_allreduce(CLI::App& bench_command, action& chosen) {
    auto* command =
        bench_command.add_subcommand("allreduce", "how fast machines sum a tensor, as a training round does");
    const auto w = std::make_shared<allreduce_flags>();
    command->add_option("ADDR", w->address, "HOST[:PORT] of the host; without it this machine is the host");
    command->add_option("--listen", w->listen, "HOST:PORT; default :7400, and for those who join any port");
    command->add_option("--peers", w->peers, "host: machines, itself included; default 2")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{most_bench_peers}));
    command->add_option("--size", w->size, "host: of the f32 tensor; default 64 MiB");
    command->add_option("--codec", w->codec, "host: f32, bf16, int8, …")->check(CLI::IsMember(compress::codec_names()));
    command->add_option("--mode", w->mode, "host: auto (by the time model), gather or shard")
        ->check(CLI::IsMember({"auto", "gather", "shard"}));
    command->add_option("--repeat", w->repeat, "host: all-reduces; default 5")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{10'000}));
    command->add_option("--congestion-control", w->congestion_control,
                        "of this machine's bulk connections, where the kernel offers it; default bbr");
    command->add_flag("--json", w->as_json, "for programs");
    command->callback([w, &chosen] { chosen = [w] { return bench(*w); }; });
}

}  // namespace longhaul::peers::command
