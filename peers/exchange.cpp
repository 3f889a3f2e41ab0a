#include "peers/exchange.hpp"

#include <algorithm>

#include "net/transfers.hpp"
#include "optim/time_model.hpp"
#include "peers/exchange_impl.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

namespace {

/// Without a byte for so long, an aggregate is rather fetched from somebody who has it.
constexpr auto worth_waiting = 1s;

std::pair<std::uint64_t, std::uint64_t> round_of(const exchange_terms& t) { return {t.generation, t.round}; }
std::pair<std::uint64_t, std::uint64_t> round_of(const stream_name& s) { return {s.generation, s.round}; }

/// Whether anybody passes on what `source` sends. In most plans nobody does, and there is no tree to be made.
bool is_relayed(const exchange_plan& plan, peer_number source) {
    return std::ranges::any_of(plan.relays, [source](const auto& r) { return r.source == source; });
}

}  // namespace

std::uint32_t chunks_of(const exchange_terms& t, std::uint64_t elements) {
    const auto codec = compress::find_codec(t.codec);
    return codec ? chunk_grid::of(elements, **codec).count() : 0;
}

chunk_range range_of(const exchange_plan& plan, std::uint32_t shard, std::uint32_t chunks) {
    if (plan.shards.empty()) return {0, chunks};
    std::uint64_t first = 0;
    for (std::uint32_t i = 0; i < shard; ++i) first += plan.shards[i].chunks;
    chunk_range r;
    r.first = static_cast<std::uint32_t>(std::min<std::uint64_t>(first, chunks));
    const bool last = shard + 1 == plan.shards.size();
    r.count = last ? chunks - r.first : std::min(plan.shards[shard].chunks, chunks - r.first);
    return r;
}

std::uint64_t window_bytes(std::uint64_t largest_frame, std::uint32_t chunks) {
    constexpr std::uint64_t unit = net::segment_bytes;
    return (largest_frame * chunks + unit - 1) / unit * unit + unit;
}

std::map<peer_number, peer_number> tree_of(const exchange_plan& plan, peer_number source,
                                           std::span<const peer_number> wanted) {
    std::map<peer_number, peer_number> via;
    for (const auto& r : plan.relays) {
        if (r.source == source) via[r.to] = r.via;
    }
    const auto from = [&](peer_number to) {
        const auto it = via.find(to);
        return it == via.end() ? source : it->second;
    };
    std::map<peer_number, peer_number> tree;
    for (const auto to : wanted) {
        if (to == source) continue;
        std::vector<peer_number> way{to};
        while (way.back() != source && way.size() <= via.size() + 1) way.push_back(from(way.back()));
        if (way.back() != source) {
            tree[to] = source;
            continue;
        }
        for (std::size_t i = 0; i + 1 < way.size(); ++i) tree.try_emplace(way[i], way[i + 1]);
    }
    return tree;
}

exchange::exchange(exchange_host& host) : host_(host), moved_(host.env().executor) {}

// ---- which streams there are

std::span<const peer_number> exchange::receivers_of(const exchange_terms& t, const stream_name& name) const {
    if (round_of(name) != round_of(t) || name.step >= t.exchanges || name.shard >= shards_of(t.plan)) return {};
    if (range_of(t.plan, name.shard, chunks_of(t, host_.tensors(t.round).elements())).count == 0) return {};
    const bool sharded = !t.plan.shards.empty();
    if (name.kind == stream_kind::contribution) {
        if (name.attempt != 0 || !has(t.contributors, name.author)) return {};
        if (sharded) return {&t.plan.shards[name.shard].owner, 1};
        return t.members;
    }
    const bool owners = sharded && name.attempt == t.attempt && name.author == t.plan.shards[name.shard].owner;
    if (!owners) return {};
    return t.members;
}

