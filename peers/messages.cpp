#include "peers/messages.hpp"

#include <charconv>
#include <cmath>

#include "net/link.hpp"
#include "peers/wire_convert.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

constexpr std::size_t max_log_records = 4096;

wire::Fetch to_proto(const fetch_message& m) {
    wire::Fetch p;
    p.set_kind(static_cast<std::uint32_t>(m.kind));
    p.set_generation(m.generation);
    p.set_round(m.round);
    p.set_first(m.first);
    p.set_count(m.count);
    return p;
}

core::result<fetch_message> fetch_from(const wire::Fetch& p) {
    fetch_message m;
    bool chunks = false;
    switch (p.kind()) {
        case static_cast<std::uint32_t>(fetch_kind::state_index):
        case static_cast<std::uint32_t>(fetch_kind::aggregate_index): break;
        case static_cast<std::uint32_t>(fetch_kind::state_chunks):
        case static_cast<std::uint32_t>(fetch_kind::aggregate_chunks): chunks = true; break;
        default: return fail(errc::malformed, "fetch of unknown kind {}", p.kind());
    }
    m.kind = static_cast<fetch_kind>(p.kind());
    m.generation = p.generation();
    m.round = p.round();
    m.first = p.first();
    m.count = p.count();
    if (chunks ? m.count == 0 || m.count > max_fetched_chunks : m.first != 0 || m.count != 0) {
        return fail(errc::malformed, "fetch of kind {} with {} chunks from {} on", p.kind(), m.count, m.first);
    }
    return m;
}

core::result<message> from(const wire::Greeting& p) {
    greeting m;
    m.generation = p.generation();
    m.applied = p.applied();
    m.caught_up = p.caught_up();
    LONGHAUL_TRY_ASSIGN(m.coordinator, digest_from(p.coordinator(), "the coordinator's key"));
    m.observer = p.observer();
    m.log_generation = p.log_generation();
    m.tokens = p.tokens();
    return m;
}
core::result<message> from(const wire::JoinRequest& p) {
    join_request m;
    LONGHAUL_TRY_ASSIGN(m.name, line_from(p.name(), max_name, "a peer's name"));
    LONGHAUL_TRY_ASSIGN(m.addresses, endpoints_from(p.addresses()));
    if (!p.token().empty()) {
        LONGHAUL_TRY_ASSIGN(m.token, digest_from(p.token(), "a token"));
    }
    return m;
}
core::result<message> from(const wire::JoinReply& p) {
    join_reply m;
    m.admitted = p.admitted();
    LONGHAUL_TRY_ASSIGN(m.reason, line_from(p.reason(), max_reason, "a reason"));
    LONGHAUL_TRY_ASSIGN(m.coordinator, endpoints_from(p.coordinator()));
    LONGHAUL_TRY_ASSIGN(m.coordinator_key, digest_from(p.coordinator_key(), "the coordinator's key"));
    return m;
}
core::result<message> from(const wire::LogEntries& p) {
    if (p.records_size() > static_cast<int>(max_log_records)) {
        return fail(errc::limit, "{} log records in one message", p.records_size());
    }
    log_entries m;
    m.first = p.first();
    for (const auto& r : p.records()) {
        const auto bytes = core::as_bytes(r);
        m.records.emplace_back(bytes.begin(), bytes.end());
    }
    return m;
}
core::result<message> from(const wire::Ready& p) {
    ready_message m;
    m.generation = p.generation();
    m.round = p.round();
    m.attempt = p.attempt();
    LONGHAUL_TRY_ASSIGN(m.aggregate_root, digest_from(p.aggregate_root(), "an aggregate's root"));
    LONGHAUL_TRY_ASSIGN(m.state_root, digest_from(p.state_root(), "a state's root"));
    LONGHAUL_TRY_ASSIGN(m.contributions, contributions_from(p.contributions()));
    return m;
}
core::result<message> from(const wire::Progress& p) {
    progress_message m;
    m.generation = p.generation();
    m.round = p.round();
    m.steps = p.steps();
    m.verified_bytes = p.verified_bytes();
    LONGHAUL_TRY_ASSIGN(m.payloads, numbers_from(p.payloads(), "payload authors"));
    LONGHAUL_TRY_ASSIGN(m.behind, numbers_from(p.behind(), "those who are waited for"));
    m.attempt = p.attempt();
    m.restarted = p.restarted();
    return m;
}
core::result<message> from(const wire::Applied& p) {
    if (!std::isfinite(p.eval_loss())) return fail(errc::malformed, "an evaluation is not a finite number");
    applied_message m;
    m.generation = p.generation();
    m.round = p.round();
    m.eval_round = p.eval_round();
    m.eval_loss = p.eval_loss();
    m.tokens = p.tokens();
    return m;
}
core::result<message> from(const wire::Lines& p) {
    constexpr double fastest = 1e12;
    lines_message m;
    m.up = p.up();
    m.down = p.down();
    m.room = p.room();
    if (!(m.up >= 0 && m.up <= fastest && m.down >= 0 && m.down <= fastest)) {
        return fail(errc::malformed, "a line of {} and {} bytes per second", m.up, m.down);
    }
    m.step_seconds = p.step_seconds();
    if (!(m.step_seconds >= 0 && m.step_seconds < 1e9)) {
        return fail(errc::malformed, "an inner step of {} seconds", m.step_seconds);
    }
    if (p.links_size() > static_cast<int>(max_members)) return fail(errc::limit, "{} links", p.links_size());
    for (const auto& l : p.links()) {
        if (!m.links.empty() && l.peer() <= m.links.back().peer) return fail(errc::malformed, "links are not sorted");
        m.links.push_back({l.peer(), l.rtt_us()});
    }
    return m;
}
core::result<message> from(const wire::ReachRequest& p) {
    if (p.port() == 0 || p.port() > 65535) return fail(errc::malformed, "port {} is none to listen on", p.port());
    return reach_request{static_cast<std::uint16_t>(p.port())};
}
core::result<message> from(const wire::ReachReply& p) {
    reach_reply m;
    LONGHAUL_TRY_ASSIGN(auto reached, endpoints_from(p.reached()));
    if (reached.size() > 1) return fail(errc::malformed, "a node was reached at {} addresses at once", reached.size());
    if (!reached.empty()) m.reached = std::move(reached.front());
    LONGHAUL_TRY_ASSIGN(m.reason, line_from(p.reason(), max_reason, "a reason"));
    return m;
}
core::result<message> from(const wire::LogLeader& p) {
    leader_message m;
    m.term = p.term();
    LONGHAUL_TRY_ASSIGN(m.leader, digest_from(p.leader(), "the leader's key"));
    return m;
}
core::result<message> from(const wire::FetchRefused& p) {
    fetch_refused m;
    LONGHAUL_TRY_ASSIGN(m.what, fetch_from(p.what()));
    LONGHAUL_TRY_ASSIGN(m.reason, line_from(p.reason(), max_reason, "a reason"));
    return m;
}

}  // namespace

