// Any messages, from anybody, to a server in any of its roles: it refuses or follows, keeps what it committed, and
// never asks for a write that does not follow on its disk.
#include "peers/raft.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;
namespace raft = longhaul::peers::raft;

namespace {

raft::voter_id id_of(unsigned n) {
    raft::voter_id id;
    id.bytes[0] = static_cast<std::byte>(n);
    return id;
}

/// Small numbers mostly, and now and then one that no cluster reaches.
std::uint64_t number(fuzz_input& in) {
    const std::uint64_t n = in.byte();
    return n < 250 ? n % 12 : raft::max_number - 254 + n;
}

raft::configuration members(fuzz_input& in) {
    raft::configuration c;
    const unsigned voters = in.byte(), learners = in.byte();
    for (unsigned n = 0; n < 8; ++n) {
        if ((voters >> n) & 1) c.voters.push_back(id_of(n));
        if ((learners >> n) & 1) c.learners.push_back(id_of(n));
    }
    return c;
}

raft::message message_from(fuzz_input& in) {
    raft::message m;
    m.term = number(in);
    switch (in.byte() % 7) {
        case 0: m.body = raft::vote_request{number(in), number(in), (in.byte() & 1) != 0, (in.byte() & 1) != 0}; break;
        case 1: m.body = raft::vote_response{(in.byte() & 1) != 0, (in.byte() & 1) != 0}; break;
        case 2: {
            raft::append_request a{number(in), number(in), number(in), {}};
            for (unsigned n = in.byte() % 4; n > 0; --n) {
                raft::entry e;
                e.term = number(in);
                e.kind = static_cast<raft::entry_kind>(in.byte() % 4);
                if (e.kind == raft::entry_kind::membership) e.members = members(in);
                if (e.kind == raft::entry_kind::record) e.data.resize(in.byte());
                a.entries.push_back(std::move(e));
            }
            m.body = std::move(a);
            break;
        }
        case 3: m.body = raft::append_response{(in.byte() & 1) != 0, number(in), number(in), number(in)}; break;
        case 4: m.body = raft::snapshot_request{{number(in), number(in), members(in), core::byte_vector(3)}}; break;
        case 5: m.body = raft::greeting{}; break;
        default: m.body = raft::campaign_request{}; break;
    }
    m.own = {number(in), number(in), number(in)};
    m.seen = {number(in), number(in), number(in)};
    return m;
}

}  // namespace

FUZZ_TARGET(raft_step) {
    fuzz_input in(data, size);
    raft::durable_state disk;
    disk.base.members.voters = {id_of(1), id_of(2), id_of(3)};
    raft::options o;
    o.self = id_of(1);
    core::time_point now{};
    raft::server s(o, disk, now);
    std::uint64_t unreported = 0;
    while (!in.empty()) {
        const auto commit = s.commit(), term = s.term();
        raft::event e = raft::tick{};
        switch (in.byte() % 8) {
            case 0: now = std::max(now, s.wake_at()); break;
            case 1: e = raft::propose{core::byte_vector(in.byte())}; break;
            case 2: e = raft::change{static_cast<raft::change::kind>(in.byte() % 4), {id_of(in.byte() % 8)}}; break;
            case 3: e = raft::compact{number(in), core::byte_vector(2)}; break;
            case 4: e = raft::transfer{id_of(in.byte() % 8)}; break;
            case 5: e = raft::durable{unreported}; break;
            default: e = raft::received{id_of(in.byte() % 8), message_from(in)}; break;
        }
        const auto a = s.step(now, std::move(e));
        FUZZ_CHECK(s.commit() >= commit && s.term() >= term);
        FUZZ_CHECK(s.applied() <= s.commit() && s.commit() <= s.log().last_index());
        if (!a) continue;
        for (const auto& out : a->send) FUZZ_CHECK(raft::check(out.what).has_value());
        if (!a->write) continue;
        FUZZ_CHECK(raft::apply(disk, *a->write).has_value());
        unreported = a->write->number;
    }
}