std::optional<peer_number> exchange::sender_of(const exchange_terms& t, const stream_name& name) const {
    const auto wanted = receivers_of(t, name);
    if (!is_relayed(t.plan, name.author)) {
        const bool mine = name.author != host_.self() && has(wanted, host_.self());
        return mine ? std::optional(name.author) : std::nullopt;
    }
    const auto tree = tree_of(t.plan, name.author, wanted);
    const auto it = tree.find(host_.self());
    return it == tree.end() ? std::nullopt : std::optional(it->second);
}

std::vector<peer_number> exchange::takers_of(const stream_name& name) const {
    const auto wanted = receivers_of(terms_, name);
    std::vector<peer_number> out;
    if (!is_relayed(terms_.plan, name.author)) {
        if (name.author == host_.self()) std::ranges::copy(wanted, std::back_inserter(out));
        std::erase(out, host_.self());
        return out;
    }
    for (const auto& [to, from] : tree_of(terms_.plan, name.author, wanted)) {
        if (from == host_.self()) out.push_back(to);
    }
    return out;
}

bool exchange::needed(const stream& s) const {
    if (s.dropped) return false;
    if (round_of(s.name) == round_of(terms_)) return sender_of(terms_, s.name).has_value();
    // A round that is settled without us is worth finishing as long as we lack its sum.
    return previous_ && !previous_->over && !previous_->result && sender_of(previous_->terms, s.name).has_value();
}

std::uint32_t exchange::window_of(const exchange_terms& t, const stream_name& name) const {
    if (t.plan.shards.empty() || name.kind != stream_kind::contribution || name.author == host_.self()) return 0;
    const auto& s = t.plan.shards[name.shard];
    return s.owner == host_.self() ? s.window : 0;
}

exchange::shared_stream exchange::make_stream(const exchange_terms& t, const stream_name& name) {
    auto s = std::make_shared<stream>(host_.env().executor);
    const auto codec = compress::find_codec(t.codec);
    LONGHAUL_ENSURE(codec, "terms without a codec have no streams");
    s->name = name;
    s->codec = (*codec)->wire_id();
    const auto chunks = range_of(t.plan, name.shard, chunks_of(t, host_.tensors(t.round).elements()));
    const auto table = name.kind == stream_kind::reduced ? t.contributors.size() * table_line : 0;
    s->layout = stream_layout::of(host_.tensors(t.round), **codec, chunks.first, chunks.count, table);
    const auto& l = s->layout;
    auto bytes = l.total();
    if (const auto window = window_of(t, name); window > 0) bytes = std::min(bytes, window_bytes(l.largest(), window));
    s->bytes = std::make_shared<core::byte_vector>(bytes);
    if (s->is_window()) s->joined.resize(l.frames());
    s->arrived.assign(l.frames(), 0);
    s->verified.assign(l.frames(), 0);
    s->hashes.resize(l.frames());
    streams_[name] = s;
    return s;
}

exchange::shared_stream exchange::find(const stream_name& name) const {
    const auto it = streams_.find(name);
    return it == streams_.end() ? nullptr : it->second;
}

void exchange::forget(const shared_stream& s) {
    s->dropped = true;
    s->to_look.notify();
    for (const auto& c : s->to_others) {
        if (const auto link = c.link.lock()) link->withdraw_transfer(c.tag);
    }
    if (const auto link = s->from.link.lock()) link->abandon_transfer(s->from.tag);
    if (find(s->name) == s) {
        streams_.erase(s->name);
        // What was checked binds its author; what was not may have been anybody's.
        auto& known = former_[s->name];
        known.resize(s->layout.frames());
        for (std::uint32_t f = 0; f < s->layout.frames(); ++f) {
            if (s->verified[f]) known[f] = s->hashes[f];
        }
    }
    moved_.notify();
}

exchange::shared_stream exchange::take_broken(const stream& s) {
    const auto it = broken_.find(s.name);
    if (it == broken_.end()) return nullptr;
    auto before = std::move(it->second);
    broken_.erase(it);
    return before->layout == s.layout ? before : nullptr;
}

