#include "peers/raft_message.hpp"

#include <algorithm>

namespace longhaul::peers::raft {

using core::errc;
using core::fail;

namespace {

constexpr std::size_t entry_overhead = 16;

template <typename... F>
struct by_kind : F... {
    using F::operator()...;
};

bool strictly_sorted(const std::vector<voter_id>& ids) {
    return std::ranges::adjacent_find(ids, std::greater_equal{}) == ids.end();
}

core::result<void> number(std::uint64_t n, const char* what) {
    if (n > max_number) return fail(errc::protocol, "a voter's message has the impossible {} {}", what, n);
    return core::ok();
}

core::result<void> check(const entry& e) {
    switch (e.kind) {
        case entry_kind::barrier:
            if (!e.data.empty() || e.members != configuration{}) {
                return fail(errc::protocol, "a barrier entry of the log has content");
            }
            return core::ok();
        case entry_kind::record:
            if (e.data.size() > max_entry_bytes) {
                return fail(errc::protocol, "a log entry of {} bytes exceeds {}", e.data.size(), max_entry_bytes);
            }
            if (e.members != configuration{}) return fail(errc::protocol, "a record of the log names voters");
            return core::ok();
        case entry_kind::membership:
            if (!e.data.empty()) return fail(errc::protocol, "a change of voters has {} bytes of data", e.data.size());
            return raft::check(e.members);
    }
    return fail(errc::protocol, "a log entry of the unknown kind {}", static_cast<unsigned>(e.kind));
}

core::result<void> check(const append_request& a, std::uint64_t term) {
    LONGHAUL_TRY(number(a.prev_index, "index"));
    LONGHAUL_TRY(number(a.commit, "commit index"));
    if (a.entries.size() > max_append_entries) {
        return fail(errc::protocol, "{} log entries in one message exceed {}", a.entries.size(), max_append_entries);
    }
    if ((a.prev_index == 0) != (a.prev_term == 0)) {
        return fail(errc::protocol, "log entry {} cannot have term {}", a.prev_index, a.prev_term);
    }
    auto last = a.prev_term;
    std::size_t bytes = 0;
    for (const auto& e : a.entries) {
        LONGHAUL_TRY(check(e));
        if (e.term < last || e.term == 0) {
            return fail(errc::protocol, "a log entry of term {} follows one of term {}", e.term, last);
        }
        last = e.term;
        bytes += size_of(e);
    }
    if (last > term) return fail(errc::protocol, "a log entry of term {} comes in term {}", last, term);
    if (a.entries.size() > 1 && bytes > max_append_bytes) {
        return fail(errc::protocol, "{} bytes of log entries in one message exceed {}", bytes, max_append_bytes);
    }
    return core::ok();
}

core::result<void> check(const append_response& a) {
    LONGHAUL_TRY(number(a.index, "index"));
    if (a.accepted && (a.hint_index != 0 || a.hint_term != 0)) {
        return fail(errc::protocol, "a voter accepts log entries and gives a hint what was wrong with them");
    }
    if (a.hint_index > a.index || (a.hint_index == 0) != (a.hint_term == 0)) {
        return fail(errc::protocol, "a voter's hint (entry {}, term {}) cannot follow from entry {}", a.hint_index,
                    a.hint_term, a.index);
    }
    return number(a.hint_term, "term");
}

core::result<void> check(const snapshot_request& s, std::uint64_t term) {
    LONGHAUL_TRY(number(s.state.index, "index"));
    if (s.state.index == 0 || s.state.term == 0 || s.state.term > term) {
        return fail(errc::protocol, "a snapshot of entry {} of term {} comes in term {}", s.state.index, s.state.term,
                    term);
    }
    if (s.state.data.size() > max_snapshot_bytes) {
        return fail(errc::protocol, "a snapshot of {} bytes exceeds {}", s.state.data.size(), max_snapshot_bytes);
    }
    return raft::check(s.state.members);
}

}  // namespace

bool configuration::votes(const voter_id& who) const { return std::ranges::binary_search(voters, who); }

bool configuration::decides_alone(const voter_id& who) const { return voters.size() == 1 && voters.front() == who; }

bool configuration::has(const voter_id& who) const { return votes(who) || std::ranges::binary_search(learners, who); }

core::result<void> check(const configuration& c) {
    if (c.voters.empty()) return fail(errc::protocol, "a configuration of the log has no voters");
    if (c.voters.size() > max_voters || c.learners.size() > max_learners) {
        return fail(errc::protocol, "a configuration of the log has {} voters and {} standbys, more than {} and {}",
                    c.voters.size(), c.learners.size(), max_voters, max_learners);
    }
    if (!strictly_sorted(c.voters) || !strictly_sorted(c.learners)) {
        return fail(errc::protocol, "a configuration of the log is not sorted");
    }
    for (const auto& id : c.learners) {
        if (c.votes(id)) return fail(errc::protocol, "peer {} is a voter and a standby at once", id.brief());
    }
    return core::ok();
}

core::result<void> check(const message& m) {
    LONGHAUL_TRY(number(m.term, "term"));
    for (const auto& mark : {m.own, m.seen}) {
        LONGHAUL_TRY(number(mark.written, "count of writes"));
        if (mark.before > mark.written) return fail(errc::protocol, "{} of {} writes", mark.before, mark.written);
    }
    if (std::holds_alternative<greeting>(m.body)) return core::ok();
    if (m.term == 0) return fail(errc::protocol, "a voter's message has no term");
    return std::visit(by_kind{
                          [&](const vote_request& v) -> core::result<void> {
                              LONGHAUL_TRY(number(v.last_index, "index"));
                              if (v.last_term >= m.term || (v.last_index == 0) != (v.last_term == 0)) {
                                  return fail(errc::protocol,
                                              "a candidate of term {} cannot have entry {} of term {} as its last",
                                              m.term, v.last_index, v.last_term);
                              }
                              if (v.pre && v.handed_over) {
                                  return fail(errc::protocol, "a leader that hands over asks for no trial vote");
                              }
                              return core::ok();
                          },
                          [](const vote_response&) { return core::ok(); },
                          [&](const append_request& a) { return check(a, m.term); },
                          [](const append_response& a) { return check(a); },
                          [&](const snapshot_request& s) { return check(s, m.term); },
                          [](const campaign_request&) { return core::ok(); },
                          [](const greeting&) { return core::ok(); },
                      },
                      m.body);
}

std::size_t size_of(const entry& e) {
    return entry_overhead + e.data.size() + 32 * (e.members.voters.size() + e.members.learners.size());
}

}  // namespace longhaul::peers::raft
