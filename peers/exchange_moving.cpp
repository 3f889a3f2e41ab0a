/// Streams on their way: offering, passing on, receiving and checking.

#include <algorithm>
#include <cmath>

#include "core/hash.hpp"
#include "optim/aggregate.hpp"
#include "peers/exchange_impl.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using namespace std::chrono_literals;

void exchange::push_all() {
    // A push runs at once, up to its first wait.
    std::vector<shared_stream> all;
    for (const auto& [name, s] : streams_) all.push_back(s);
    for (const auto& s : all) push_to_takers(s);
}

void exchange::push_to_takers(const shared_stream& s) {
    if (s->dropped) return;
    for (const auto to : takers_of(s->name)) {
        if (s->pushing.try_emplace(to, terms_.attempt).second) run_isolated(push(s, to, terms_.attempt));
    }
}

/// Gives one peer a stream as it becomes ready, again over each new link, until it has it or nobody wants it any more.
core::task<core::result<void>> exchange::push(shared_stream s, peer_number to, std::uint32_t attempt) {
    // Under another attempt it may be sent once more.
    const auto wanted = [&] {
        const auto it = s->pushing.find(to);
        return !s->dropped && it != s->pushing.end() && it->second == attempt;
    };
    while (wanted()) {
        if (auto link = host_.link_of(to); link && link->up()) {
            const auto tag = tag_of(s->name, attempt);
            s->to_others.push_back({link, tag});
            auto sending = link->send_transfer(tag, s->bytes, s->ready);
            auto sent = co_await std::move(sending);
            std::erase_if(s->to_others, [&link](const auto& c) { return c.link.expired() || c.link.lock() == link; });
            const bool mine = s->name.kind == stream_kind::contribution && s->name.author == host_.self();
            if (sent && mine) delivered_at_ = host_.env().clock.now();
            if (sent || sent.error().code == errc::cancelled) co_return sent;
            if (sent.error().code == errc::not_admitted) {
                // It has it from elsewhere, or needs it no more; under another plan it may be offered again.
                if (wanted()) s->pushing.erase(to);
                co_return core::ok();
            }
            if (sent.error().code != errc::closed && sent.error().code != errc::usage) co_return sent;
        }
        auto woken = co_await host_.changed().wait();
        LONGHAUL_CO_TRY(woken);
    }
    co_return core::ok();
}

core::task<core::result<void>> exchange::receive(shared_stream s, shared_stream before, std::shared_ptr<net::link> from,
                                                 std::string tag, peer_number sender) {
    const bool from_afar = !neighbours_.contains(sender);
    net::link::arrival_handler told = [this, s, from_afar](std::uint64_t at, std::uint64_t n) {
        arrived(*s, at, n, from_afar);
    };
    net::link::held_question held;
    const auto memory = s->bytes;  // until the link writes no more
    if (s->is_window()) {
        // What was summed is not needed again, and the rest of a window is not much.
        if (before) {
            s->work = before->work;
            use_up(*s, before->used);
        }
    } else if (before) {
        held = [this, s, before](std::uint64_t at, std::uint64_t n) { return take_over(*s, *before, at, n); };
    }
    before.reset();
    s->from = {from, tag};
    auto receiving = from->receive_transfer(tag, *memory, told, std::exchange(held, {}),
                                            s->is_window() ? s->layout.offset(s->used) : 0);
    auto received = co_await std::move(receiving);
    s->from = {};
    --receiving_;
    if (received) co_return core::ok();  // `check` goes on with what it has
    const auto code = received.error().code;
    if (!s->complete) {
        const bool comes_again = !s->dropped && sender_of(terms_, s->name);
        forget(s);
        if (comes_again && code == errc::closed) broken_[s->name] = s;
    }
    host_.reconsider();
    host_.changed().notify();
    // A lost link is told once, by its own event; the stream comes again over the next one.
    if (code == errc::closed || code == errc::not_found) co_return core::ok();
    co_return received;
}

/// Whether these bytes lie in frames that were verified before the link broke; then they are copied, and a frame of
/// which all is here needs no other check. The rest of a frame at the edge comes again, and is checked with it.
bool exchange::take_over(stream& s, const stream& before, std::uint64_t offset, std::uint64_t bytes) {
    const auto end = offset + bytes;
    const auto& l = s.layout;
    const auto first = l.frame_at(offset);
    for (auto f = first; f < l.frames() && l.offset(f) < end; ++f) {
        if (before.verified[f] == 0) return false;
    }
    const auto from = std::span(*before.bytes).subspan(offset, bytes);
    std::ranges::copy(from, s.bytes->begin() + static_cast<std::ptrdiff_t>(offset));
    s.work = before.work;
    for (auto f = first; f < l.frames() && l.offset(f) < end; ++f) {
        const auto begin = l.offset(f), size = s.frame(f).size();
        s.arrived[f] += std::min(end, begin + size) - std::max(offset, begin);
        if (s.arrived[f] != size) continue;
        s.hashes[f] = before.hashes[f];
        if (f + 1 == l.frames()) s.root = before.root;
        verified(s, f, 1);
    }
    return true;
}