std::vector<exchange::shared_stream> exchange::own_streams(std::optional<std::uint32_t> step) const {
    std::vector<shared_stream> out;
    for (const auto& [name, s] : streams_) {
        const bool mine = name.kind == stream_kind::contribution && name.author == host_.self();
        const bool now = round_of(name) == round_of(terms_) && name.step == step.value_or(name.step);
        if (mine && now) out.push_back(s);
    }
    return out;
}

// ---- rounds

void exchange::open(exchange_terms terms) {
    if (terms == terms_) return;
    const auto codec = compress::find_codec(terms.codec);
    const bool sharded = !terms.plan.shards.empty();
    if (!codec || (sharded && (!(*codec)->fits_sums() || terms.exchanges > 1))) {
        host_.report(core::error(errc::config, fmt::format("sums cannot be sent in the codec {}", terms.codec)),
                     "opening an exchange");
        return;
    }
    std::vector<shared_stream> useless;
    const bool fresh = round_of(terms) != round_of(terms_);
    if (fresh) {
        for (const auto& [name, s] : streams_) {
            if (round_of(name) != round_of(terms_)) useless.push_back(s);
        }
        if (previous_) previous_->over = true;
        previous_ = std::exchange(current_, nullptr);
        refused_.clear();
        arrived_bytes_ = arrived_from_afar_ = 0;
        up_ = down_ = rate_of_exchange(terms.exchanges > 1);
        means_from_.reset();
        here_.clear();
    } else {
        for (const auto& [name, s] : streams_) {
            const bool old = name.kind == stream_kind::reduced && round_of(name) == round_of(terms);
            if (old && name.attempt < terms.attempt) useless.push_back(s);
        }
        for (const auto& [name, s] : streams_) {
            const bool again = round_of(name) == round_of(terms) && name.kind == stream_kind::contribution;
            if (!again || terms_.plan.shards.empty() || terms_.plan.shards[name.shard].window == 0) continue;
            // What was summed is gone at its owner: all of it is sent again.
            if (window_of(terms_, name) > 0) useless.push_back(s);
            s->pushing.clear();
        }
        std::erase_if(broken_, [this](const auto& b) { return window_of(terms_, b.first) > 0; });
        if (current_) current_->over = true;
    }
    for (const auto& s : useless) forget(s);
    if (fresh) former_.clear();
    means_.clear();
    terms_ = std::move(terms);
    if (fresh) neighbours_ = neighbours();
    start_attempt();
    // What was arriving for an attempt that is over may be of no use any more.
    useless.clear();
    for (const auto& [name, s] : streams_) {
        if (!s->own && !s->complete && !needed(*s)) useless.push_back(s);
    }
    for (const auto& s : useless) forget(s);
    std::erase_if(broken_, [this](const auto& b) { return !sender_of(terms_, b.first); });
    push_all();
    moved_.notify();
}

void exchange::prepare(std::uint32_t step) {
    if (!has(terms_.contributors, host_.self())) return;
    stream_name name;
    name.generation = terms_.generation;
    name.round = terms_.round;
    name.author = host_.self();
    // An offer takes a round trip to be answered, and so does a result. But nobody keeps too many offers.
    constexpr std::uint32_t most_ahead = 32;
    const auto last = std::min(terms_.exchanges - 1, step + std::min(terms_.staleness + 1, most_ahead));
    for (name.step = step; name.step <= last; ++name.step) {
        for (name.shard = 0; name.shard < shards_of(terms_.plan); ++name.shard) {
            if (receivers_of(terms_, name).empty() || find(name)) continue;
            const auto s = make_stream(terms_, name);
            s->own = true;
            push_to_takers(s);
        }
    }
}

void exchange::withdraw() {
    for (const auto& s : own_streams()) {
        if (s->prefix == 0) forget(s);
    }
}

