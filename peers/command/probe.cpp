#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "net/mesh.hpp"
#include "peers/command/address.hpp"
#include "peers/command/command.hpp"
#include "peers/command/world.hpp"
#include "peers/peer.hpp"

namespace longhaul::peers::command {

namespace {

using ordered_json = nlohmann::ordered_json;

constexpr auto probe_deadline = std::chrono::seconds(10);

std::string advice_for(core::errc code) {
    switch (code) {
        case core::errc::unreachable:
        case core::errc::timeout:
            return "check the address, that a node runs there, and that no firewall stands between";
        case core::errc::version_mismatch: return "install the same version of longhaul on both machines";
        case core::errc::run_mismatch: return "ask a member for a new ticket: this one is of another run";
        case core::errc::not_admitted: return "ask a member for a new ticket: the key in this one is not accepted";
        case core::errc::protocol: return "something else than longhaul answers there: check the port";
        default: return "see the message";
    }
}

struct report {
    ordered_json shown = ordered_json::object();
    std::optional<core::error> failed;
};

/// Each address of the ticket, by cleartext hellos.
core::task<core::result<void>> probe_addresses(net::environment& env, const net::ticket& t, report& out) {
    auto& rows = out.shown["addresses"] = ordered_json::array();
    std::optional<core::error> last;
    bool reached = false;
    for (const auto& at : t.addresses) {
        ordered_json row;
        row["address"] = at.text();
        auto hello = co_await net::mesh::probe(env, at, probe_deadline);
        row["reachable"] = hello.has_value();
        if (hello) {
            reached = true;
            row["rtt_seconds"] = core::to_seconds(hello->rtt);
            row["wire_min"] = hello->wire_min;
            row["wire_max"] = hello->wire_max;
            row["run"] = hello->run.hex();
        } else {
            last = hello.error();
            row["code"] = core::name_of(last->code);
            row["error"] = last->message;
            row["advice"] = advice_for(last->code);
        }
        rows.push_back(std::move(row));
    }
    if (!reached) out.failed = last;
    co_return core::ok();
}

/// Whether the ticket's key opens the door, and who is behind it.
core::task<core::result<void>> probe_admission(net::environment& env, net::ticket t, report& out) {
    auto status = co_await query_status(env, std::move(t), probe_deadline);
    out.shown["admitted"] = status.has_value();
    if (status) {
        auto parsed = core::parse_json(*status, 8 << 20, 8);
        if (parsed && parsed->is_object()) {
            for (const auto* key :
                 {"run_name", "name", "state", "applied", "rounds_total", "alive", "reachable", "reach"}) {
                if (parsed->contains(key)) out.shown[key] = (*parsed)[key];
            }
        }
        co_return core::ok();
    }
    out.failed = status.error();
    out.shown["code"] = core::name_of(status.error().code);
    out.shown["error"] = status.error().message;
    out.shown["advice"] = advice_for(status.error().code);
    co_return core::ok();
}

core::task<core::result<report>> probe(net::environment& env, net::ticket t) {
    report out;
    auto addresses = co_await probe_addresses(env, t, out);
    LONGHAUL_CO_TRY(addresses);
    if (!out.failed && t.key) {
        auto admission = co_await probe_admission(env, t, out);
        LONGHAUL_CO_TRY(admission);
    }
    out.shown["ok"] = !out.failed.has_value();
    co_return out;
}

void print(const report& r) {
    for (const auto& row : r.shown["addresses"]) {
        const auto address = row["address"].get<std::string>();
        if (row["reachable"].get<bool>()) {
            fmt::print("ok    {}: wire version {} to {}, run {}, RTT {:.2f} ms\n", address, row["wire_min"].get<int>(),
                       row["wire_max"].get<int>(), row["run"].get<std::string>().substr(0, 8),
                       row["rtt_seconds"].get<double>() * 1e3);
        } else {
            fmt::print("fail  {}: {}\n      {}\n", address, row["error"].get<std::string>(),
                       row["advice"].get<std::string>());
        }
    }
    if (!r.shown.contains("admitted")) return;
    if (r.shown["admitted"].get<bool>()) {
        fmt::print("ok    this ticket is accepted\n");
    } else {
        fmt::print("fail  {}\n      {}\n", r.shown["error"].get<std::string>(), r.shown["advice"].get<std::string>());
    }
}

core::result<int> run(const std::string& address, bool as_json) {
    LONGHAUL_TRY_ASSIGN(auto ticket, read_address(address));
    visitor here;
    LONGHAUL_TRY_ASSIGN(const auto r, here.ask(probe(here.env(), std::move(ticket))));
    if (as_json) {
        std::puts(r.shown.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
    } else {
        print(r);
    }
    if (!r.failed) return 0;
    return core::fail(*r.failed);
}

}  // namespace

void add_probe(CLI::App& app, action& chosen) {
    auto* command = app.add_subcommand("probe", "is a member reachable, and does this ticket open its door?");
    const auto address = std::make_shared<std::string>();
    const auto as_json = std::make_shared<bool>(false);
    command->add_option("ADDR", *address, address_help)->required();
    command->add_flag("--json", *as_json, "for programs");
    command->callback([=, &chosen] { chosen = [=] { return run(*address, *as_json); }; });
}

}  // namespace longhaul::peers::command