/// The first frames of a window are summed: others may take their place. Those that came over an earlier link need not
/// come again.
void exchange::use_up(stream& s, std::uint32_t frames) {
    if (!s.is_window() || frames <= s.used) return;
    for (auto f = std::exchange(s.used, frames); f < frames; ++f) {
        if (s.verified[f]) continue;
        s.hashes[f] = former_[s.name][f];
        if (std::ranges::count(s.verified, 0) == 1 && !root_fits(s)) {
            refused_.insert(s.name);
            const auto liar = s.author;
            const auto what = fmt::format("the payload of peer {} for round {}", s.name.author, s.name.round);
            if (const auto same = find(s.name)) forget(same);
            host_.caught(liar, core::error(errc::protocol, "its root is not that of its chunks"), what);
            return;
        }
        verified(s, f, 1);
    }
    make_room(s);
}

void exchange::make_room(stream& s) {
    if (!s.is_window()) return;
    const auto gone = std::min(s.used, s.in_check.value_or(s.used));
    for (; s.freed < gone; ++s.freed) s.joined[s.freed] = {};
    if (gone == s.layout.frames()) s.bytes = std::make_shared<core::byte_vector>();
    if (const auto link = s.from.link.lock()) link->make_room(s.from.tag, s.layout.offset(gone));
}

/// A frame that the end of the window cuts in two is put together.
void exchange::stream::join(std::uint32_t f) {
    if (!is_window()) return;
    const auto size = layout.offset(f + 1) - layout.offset(f), at = layout.offset(f) % bytes->size();
    if (at + size <= bytes->size()) return;
    const auto head = core::const_bytes(*bytes).subspan(at);
    const auto rest = core::const_bytes(*bytes).first(size - head.size());
    joined[f].assign(head.begin(), head.end());
    joined[f].insert(joined[f].end(), rest.begin(), rest.end());
}

void exchange::arrived(stream& s, std::uint64_t offset, std::uint64_t bytes, bool from_afar) {
    const auto end = offset + bytes;
    for (auto f = s.layout.frame_at(offset); f < s.layout.frames() && s.layout.offset(f) < end; ++f) {
        if (s.verified[f]) continue;  // the end of one that came over an earlier link
        const auto begin = s.layout.offset(f), size = s.layout.offset(f + 1) - begin;
        s.arrived[f] += std::min(end, begin + size) - std::max(offset, begin);
        if (s.arrived[f] != size) continue;
        s.join(f);
        s.to_check.push_back(f);
    }
    arrived_bytes_ += bytes;
    last_arrival_ = host_.env().clock.now();
    if (from_afar) {
        arrived_from_afar_ += bytes;
        down_.begin(last_arrival_, arrived_from_afar_);
        down_.look(last_arrival_, arrived_from_afar_);
    }
    make_room(s);  // it may not have been accepted yet when room was made
    if (!s.to_check.empty()) s.to_look.notify();
}

namespace {

/// What a job found out about a frame.
struct checked_frame {
    std::uint32_t frame = 0;
    core::result<chunk_header> header = fail(errc::internal, "nothing was checked");
    core::result<void> sound = core::ok();  ///< its data
};

}  // namespace