exchange::verdict exchange::consider(const std::shared_ptr<net::link>& from, peer_number sender, const std::string& tag,
                                     std::uint64_t bytes) {
    const auto refuse = [&](std::string why) {
        from->refuse_transfer(tag, std::move(why));
        return verdict::refused;
    };
    const auto offer = parse_stream_tag(tag);
    if (!offer) return refuse("nobody asked for it");
    const auto& name = offer->name;
    const auto when = round_of(name);
    if (when > round_of(terms_) || (when == round_of(terms_) && offer->attempt > terms_.attempt)) return verdict::later;
    if (when != round_of(terms_)) return refuse("that round is settled");
    if (refused_.contains(name)) return refuse("it was refused before");
    if (sender_of(terms_, name) != sender) return refuse("not yours to send here");
    if (const auto present = find(name)) {
        if (present->complete) return refuse("already here");
        return verdict::later;  // over an older link, whose end is about to be noticed
    }
    if (!from->up()) return verdict::later;  // over the next link
    const auto s = make_stream(terms_, name);
    auto before = take_broken(*s);
    if (s->layout.total() != bytes) {
        const core::error lie(errc::protocol, fmt::format("{} bytes instead of {}", bytes, s->layout.total()));
        const auto what = fmt::format("a stream of peer {}, offered by peer {}", name.author, sender);
        forget(s);
        from->refuse_transfer(tag, "it has not the size that it must have");
        // What was offered under another attempt's plan proves nothing.
        if (offer->attempt == terms_.attempt) {
            host_.caught(from->remote().key, lie, what);
        } else {
            host_.report(lie, what);
        }
        return verdict::refused;
    }
    ++receiving_;
    watch();
    run_isolated(receive(s, std::move(before), from, tag, sender));
    run_isolated(check(s, from->remote().key, sender));
    push_to_takers(s);  // for whom this node helps
    return verdict::taken;
}

// ---- what is known

void exchange::want_means(std::optional<std::uint32_t> from) {
    means_from_ = from;
    std::erase_if(means_, [from](const auto& m) { return !from || m.first < *from; });
}

bool exchange::has_mean(std::uint32_t step) const { return means_.contains(step); }

std::shared_ptr<const core::flat_buffer> exchange::take_mean(std::uint32_t step) {
    const auto it = means_.find(step);
    if (it == means_.end()) return nullptr;
    auto mean = std::move(it->second);
    want_means(step + 1);
    return mean;
}

shared_aggregate exchange::result(std::uint64_t generation, std::uint64_t round, std::uint32_t attempt) const {
    for (const auto& a : {current_, previous_}) {
        if (!a || a->terms.attempt != attempt) continue;
        if (a->terms.generation == generation && a->terms.round == round) return a->result;
    }
    return nullptr;
}

bool exchange::arriving(std::uint64_t generation, std::uint64_t round) const {
    for (const auto& a : {current_, previous_}) {
        if (!a || a->over || a->result || round_of(a->terms) != std::pair(generation, round)) continue;
        return host_.env().clock.now() - last_arrival_ < worth_waiting;
    }
    return false;
}

bool exchange::is_here(peer_number author, std::uint32_t step) const {
    stream_name name;
    name.generation = terms_.generation;
    name.round = terms_.round;
    name.step = step;
    name.author = author;
    bool any = false, all = true;
    for (name.shard = 0; name.shard < shards_of(terms_.plan); ++name.shard) {
        const auto wanted = receivers_of(terms_, name);
        if (!has(wanted, host_.self()) && author != host_.self()) continue;
        const auto s = find(name);
        any = true;
        all = all && (wanted.empty() || (s && s->complete));
    }
    return any && all;
}

std::uint32_t exchange::exchanges_of(peer_number author) const {
    auto& known = here_[author];
    // Of a round with one exchange an owner may lose again what was here.
    if (terms_.exchanges == 1) known = 0;
    while (known < terms_.exchanges && is_here(author, known)) ++known;
    return known;
}

std::vector<peer_number> exchange::authors() const {
    std::vector<peer_number> out;
    for (const auto c : terms_.contributors)
        if (exchanges_of(c) == terms_.exchanges) out.push_back(c);
    return out;
}

