#include "peers/records.hpp"

#include <limits>

#include "peers/wire_convert.hpp"

namespace longhaul::peers {

double mean_loss(const commit_record& commit) {
    double loss = 0, tokens = 0;
    for (const auto& c : commit.contributions) {
        loss += c.loss * static_cast<double>(c.tokens);
        tokens += static_cast<double>(c.tokens);
    }
    return tokens > 0 ? loss / tokens : std::numeric_limits<double>::quiet_NaN();
}

std::uint64_t round_record::steps_of(peer_number who) const {
    const auto own = std::ranges::lower_bound(own_steps, who, {}, &peer_steps::peer);
    return own != own_steps.end() && own->peer == who ? own->steps : plan.inner_steps;
}

using core::errc;
using core::fail;

namespace {

core::result<record> from(const wire::Depart& p) {
    depart_record r;
    r.number = p.number();
    LONGHAUL_TRY_ASSIGN(r.reason, line_from(p.reason(), max_reason, "a reason"));
    r.revoked = p.revoked();
    return r;
}

core::result<record> from(const wire::Generation& p) {
    generation_record r;
    r.generation = p.generation();
    r.round = p.round();
    r.position = p.position();
    r.tokens = p.tokens();
    LONGHAUL_TRY_ASSIGN(r.state_root, digest_from(p.state_root(), "a state's root"));
    LONGHAUL_TRY_ASSIGN(r.reason, line_from(p.reason(), max_reason, "a reason"));
    return r;
}

core::result<record> from(const wire::Dissolved& p) {
    dissolved_record r;
    r.into = p.into();
    if (r.into == 0) return fail(errc::malformed, "a log was dissolved into nothing");
    LONGHAUL_TRY_ASSIGN(r.reason, line_from(p.reason(), max_reason, "a reason"));
    LONGHAUL_TRY_ASSIGN(r.by, digest_from(p.by(), "who dissolved a log"));
    return r;
}

core::result<record> from(const wire::RunState& p) {
    run_state_record r;
    if (p.state() > 2) return fail(errc::malformed, "run state {}", p.state());
    r.state = static_cast<run_phase>(p.state());
    LONGHAUL_TRY_ASSIGN(r.reason, line_from(p.reason(), max_reason, "a reason"));
    return r;
}

core::result<record> from(const wire::Voters& p) {
    voters_record r;
    LONGHAUL_TRY_ASSIGN(r.who, configuration_from(p));
    LONGHAUL_TRY(raft::check(r.who));
    return r;
}

}  // namespace

std::vector<net::endpoint> admissible_addresses(std::vector<net::endpoint> wanted, const net::endpoint& bound) {
    if (wanted.empty()) wanted.push_back(bound);
    std::vector<net::endpoint> out;
    std::size_t bytes = 0;
    for (auto& e : wanted) {
        // All addresses of this machine: whoever admits us sees the one that works.
        if (e.host.empty()) e.host = "0.0.0.0";
        if (e.port == 0) e.port = bound.port;
        bytes += e.host.size();
        if (out.size() == max_addresses || bytes > max_address_bytes) break;
        out.push_back(std::move(e));
    }
    return out;
}

core::byte_vector serialize(const record& r) {
    wire::Record p;
    std::visit(overloaded{
                   [&](const admit_record& x) { *p.mutable_admit() = to_proto(x); },
                   [&](const depart_record& x) {
                       p.mutable_depart()->set_number(x.number);
                       p.mutable_depart()->set_reason(x.reason);
                       p.mutable_depart()->set_revoked(x.revoked);
                   },
                   [&](const round_record& x) { *p.mutable_round() = to_proto(x); },
                   [&](const commit_record& x) { *p.mutable_commit() = to_proto(x); },
                   [&](const generation_record& x) {
                       auto* g = p.mutable_generation();
                       g->set_generation(x.generation);
                       g->set_round(x.round);
                       g->set_position(x.position);
                       g->set_tokens(x.tokens);
                       g->set_state_root(text_of(x.state_root));
                       g->set_reason(x.reason);
                   },
                   [&](const run_state_record& x) {
                       p.mutable_run_state()->set_state(static_cast<std::uint32_t>(x.state));
                       p.mutable_run_state()->set_reason(x.reason);
                   },
                   [&](const voters_record& x) { *p.mutable_voters() = to_proto(x.who); },
                   [&](const dissolved_record& x) {
                       p.mutable_dissolved()->set_into(x.into);
                       p.mutable_dissolved()->set_reason(x.reason);
                       p.mutable_dissolved()->set_by(text_of(x.by));
                   },
               },
               r);
    return to_bytes(p);
}

core::result<record> parse_record(core::const_bytes bytes) {
    LONGHAUL_TRY_ASSIGN(auto p, proto_from<wire::Record>(bytes, max_record_bytes, "log record"));
    switch (p.kind_case()) {
        case wire::Record::kAdmit: return from(p.admit());
        case wire::Record::kDepart: return from(p.depart());
        case wire::Record::kRound: return from(p.round());
        case wire::Record::kCommit: return from(p.commit());
        case wire::Record::kGeneration: return from(p.generation());
        case wire::Record::kRunState: return from(p.run_state());
        case wire::Record::kVoters: return from(p.voters());
        case wire::Record::kDissolved: return from(p.dissolved());
        case wire::Record::KIND_NOT_SET: break;
    }
    return fail(errc::malformed, "a log record of an unknown kind");
}

}  // namespace longhaul::peers