core::byte_vector serialize(const message& m) {
    wire::Message p;
    std::visit(overloaded{
                   [&](const greeting& x) {
                       auto* g = p.mutable_greeting();
                       g->set_generation(x.generation);
                       g->set_applied(x.applied);
                       g->set_caught_up(x.caught_up);
                       g->set_coordinator(text_of(x.coordinator));
                       g->set_observer(x.observer);
                       g->set_log_generation(x.log_generation);
                       g->set_tokens(x.tokens);
                   },
                   [&](const manifest_request&) { p.mutable_manifest_request(); },
                   [&](const manifest_reply& x) {
                       p.mutable_manifest_reply()->set_manifest(std::string(core::as_text(x.manifest)));
                   },
                   [&](const join_request& x) {
                       p.mutable_join_request()->set_name(x.name);
                       put_endpoints(x.addresses, p.mutable_join_request()->mutable_addresses());
                       if (x.token) p.mutable_join_request()->set_token(text_of(*x.token));
                   },
                   [&](const join_reply& x) {
                       auto* j = p.mutable_join_reply();
                       j->set_admitted(x.admitted);
                       j->set_reason(x.reason);
                       put_endpoints(x.coordinator, j->mutable_coordinator());
                       j->set_coordinator_key(text_of(x.coordinator_key));
                   },
                   [&](const log_request& x) { p.mutable_log_request()->set_after(x.after); },
                   [&](const log_entries& x) {
                       p.mutable_log_entries()->set_first(x.first);
                       for (const auto& r : x.records) {
                           p.mutable_log_entries()->add_records(std::string(core::as_text(r)));
                       }
                   },
                   [&](const log_snapshot& x) {
                       // Made by ledger::snapshot: the bytes of the inner message itself.
                       p.mutable_log_snapshot()->mutable_ledger()->ParseFromArray(x.ledger.data(),
                                                                                  static_cast<int>(x.ledger.size()));
                   },
                   [&](const ready_message& x) {
                       auto* r = p.mutable_ready();
                       r->set_generation(x.generation);
                       r->set_round(x.round);
                       r->set_attempt(x.attempt);
                       r->set_aggregate_root(text_of(x.aggregate_root));
                       r->set_state_root(text_of(x.state_root));
                       put_contributions(x.contributions, r->mutable_contributions());
                   },
                   [&](const progress_message& x) {
                       auto* r = p.mutable_progress();
                       r->set_generation(x.generation);
                       r->set_round(x.round);
                       r->set_steps(x.steps);
                       r->set_verified_bytes(x.verified_bytes);
                       r->mutable_payloads()->Add(x.payloads.begin(), x.payloads.end());
                       r->set_attempt(x.attempt);
                       r->set_restarted(x.restarted);
                       r->mutable_behind()->Add(x.behind.begin(), x.behind.end());
                   },
                   [&](const applied_message& x) {
                       auto* r = p.mutable_applied();
                       r->set_generation(x.generation);
                       r->set_round(x.round);
                       r->set_eval_round(x.eval_round);
                       r->set_eval_loss(x.eval_loss);
                       r->set_tokens(x.tokens);
                   },
                   [&](const fetch_message& x) { *p.mutable_fetch() = to_proto(x); },
                   [&](const fetch_refused& x) {
                       auto* r = p.mutable_fetch_refused();
                       *r->mutable_what() = to_proto(x.what);
                       r->set_reason(x.reason);
                   },
                   [&](const leaving_message& x) { p.mutable_leaving()->set_reason(x.reason); },
                   [&](const lines_message& x) {
                       auto* r = p.mutable_lines();
                       r->set_up(x.up);
                       r->set_down(x.down);
                       r->set_room(x.room);
                       r->set_step_seconds(x.step_seconds);
                       for (const auto& l : x.links) {
                           auto* link = r->add_links();
                           link->set_peer(l.peer);
                           link->set_rtt_us(l.rtt_us);
                       }
                   },
                   [&](const reach_request& x) { p.mutable_reach_request()->set_port(x.port); },
                   [&](const reach_reply& x) {
                       auto* r = p.mutable_reach_reply();
                       if (x.reached) put_endpoints({*x.reached}, r->mutable_reached());
                       r->set_reason(x.reason);
                   },
                   [&](const raft::message& x) { *p.mutable_raft() = to_proto(x); },
                   [&](const leader_message& x) {
                       p.mutable_log_leader()->set_term(x.term);
                       p.mutable_log_leader()->set_leader(text_of(x.leader));
                   },
                   [&](const status_request&) { p.mutable_status_request(); },
                   [&](const status_reply& x) { p.mutable_status_reply()->set_json(x.json); },
               },
               m);
    return to_bytes(p);
}