std::vector<peer_number> exchange::behind() const {
    std::vector<peer_number> out;
    if (terms_.exchanges == 1) return out;
    std::uint32_t most = 0;
    for (const auto c : terms_.contributors) most = std::max(most, exchanges_of(c));
    for (const auto c : terms_.contributors)
        if (exchanges_of(c) < most) out.push_back(c);
    return out;
}

std::uint64_t exchange::held_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [name, s] : streams_) {
        sum += s->bytes->size();
        for (const auto& j : s->joined) sum += j.size();
    }
    return sum;
}

rate_of_exchange exchange::sent() const {
    auto so_far = up_;
    so_far.look(host_.env().clock.now(), delivered_bytes());
    return so_far;
}

std::uint64_t exchange::delivered_bytes() const {
    std::uint64_t sum = 0;
    for (const auto who : terms_.members) {
        if (const auto link = host_.link_of(who); link && !neighbours_.contains(who)) sum += link->delivered_bytes();
    }
    return sum;
}

std::set<peer_number> exchange::neighbours() const {
    std::vector<double> rtts;
    for (const auto who : terms_.members) {
        const auto link = host_.link_of(who);
        rtts.push_back(link ? core::to_seconds(link->stats().rtt_min) : 0);
    }
    const auto inside = optim::inside_site(rtts);
    std::set<peer_number> out;
    for (std::size_t i = 0; i < inside.size(); ++i) {
        if (inside[i]) out.insert(terms_.members[i]);
    }
    return out;
}

/// A queue stands before the line of this node itself: on the way to most members, not to a slow one among them.
bool exchange::queue_stands() const {
    std::ptrdiff_t linked = 0, queueing = 0;
    for (const auto who : terms_.members) {
        const auto link = host_.link_of(who);
        if (!link || neighbours_.contains(who)) continue;
        ++linked;
        queueing += link->queueing() ? 1 : 0;
    }
    return 2 * queueing > linked;
}

void exchange::watch() {
    if (!std::exchange(watching_, true)) run_isolated(watch_line());
}

/// Looks at the line while this node gives streams to others or receives them.
core::task<core::result<void>> exchange::watch_line() {
    const auto giving = [](const auto& entry) { return !entry.second->to_others.empty(); };
    while (receiving_ > 0 || std::ranges::any_of(streams_, giving)) {
        const auto now = host_.env().clock.now();
        const auto delivered = delivered_bytes();
        up_.look(now, delivered);
        const bool queue = queue_stands(), uploads = uploading();
        up_.look_at_queue(now, delivered, queue && uploads);
        // While it gives, the queue may be that of the other way.
        down_.look_at_queue(now, arrived_from_afar_, queue && !uploads && receiving_ > 0);
        auto slept = co_await host_.env().clock.sleep_for(rate_of_exchange::interval);
        if (!slept) break;
    }
    watching_ = false;
    co_return core::ok();
}

bool exchange::uploading() const {
    return std::ranges::any_of(
        streams_, [](const auto& entry) { return !entry.second->to_others.empty() && entry.second->prefix > 0; });
}

rate_of_exchange exchange::received() const {
    auto so_far = down_;
    so_far.look(host_.env().clock.now(), arrived_from_afar_);
    return so_far;
}

void exchange::retain(shared_aggregate a) {
    if (find_aggregate(a->generation, a->round)) return;
    auto at = aggregates_.end();
    const auto later = [&a](const auto& b) { return b->generation == a->generation && b->round > a->round; };
    while (at != aggregates_.begin() && later(*std::prev(at))) --at;
    aggregates_.insert(at, std::move(a));
    if (aggregates_.size() > retained_aggregates(host_.most_elements())) aggregates_.pop_front();
}

shared_aggregate exchange::find_aggregate(std::uint64_t generation, std::uint64_t round) const {
    for (const auto& a : aggregates_) {
        if (a->generation == generation && a->round == round) return a;
    }
    return nullptr;
}

}  // namespace longhaul::peers