/// Checks each frame as it is complete; ends with the stream.
core::task<core::result<void>> exchange::check(shared_stream s, net::peer_key from, peer_number sender) {
    const auto author = s->name.author;
    const auto codec = compress::find_codec(terms_.codec);
    LONGHAUL_ENSURE(codec, "a stream has a codec");
    // As it was when the stream was taken: a node that goes over to another log knows other peers by these numbers.
    const auto* known = host_.key_of(author);
    if (known == nullptr) {
        forget(s);
        co_return core::ok();
    }
    const auto key = s->author = *known;
    while (!s->dropped && !s->complete) {
        if (s->to_check.empty()) {
            auto woken = co_await s->to_look.wait();
            LONGHAUL_CO_TRY(woken);
            continue;
        }
        std::vector<checked_frame> frames;
        for (const auto f : std::exchange(s->to_check, {})) {
            if (s->verified[f]) continue;
            frames.emplace_back().frame = f;
            s->in_check = std::min(f, s->in_check.value_or(f));
        }
        std::function<void()> job = [&] {
            for (auto& c : frames) {
                c.header = open_chunk(s->frame(c.frame), key);
                if (!c.header || c.frame >= s->layout.count()) continue;
                const auto range = range_of_chunk(host_.tensors(s->name.round), **codec, s->layout.first() + c.frame);
                c.sound = (*codec)->check(range, s->data(c.frame));
            }
        };
        auto ran = co_await host_.env().workers.run(std::move(job), 0s);
        LONGHAUL_CO_TRY(ran);
        s->in_check.reset();
        make_room(*s);
        if (s->dropped) break;
        for (const auto& c : frames) {
            if (s->verified[c.frame]) continue;  // summed meanwhile, from an earlier link
            core::result<void> right = core::ok();
            if (!c.header) {
                right = fail(c.header.error());
            } else if (!belongs(*s, c.frame, *c.header)) {
                right = fail(errc::protocol, "it was signed for another run, stream or place");
            }
            // What its author did not sign for this place is the word of whoever sent it.
            const auto liar = right ? key : from;
            if (right) right = c.sound;
            if (right) right = admit(*s, c.frame, *c.header);
            if (right) {
                verified(*s, c.frame, 1);
                continue;
            }
            // What an author signed is refused from everybody, and a helper that had another version is not to blame.
            if (liar == key) refused_.insert(s->name);
            forget(s);
            host_.caught(liar, right.error(),
                         fmt::format("chunk {} of peer {} for round {}, sent by peer {}", s->layout.first() + c.frame,
                                     author, s->name.round, sender));
            co_return core::ok();
        }
    }
    co_return core::ok();
}

bool exchange::root_fits(const stream& s) const {
    chunk_header any;
    any.run = host_.run();
    any.stream = s.name;
    any.codec = s.codec;
    any.work = s.work.value_or(work_done{});
    return root_of_stream(any, s.hashes) == s.root;
}

/// Whether a frame was signed for this place.
bool exchange::belongs(const stream& s, std::uint32_t frame, const chunk_header& h) const {
    const bool last = frame + 1 == s.layout.frames();
    return h.run == host_.run() && h.stream == s.name && h.index == s.layout.first() + frame && h.codec == s.codec &&
           h.root.is_zero() != last;
}

/// Takes a frame that was signed for this place, if it fits to what else its author signed.
core::result<void> exchange::admit(stream& s, std::uint32_t frame, const chunk_header& h) {
    const bool last = frame + 1 == s.layout.frames();
    const bool contributes = s.name.kind == stream_kind::contribution;
    // What a contributor claims of a round is what it claims of its exchanges together.
    constexpr double largest_loss = 1e100;
    const auto& claimed = h.work;
    const bool several = terms_.exchanges > 1;
    const auto most_tokens = optim::max_contribution_tokens / terms_.exchanges;
    if (contributes && (claimed.steps > terms_.max_steps / terms_.exchanges || claimed.tokens > most_tokens ||
                        (several && std::abs(claimed.loss) > largest_loss))) {
        return fail(errc::protocol, "it claims {} inner steps of {} tokens with a loss of {}", claimed.steps,
                    claimed.tokens, claimed.loss);
    }
    const auto two = [&h] { return fail(errc::protocol, "peer {} signed two versions", h.stream.author); };
    if (s.work && *s.work != h.work) return two();
    if (const auto before = former_.find(s.name); before != former_.end() && frame < before->second.size()) {
        const auto& hash = before->second[frame];
        if (!hash.is_zero() && hash != h.hash) return two();
    }
    s.work = h.work;
    s.hashes[frame] = h.hash;
    if (last) s.root = h.root;
    const auto others = std::ranges::count(s.verified, 0);
    if (others == 1 && !root_fits(s)) return fail(errc::protocol, "its root is not that of its chunks");
    return core::ok();
}

void exchange::verified(stream& s, std::uint32_t first, std::uint32_t count) {
    for (auto f = first; f < first + count; ++f) s.verified[f] = 1;
    while (s.prefix < s.layout.frames() && s.verified[s.prefix] != 0) ++s.prefix;
    *s.ready = s.layout.offset(s.prefix);
    if (!s.to_others.empty()) {
        if (!up_.begun()) up_.begin(host_.env().clock.now(), delivered_bytes());
        watch();
    }
    for (const auto& c : s.to_others) {
        if (const auto link = c.link.lock()) link->data_ready();
    }
    moved_.notify();
    if (s.prefix < s.layout.frames()) return;
    s.complete = true;
    host_.changed().notify();
}

}  // namespace longhaul::peers