core::result<message> parse_message(core::const_bytes bytes) {
    LONGHAUL_TRY_ASSIGN(auto p, proto_from<wire::Message>(bytes, net::max_control_message, "control message"));
    switch (p.kind_case()) {
        case wire::Message::kGreeting: return from(p.greeting());
        case wire::Message::kManifestRequest: return manifest_request{};
        case wire::Message::kManifestReply: {
            const auto b = core::as_bytes(p.manifest_reply().manifest());
            manifest_reply m;
            m.manifest.assign(b.begin(), b.end());
            return m;
        }
        case wire::Message::kJoinRequest: return from(p.join_request());
        case wire::Message::kJoinReply: return from(p.join_reply());
        case wire::Message::kLogRequest: return log_request{p.log_request().after()};
        case wire::Message::kLogEntries: return from(p.log_entries());
        case wire::Message::kLogSnapshot: return log_snapshot{to_bytes(p.log_snapshot().ledger())};
        case wire::Message::kReady: return from(p.ready());
        case wire::Message::kProgress: return from(p.progress());
        case wire::Message::kApplied: return from(p.applied());
        case wire::Message::kFetch: return fetch_from(p.fetch()).map([](fetch_message m) { return message(m); });
        case wire::Message::kFetchRefused: return from(p.fetch_refused());
        case wire::Message::kLeaving: {
            LONGHAUL_TRY_ASSIGN(auto reason, line_from(p.leaving().reason(), max_reason, "a reason"));
            return leaving_message{std::move(reason)};
        }
        case wire::Message::kStatusRequest: return status_request{};
        case wire::Message::kLines: return from(p.lines());
        case wire::Message::kReachRequest: return from(p.reach_request());
        case wire::Message::kReachReply: return from(p.reach_reply());
        case wire::Message::kRaft: return from(p.raft()).map([](raft::message m) { return message(std::move(m)); });
        case wire::Message::kLogLeader: return from(p.log_leader());
        case wire::Message::kStatusReply: return status_reply{p.status_reply().json()};
        case wire::Message::KIND_NOT_SET: break;
    }
    return fail(errc::malformed, "a control message of an unknown kind");
}

std::string tag_of(const fetch_message& what) {
    return fmt::format("{}/{}/{}/{}/{}", static_cast<int>(what.kind), what.generation, what.round, what.first,
                       what.count);
}

}  // namespace longhaul::peers
