// Raft's messages between their struct and protobuf.
#include "peers/wire_convert.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

core::byte_vector bytes_of(const std::string& text) {
    const auto b = core::as_bytes(text);
    return {b.begin(), b.end()};
}

wire::RaftEntry to_proto(const raft::entry& e) {
    wire::RaftEntry p;
    p.set_term(e.term);
    p.set_kind(static_cast<std::uint32_t>(e.kind));
    if (e.kind == raft::entry_kind::record) p.set_data(std::string(core::as_text(e.data)));
    if (e.kind == raft::entry_kind::membership) *p.mutable_members() = peers::to_proto(e.members);
    return p;
}

wire::DiskMark to_proto(const raft::disk_mark& m) {
    wire::DiskMark p;
    p.set_before(m.before);
    p.set_written(m.written);
    p.set_life(m.life);
    return p;
}

raft::disk_mark from(const wire::DiskMark& p) { return {p.before(), p.written(), p.life()}; }

core::result<raft::entry> from(const wire::RaftEntry& p) {
    raft::entry e;
    e.term = p.term();
    if (p.kind() > static_cast<std::uint32_t>(raft::entry_kind::membership)) {
        return fail(errc::malformed, "a log entry of kind {}", p.kind());
    }
    e.kind = static_cast<raft::entry_kind>(p.kind());
    e.data = bytes_of(p.data());
    LONGHAUL_TRY_ASSIGN(e.members, configuration_from(p.members()));
    return e;
}

core::result<raft::append_request> from(const wire::AppendRequest& p) {
    if (p.entries_size() > static_cast<int>(raft::max_append_entries)) {
        return fail(errc::limit, "{} log entries in one message", p.entries_size());
    }
    raft::append_request a{p.prev_index(), p.prev_term(), p.commit(), {}};
    for (const auto& e : p.entries()) {
        LONGHAUL_TRY_ASSIGN(auto entry, from(e));
        a.entries.push_back(std::move(entry));
    }
    return a;
}

core::result<raft::snapshot_request> from(const wire::RaftSnapshot& p) {
    raft::snapshot_request s;
    s.state.index = p.index();
    s.state.term = p.term();
    LONGHAUL_TRY_ASSIGN(s.state.members, configuration_from(p.members()));
    s.state.data = bytes_of(p.data());
    return s;
}

core::result<decltype(raft::message::body)> body_from(const wire::Raft& p) {
    using body = decltype(raft::message::body);
    const auto as_body = [](auto x) { return body(std::move(x)); };
    switch (p.body_case()) {
        case wire::Raft::kVoteRequest: {
            const auto& v = p.vote_request();
            return body(raft::vote_request{v.last_index(), v.last_term(), v.pre(), v.handed_over()});
        }
        case wire::Raft::kVoteResponse:
            return body(raft::vote_response{p.vote_response().pre(), p.vote_response().granted()});
        case wire::Raft::kAppendRequest: return from(p.append_request()).map(as_body);
        case wire::Raft::kAppendResponse: {
            const auto& a = p.append_response();
            return body(raft::append_response{a.accepted(), a.index(), a.hint_index(), a.hint_term()});
        }
        case wire::Raft::kSnapshot: return from(p.snapshot()).map(as_body);
        case wire::Raft::kCampaignRequest: return body(raft::campaign_request{});
        case wire::Raft::kGreeting: return body(raft::greeting{});
        case wire::Raft::BODY_NOT_SET: break;
    }
    return fail(errc::malformed, "a voter's message of an unknown kind");
}

}  // namespace

wire::Voters to_proto(const raft::configuration& c) {
    wire::Voters p;
    for (const auto& v : c.voters) p.add_voters(text_of(v));
    for (const auto& l : c.learners) p.add_standbys(text_of(l));
    return p;
}

core::result<raft::configuration> configuration_from(const wire::Voters& p) {
    constexpr auto most = static_cast<int>(raft::max_voters + raft::max_learners);
    if (p.voters_size() > most || p.standbys_size() > most) {
        return fail(errc::limit, "{} voters and {} standbys", p.voters_size(), p.standbys_size());
    }
    raft::configuration c;
    for (const auto& [from, to] : {std::pair(&p.voters(), &c.voters), std::pair(&p.standbys(), &c.learners)}) {
        for (const auto& key : *from) {
            LONGHAUL_TRY_ASSIGN(const auto k, digest_from(key, "a voter's key"));
            to->push_back(k);
        }
    }
    return c;
}

wire::Raft to_proto(const raft::message& m) {
    wire::Raft p;
    p.set_generation(text_of(m.generation));
    p.set_term(m.term);
    *p.mutable_own() = to_proto(m.own);
    if (m.seen != raft::disk_mark{}) *p.mutable_seen() = to_proto(m.seen);
    std::visit(overloaded{
                   [&](const raft::vote_request& x) {
                       auto* v = p.mutable_vote_request();
                       v->set_last_index(x.last_index);
                       v->set_last_term(x.last_term);
                       v->set_pre(x.pre);
                       v->set_handed_over(x.handed_over);
                   },
                   [&](const raft::vote_response& x) {
                       p.mutable_vote_response()->set_pre(x.pre);
                       p.mutable_vote_response()->set_granted(x.granted);
                   },
                   [&](const raft::append_request& x) {
                       auto* a = p.mutable_append_request();
                       a->set_prev_index(x.prev_index);
                       a->set_prev_term(x.prev_term);
                       a->set_commit(x.commit);
                       for (const auto& e : x.entries) *a->add_entries() = to_proto(e);
                   },
                   [&](const raft::append_response& x) {
                       auto* a = p.mutable_append_response();
                       a->set_accepted(x.accepted);
                       a->set_index(x.index);
                       a->set_hint_index(x.hint_index);
                       a->set_hint_term(x.hint_term);
                   },
                   [&](const raft::snapshot_request& x) {
                       auto* s = p.mutable_snapshot();
                       s->set_index(x.state.index);
                       s->set_term(x.state.term);
                       *s->mutable_members() = to_proto(x.state.members);
                       s->set_data(std::string(core::as_text(x.state.data)));
                   },
                   [&](const raft::campaign_request&) { p.mutable_campaign_request(); },
                   [&](const raft::greeting&) { p.mutable_greeting(); },
               },
               m.body);
    return p;
}

core::result<raft::message> from(const wire::Raft& p) {
    raft::message m;
    LONGHAUL_TRY_ASSIGN(m.generation, digest_from(p.generation(), "a generation"));
    m.term = p.term();
    m.own = from(p.own());
    m.seen = from(p.seen());
    LONGHAUL_TRY_ASSIGN(m.body, body_from(p));
    LONGHAUL_TRY(raft::check(m));
    return m;
}

}  // namespace longhaul::peers
