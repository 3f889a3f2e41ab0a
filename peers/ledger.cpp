#include "peers/ledger.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "peers/wire_convert.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;

namespace {

/// A snapshot travels as one control message. What bounds it: addresses of a peer (wire_convert.cpp), max_members, and
/// the contributions of all recent commits together.
constexpr std::size_t max_snapshot_bytes = 1 << 20;
constexpr std::size_t recent_contributions = 4096;
constexpr std::size_t fewest_recent_commits = 4;  // as many as peers retain large aggregates of

/// Both sorted.
bool subset(const std::vector<peer_number>& some, const std::vector<peer_number>& all) {
    return std::ranges::includes(all, some);
}

}  // namespace

ledger ledger::founded_by(const net::peer_key& founder, std::uint64_t generation) {
    ledger l;
    l.generation_ = generation;
    l.voters_.voters.push_back(founder);
    return l;
}

ledger ledger::in_branch(std::uint64_t generation, const net::peer_key& orderer, const state_index& state) const {
    ledger l = *this;
    l.index_ = 0;
    l.dissolved_into_.reset();
    l.dissolved_by_ = {};
    l.voters_ = {};
    l.voters_.voters.push_back(orderer);
    l.go_on_from({generation, state.round, state.position, state.tokens, state.root, {}});
    return l;
}

bool ledger::apply(const record& r) {
    ++index_;
    if (dissolved_into_ && !std::holds_alternative<voters_record>(r)) return false;
    return std::visit([this](const auto& x) { return apply_one(x); }, r);
}

const ledger_member* ledger::find(const net::peer_key& key) const {
    for (const auto& [number, m] : members_) {
        if (m.admitted.key == key) return &m;
    }
    return nullptr;
}

const ledger_member* ledger::find(peer_number number) const {
    const auto it = members_.find(number);
    return it == members_.end() ? nullptr : &it->second;
}

const committed_round* ledger::commit_of(std::uint64_t round) const {
    for (const auto& c : recent_) {
        if (c.commit.round == round) return &c;
    }
    return nullptr;
}

bool ledger::descends_from(const state_index& s) const {
    if (s.generation == generation_) {
        const auto* next = commit_of(s.round + 1);
        return s.round <= committed_ && (next == nullptr || next->commit.state_root == s.root);
    }
    // A later generation may have gone back behind the beginning of the one before.
    auto newest = std::numeric_limits<std::uint64_t>::max();
    for (auto o = origins_.rbegin(); o != origins_.rend(); ++o) {
        newest = std::min(newest, o->round);
        if (o->parent == s.generation) return s.round <= newest;
    }
    return false;
}

bool ledger::apply_one(const admit_record& r) {
    if (const auto* known = find(r.key)) {
        if (known->revoked || known->admitted.number != r.number) return false;
        auto& m = members_[r.number];
        m.admitted = r;
        m.present = true;
        return true;
    }
    if (r.number != next_number_ || r.number > max_members) return false;
    ++next_number_;
    members_[r.number].admitted = r;
    return true;
}

bool ledger::apply_one(const depart_record& r) {
    const auto it = members_.find(r.number);
    if (it == members_.end()) return false;
    it->second.present = false;
    it->second.revoked = it->second.revoked || r.revoked;
    return true;
}

bool ledger::apply_one(const round_record& r) {
    const std::uint32_t next_attempt = open_ ? open_->attempt + 1 : 1;
    if (r.round != committed_ + 1 || r.attempt != next_attempt || r.position != position_) return false;
    const auto known = [this](peer_number n) { return members_.contains(n); };
    if (!std::ranges::all_of(r.members, known) || !std::ranges::all_of(r.contributors, known)) return false;
    // All attempts of a round train the same steps under the same plan, and none sums anybody whom the one before had
    // left out: payloads are immutable until settled, and who was left out may have begun something else.
    if (!subset(r.contributors, open_ ? open_->contributors : r.members)) return false;
    if (open_ && (open_->plan != r.plan || open_->own_steps != r.own_steps)) return false;
    // Nor are payloads cut anew: a shard may get another owner, never another size.
    const auto as_large = [](const shard_share& a, const shard_share& b) { return a.chunks == b.chunks; };
    if (open_ && !std::ranges::equal(open_->exchange.shards, r.exchange.shards, as_large)) return false;
    open_ = r;
    // Only what is committed can have been evaluated: a greater number would silence all later ones.
    if (r.eval_round > eval_round_ && r.eval_round <= committed_) {
        eval_round_ = r.eval_round;
        eval_loss_ = r.eval_loss;
    }
    return true;
}

