#include "peers/wire_convert.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "net/printable.hpp"
#include "optim/aggregate.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

std::string text_of(const core::digest& d) { return std::string(core::as_text(d.bytes)); }

core::result<core::digest> digest_from(const std::string& bytes, const char* what) {
    core::digest d;
    if (bytes.size() != d.bytes.size()) {
        return fail(errc::malformed, "{} has {} bytes instead of 32", what, bytes.size());
    }
    std::memcpy(d.bytes.data(), bytes.data(), bytes.size());
    return d;
}

core::result<std::string> line_from(const std::string& text, std::size_t max, const char* what) {
    if (text.size() > max) return fail(errc::limit, "{} of {} bytes exceeds {}", what, text.size(), max);
    if (!net::is_printable_utf8(text, max)) {
        return fail(errc::malformed, "{} contains a control character or is not UTF-8", what);
    }
    return text;
}

core::result<std::vector<net::endpoint>> endpoints_from(const google::protobuf::RepeatedPtrField<wire::Endpoint>& in) {
    if (in.size() > static_cast<int>(max_addresses)) {
        return fail(errc::limit, "{} addresses exceed the limit of {}", in.size(), max_addresses);
    }
    std::vector<net::endpoint> out;
    std::size_t bytes = 0;
    for (const auto& e : in) {
        LONGHAUL_TRY_ASSIGN(auto host, line_from(e.host(), 255, "an address"));
        // A path would mean a Unix socket of our own machine.
        if (host.empty() || host.find('/') != std::string::npos || e.port() == 0 || e.port() > 65535) {
            return fail(errc::malformed, "'{}' port {} is not an address of a peer", host, e.port());
        }
        bytes += host.size();
        if (bytes > max_address_bytes) {
            return fail(errc::limit, "addresses of {} bytes exceed the limit of {}", bytes, max_address_bytes);
        }
        out.push_back(net::endpoint{std::move(host), static_cast<std::uint16_t>(e.port())});
    }
    return out;
}

void put_endpoints(const std::vector<net::endpoint>& in, google::protobuf::RepeatedPtrField<wire::Endpoint>* out) {
    for (const auto& e : in) {
        auto* p = out->Add();
        p->set_host(e.host);
        p->set_port(e.port);
    }
}

core::result<std::vector<peer_number>> numbers_from(const google::protobuf::RepeatedField<std::uint32_t>& in,
                                                    const char* what) {
    if (in.size() > static_cast<int>(max_members)) {
        return fail(errc::limit, "{} {} exceed the limit of {}", in.size(), what, max_members);
    }
    std::vector<peer_number> out(in.begin(), in.end());
    for (std::size_t i = 0; i < out.size(); ++i) {
        if (out[i] == 0 || out[i] > max_members || (i > 0 && out[i] <= out[i - 1])) {
            return fail(errc::malformed, "{} are not strictly increasing admission numbers", what);
        }
    }
    return out;
}

core::result<std::vector<contribution>> contributions_from(
    const google::protobuf::RepeatedPtrField<wire::Contribution>& in) {
    if (in.size() > static_cast<int>(max_members)) {
        return fail(errc::limit, "{} contributions exceed the limit of {}", in.size(), max_members);
    }
    std::vector<contribution> out;
    for (const auto& p : in) {
        contribution c;
        c.number = p.number();
        c.tokens = p.tokens();
        c.steps = p.steps();
        c.loss = p.loss();
        LONGHAUL_TRY_ASSIGN(c.payload, digest_from(p.payload(), "a payload's hash"));
        if (c.number == 0 || c.number > max_members || !std::isfinite(c.loss) || c.tokens == 0 ||
            c.tokens > optim::max_contribution_tokens || c.steps == 0) {
            return fail(errc::malformed, "a contribution of peer {} is out of range", c.number);
        }
        out.push_back(c);
    }
    return out;
}

void put_contributions(const std::vector<contribution>& in,
                       google::protobuf::RepeatedPtrField<wire::Contribution>* out) {
    for (const auto& c : in) {
        auto* p = out->Add();
        p->set_number(c.number);
        p->set_tokens(c.tokens);
        p->set_steps(c.steps);
        p->set_loss(c.loss);
        p->set_payload(text_of(c.payload));
    }
}

wire::Admit to_proto(const admit_record& r) {
    wire::Admit p;
    p.set_key(text_of(r.key));
    p.set_number(r.number);
    p.set_name(r.name);
    put_endpoints(r.addresses, p.mutable_addresses());
    p.set_token_hash(text_of(r.token_hash));
    return p;
}