bool ledger::apply_one(const commit_record& r) {
    if (!open_ || r.round != open_->round || r.attempt != open_->attempt) return false;
    // I6: exactly the contributors of the attempt are summed, in its order.
    const auto same = [](const contribution& c, peer_number n) { return c.number == n; };
    if (!std::ranges::equal(r.contributions, open_->contributors, same)) return false;
    for (const auto& c : r.contributions) {
        tokens_ += c.tokens;
        members_[c.number].last_accepted = accepted_payload{generation_, r.round, c.payload};
    }
    most_tokens_ = std::max(most_tokens_, tokens_);
    position_ += open_->plan.inner_steps;
    committed_ = r.round;
    recent_.push_back(committed_round{r, open_->plan, static_cast<std::uint32_t>(open_->members.size())});
    open_.reset();
    std::size_t kept = 0;
    for (const auto& c : recent_) kept += c.commit.contributions.size();
    while (recent_.size() > recent_commits || (kept > recent_contributions && recent_.size() > fewest_recent_commits)) {
        kept -= recent_.front().commit.contributions.size();
        recent_.pop_front();
    }
    return true;
}

bool ledger::apply_one(const generation_record& r) {
    const bool next = r.generation == generation_ + 1 && branch_of(r.generation) == branch_of(generation_);
    if (!next || r.round > committed_) return false;
    go_on_from(r);
    return true;
}

void ledger::go_on_from(const generation_record& r) {
    origins_.push_back({r.generation, generation_, r.round, r.tokens});
    if (origins_.size() > max_origins) origins_.erase(origins_.begin());
    generation_ = r.generation;
    committed_ = r.round;
    position_ = r.position;
    tokens_ = r.tokens;
    most_tokens_ = std::max(most_tokens_, tokens_);
    generation_root_ = r.state_root;
    open_.reset();
    recent_.clear();
    // What was accepted after the round that survives is lost with it; its authors must not take it for applied.
    for (auto& [number, m] : members_) {
        if (m.last_accepted && m.last_accepted->round > r.round) m.last_accepted.reset();
    }
    if (eval_round_ > committed_) eval_round_ = 0;
}

bool ledger::apply_one(const run_state_record& r) {
    phase_ = r.state;
    return true;
}

bool ledger::apply_one(const voters_record& r) {
    voters_ = r.who;
    return true;
}

bool ledger::apply_one(const dissolved_record& r) {
    if (branch_of(r.into) == branch_of(generation_)) return false;
    dissolved_into_ = r.into;
    dissolved_by_ = r.by;
    open_.reset();
    return true;
}

core::byte_vector ledger::snapshot() const {
    wire::LedgerSnapshot p;
    p.set_index(index_);
    p.set_generation(generation_);
    p.set_committed(committed_);
    p.set_position(position_);
    p.set_tokens(tokens_);
    p.set_state_root(text_of(generation_root_));
    p.set_run_state(static_cast<std::uint32_t>(phase_));
    p.set_next_number(next_number_);
    for (const auto& [number, m] : members_) {
        auto* e = p.add_members();
        *e->mutable_admit() = to_proto(m.admitted);
        e->set_present(m.present);
        e->set_revoked(m.revoked);
        if (m.last_accepted) {
            e->mutable_accepted()->set_generation(m.last_accepted->generation);
            e->mutable_accepted()->set_round(m.last_accepted->round);
            e->mutable_accepted()->set_payload(text_of(m.last_accepted->payload));
        }
    }
    if (open_) *p.mutable_open() = to_proto(*open_);
    for (const auto& c : recent_) {
        auto* e = p.add_recent();
        *e->mutable_commit() = to_proto(c.commit);
        *e->mutable_plan() = to_proto(c.plan);
        e->set_members(c.members);
    }
    p.set_eval_round(eval_round_);
    p.set_eval_loss(eval_loss_);
    p.set_dissolved_into(dissolved_into_.value_or(0));
    if (dissolved_into_) p.set_dissolved_by(text_of(dissolved_by_));
    p.set_most_tokens(most_tokens_);
    for (const auto& o : origins_) {
        auto* e = p.add_origins();
        e->set_generation(o.generation);
        e->set_parent(o.parent);
        e->set_round(o.round);
        e->set_tokens(o.tokens);
    }
    if (!voters_.voters.empty()) *p.mutable_voters() = to_proto(voters_);
    return to_bytes(p);
}