core::result<admit_record> from(const wire::Admit& p) {
    admit_record r;
    LONGHAUL_TRY_ASSIGN(r.key, digest_from(p.key(), "a peer's key"));
    LONGHAUL_TRY_ASSIGN(r.name, line_from(p.name(), max_name, "a peer's name"));
    LONGHAUL_TRY_ASSIGN(r.addresses, endpoints_from(p.addresses()));
    LONGHAUL_TRY_ASSIGN(r.token_hash, digest_from(p.token_hash(), "a token's hash"));
    r.number = p.number();
    if (r.number == 0 || r.number > max_members) return fail(errc::malformed, "admission number {}", r.number);
    return r;
}

wire::Plan to_proto(const round_plan& r) {
    wire::Plan p;
    p.set_steps(static_cast<std::uint32_t>(r.inner_steps));
    p.set_eta(r.outer_lr);
    p.set_beta(r.outer_momentum);
    p.set_nesterov(r.nesterov);
    p.set_codec(r.codec);
    p.set_mode(r.mode);
    p.set_delay(r.delay);
    p.set_exchange_every(static_cast<std::uint32_t>(r.exchange_every));
    p.set_staleness(r.staleness);
    return p;
}

core::result<round_plan> from(const wire::Plan& p) {
    round_plan r;
    r.inner_steps = p.steps();
    r.outer_lr = p.eta();
    r.outer_momentum = p.beta();
    r.nesterov = p.nesterov();
    r.delay = p.delay();
    r.exchange_every = p.exchange_every();
    r.staleness = p.staleness();
    LONGHAUL_TRY_ASSIGN(r.codec, line_from(p.codec(), 32, "a codec's name"));
    LONGHAUL_TRY_ASSIGN(r.mode, line_from(p.mode(), 32, "an exchange mode"));
    if (r.inner_steps == 0 || r.inner_steps > 10'000'000 || !std::isfinite(r.outer_lr) ||
        !std::isfinite(r.outer_momentum) || r.delay > 1) {
        return fail(errc::malformed, "a plan of {} steps, outer rate {}, momentum {} and delay {}", r.inner_steps,
                    r.outer_lr, r.outer_momentum, r.delay);
    }
    if (r.exchanges() > optim::max_exchanges || (r.staleness > 0 && r.staleness >= r.exchanges())) {
        return fail(errc::malformed, "a plan of {} exchanges, of which {} are under way", r.exchanges(), r.staleness);
    }
    return r;
}

wire::Round to_proto(const round_record& r) {
    wire::Round p;
    p.set_round(r.round);
    p.set_attempt(r.attempt);
    p.set_position(r.position);
    p.mutable_members()->Add(r.members.begin(), r.members.end());
    p.mutable_contributors()->Add(r.contributors.begin(), r.contributors.end());
    *p.mutable_plan() = to_proto(r.plan);
    p.set_eval_round(r.eval_round);
    p.set_eval_loss(r.eval_loss);
    p.set_reason(r.reason);
    p.set_predicted_seconds(r.exchange.predicted_seconds);
    p.set_plan_reason(r.exchange.reason);
    for (const auto& s : r.own_steps) {
        auto* own = p.add_own_steps();
        own->set_peer(s.peer);
        own->set_steps(s.steps);
    }
    for (const auto& s : r.exchange.shards) {
        auto* share = p.add_shards();
        share->set_owner(s.owner);
        share->set_chunks(s.chunks);
        share->set_window(s.window);
    }
    for (const auto& x : r.exchange.relays) {
        auto* hop = p.add_relays();
        hop->set_source(x.source);
        hop->set_to(x.to);
        hop->set_via(x.via);
    }
    return p;
}

namespace {

/// Owners and helpers are members of the round; nobody is its own helper.
core::result<exchange_plan> exchange_from(const wire::Round& p, const round_record& r) {
    const auto member = [&r](peer_number n) { return has(r.members, n); };
    if (p.shards_size() > static_cast<int>(max_members) || p.relays_size() > static_cast<int>(max_relays)) {
        return fail(errc::limit, "ROUND {} has {} shards and {} relays", r.round, p.shards_size(), p.relays_size());
    }
    if ((p.shards_size() > 0) != (r.plan.mode == "shard")) {
        return fail(errc::malformed, "ROUND {} has {} shards in mode {}", r.round, p.shards_size(), r.plan.mode);
    }
    exchange_plan out;
    out.predicted_seconds = p.predicted_seconds();
    LONGHAUL_TRY_ASSIGN(out.reason, line_from(p.plan_reason(), max_reason, "a plan's reason"));
    if (!(out.predicted_seconds >= 0 && out.predicted_seconds < 1e9)) {
        return fail(errc::malformed, "ROUND {} predicts {} seconds", r.round, out.predicted_seconds);
    }
    for (const auto& s : p.shards()) {
        if (!member(s.owner())) return fail(errc::malformed, "a shard of ROUND {} is peer {}'s", r.round, s.owner());
        out.shards.push_back({s.owner(), s.chunks(), s.window()});
    }
    for (const auto& x : p.relays()) {
        const bool sound = x.source() != x.to() && x.via() != x.source() && x.via() != x.to();
        if (!sound || !member(x.source()) || !member(x.to()) || !member(x.via())) {
            return fail(errc::malformed, "ROUND {} relays from {} to {} through {}", r.round, x.source(), x.to(),
                        x.via());
        }
        out.relays.push_back({x.source(), x.to(), x.via()});
    }
    return out;
}

core::result<std::vector<peer_steps>> own_steps_from(const wire::Round& p, const round_record& r) {
    std::vector<peer_steps> out;
    const auto most = optim::most_own_steps(r.plan.inner_steps);
    // Of peers that left the round, too: its attempts keep to what the first one said.
    for (const auto& s : p.own_steps()) {
        const bool sorted = s.peer() > (out.empty() ? 0 : out.back().peer) && s.peer() <= max_members;
        if (!sorted || s.steps() == 0 || s.steps() > most) {
            return fail(errc::malformed, "ROUND {} cannot have {} steps of peer {}", r.round, s.steps(), s.peer());
        }
        out.push_back({s.peer(), s.steps()});
    }
    return out;
}

}  // namespace

core::result<round_record> from(const wire::Round& p) {
    round_record r;
    r.round = p.round();
    r.attempt = p.attempt();
    r.position = p.position();
    LONGHAUL_TRY_ASSIGN(r.members, numbers_from(p.members(), "members"));
    LONGHAUL_TRY_ASSIGN(r.contributors, numbers_from(p.contributors(), "contributors"));
    LONGHAUL_TRY_ASSIGN(r.plan, from(p.plan()));
    r.eval_round = p.eval_round();
    r.eval_loss = p.eval_loss();
    LONGHAUL_TRY_ASSIGN(r.reason, line_from(p.reason(), max_reason, "a reason"));
    if (r.round == 0 || r.attempt == 0 || r.members.empty() || !std::isfinite(r.eval_loss)) {
        return fail(errc::malformed, "ROUND {} attempt {} has a field out of range", r.round, r.attempt);
    }
    LONGHAUL_TRY_ASSIGN(r.exchange, exchange_from(p, r));
    LONGHAUL_TRY_ASSIGN(r.own_steps, own_steps_from(p, r));
    const bool plain = r.own_steps.empty() && r.exchange.shards.empty() && r.plan.delay == 0 &&
                       r.plan.outer_momentum == 0 && !r.plan.nesterov;
    if (r.plan.exchanges() > 1 && !plain) {
        return fail(errc::malformed, "ROUND {} has {} exchanges with shards, delay, momentum or steps of a peer's own",
                    r.round, r.plan.exchanges());
    }
    return r;
}

wire::Commit to_proto(const commit_record& r) {
    wire::Commit p;
    p.set_round(r.round);
    p.set_attempt(r.attempt);
    p.set_aggregate_root(text_of(r.aggregate_root));
    p.set_state_root(text_of(r.state_root));
    put_contributions(r.contributions, p.mutable_contributions());
    return p;
}

core::result<commit_record> from(const wire::Commit& p) {
    commit_record r;
    r.round = p.round();
    r.attempt = p.attempt();
    LONGHAUL_TRY_ASSIGN(r.aggregate_root, digest_from(p.aggregate_root(), "an aggregate's root"));
    LONGHAUL_TRY_ASSIGN(r.state_root, digest_from(p.state_root(), "a state's root"));
    LONGHAUL_TRY_ASSIGN(r.contributions, contributions_from(p.contributions()));
    if (r.round == 0 || r.attempt == 0) return fail(errc::malformed, "COMMIT {} attempt {}", r.round, r.attempt);
    return r;
}

}  // namespace longhaul::peers