core::result<ledger> ledger::from_snapshot(core::const_bytes bytes) {
    LONGHAUL_TRY_ASSIGN(auto p, proto_from<wire::LedgerSnapshot>(bytes, max_snapshot_bytes, "ledger snapshot"));
    ledger l;
    l.index_ = p.index();
    l.generation_ = p.generation();
    l.committed_ = p.committed();
    l.position_ = p.position();
    l.tokens_ = p.tokens();
    LONGHAUL_TRY_ASSIGN(l.generation_root_, digest_from(p.state_root(), "a state's root"));
    if (p.run_state() > 2) return fail(errc::malformed, "run state {}", p.run_state());
    l.phase_ = static_cast<run_phase>(p.run_state());
    l.next_number_ = p.next_number();
    l.eval_round_ = p.eval_round();
    l.eval_loss_ = p.eval_loss();
    if (p.dissolved_into() != 0) {
        l.dissolved_into_ = p.dissolved_into();
        LONGHAUL_TRY_ASSIGN(l.dissolved_by_, digest_from(p.dissolved_by(), "who dissolved a log"));
    }
    l.most_tokens_ = std::max(p.most_tokens(), l.tokens_);
    if (p.has_voters()) {
        LONGHAUL_TRY_ASSIGN(l.voters_, configuration_from(p.voters()));
        LONGHAUL_TRY(raft::check(l.voters_));
    }
    if (l.generation_ == 0 || l.next_number_ == 0 || l.next_number_ > max_members + 1 ||
        p.members_size() != static_cast<int>(l.next_number_ - 1) ||
        p.recent_size() > static_cast<int>(recent_commits) || l.eval_round_ > l.committed_ ||
        !std::isfinite(l.eval_loss_)) {
        return fail(errc::malformed, "a ledger snapshot has a field out of range");
    }
    if (p.origins_size() > static_cast<int>(max_origins)) {
        return fail(errc::malformed, "a ledger snapshot knows {} generations", p.origins_size());
    }
    for (const auto& o : p.origins()) l.origins_.push_back({o.generation(), o.parent(), o.round(), o.tokens()});
    std::set<net::peer_key> keys;
    for (const auto& e : p.members()) {
        ledger_member m;
        LONGHAUL_TRY_ASSIGN(m.admitted, from(e.admit()));
        m.present = e.present();
        m.revoked = e.revoked();
        if (e.has_accepted()) {
            accepted_payload a;
            a.generation = e.accepted().generation();
            a.round = e.accepted().round();
            LONGHAUL_TRY_ASSIGN(a.payload, digest_from(e.accepted().payload(), "a payload's hash"));
            if (a.generation > l.generation_ || a.round > l.committed_) {
                return fail(errc::malformed, "a ledger snapshot accepts a payload of round {}", a.round);
            }
            m.last_accepted = a;
        }
        const auto number = m.admitted.number;
        // Numbers are given in turn: exactly those below the next one exist.
        if (number >= l.next_number_ || !keys.insert(m.admitted.key).second ||
            !l.members_.emplace(number, std::move(m)).second) {
            return fail(errc::malformed, "a ledger snapshot cannot have this peer {}", number);
        }
    }
    if (p.has_open()) {
        LONGHAUL_TRY_ASSIGN(auto open, from(p.open()));
        const auto known = [&l](peer_number n) { return l.members_.contains(n); };
        if (open.round != l.committed_ + 1 || open.position != l.position_ ||
            !std::ranges::all_of(open.members, known) || !std::ranges::all_of(open.contributors, known)) {
            return fail(errc::malformed, "a ledger snapshot cannot have this open round {}", open.round);
        }
        l.open_ = std::move(open);
    }
    for (const auto& c : p.recent()) {
        committed_round done;
        LONGHAUL_TRY_ASSIGN(done.commit, from(c.commit()));
        LONGHAUL_TRY_ASSIGN(done.plan, from(c.plan()));
        done.members = c.members();
        l.recent_.push_back(std::move(done));
    }
    // The last rounds without a gap, ending with the committed one.
    std::uint64_t expected = l.committed_ - l.recent_.size();
    for (const auto& c : l.recent_) {
        if (l.recent_.size() > l.committed_ || c.commit.round != ++expected) {
            return fail(errc::malformed, "a ledger snapshot cannot have this commit of round {}", c.commit.round);
        }
    }
    return l;
}

}  // namespace longhaul::peers
