#include "net/transfers.hpp"

#include <algorithm>
#include <cmath>

namespace longhaul::net {

using core::errc;
using core::fail;
using core::ok;
using core::result;

core::byte_vector segment::encode() const {
    core::byte_writer w;
    w.u64(transfer).u64(offset).u32(length);
    return w.take();
}

result<segment> segment::parse(core::const_bytes payload) {
    core::byte_reader r(payload);
    segment s;
    const auto id = r.u64(), at = r.u64();
    const auto length = r.u32();
    if (!r.end() || !length) return fail(errc::protocol, "a segment header has {} bytes", payload.size());
    s.transfer = *id;
    s.offset = *at;
    s.length = *length;
    if (s.transfer == 0 || s.length == 0 || s.length > segment_bytes || s.offset % segment_bytes != 0 ||
        s.offset >= max_transfer_bytes) {
        return fail(errc::protocol, "transfer {} has no segment of {} bytes at {}", s.transfer, s.length, s.offset);
    }
    return s;
}

// ---- sending

segment outgoing_transfer::piece(std::uint64_t index) const {
    segment s;
    s.transfer = id;
    s.offset = index * segment_bytes;
    s.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(segment_bytes, data->size() - s.offset));
    return s;
}

result<std::shared_ptr<outgoing_transfer>> outgoing_transfers::offer(std::string tag,
                                                                     std::shared_ptr<const core::byte_vector> data,
                                                                     std::shared_ptr<const std::uint64_t> ready,
                                                                     transfer_priority priority) {
    if (tag.empty() || tag.size() > max_transfer_tag) {
        return fail(errc::limit, "a transfer's tag has {} bytes, not 1 to {}", tag.size(), max_transfer_tag);
    }
    if (data->size() > max_transfer_bytes) {
        return fail(errc::limit, "a transfer of {} bytes exceeds {}", data->size(), max_transfer_bytes);
    }
    if (open_.size() >= max_open_transfers) return fail(errc::limit, "{} transfers are open already", open_.size());
    if (find(tag)) return fail(errc::usage, "a transfer with this tag is open already");
    auto t = std::make_shared<outgoing_transfer>(++last_id_, std::move(tag), std::move(data), std::move(ready),
                                                 priority, executor_);
    t->where.assign(segments_of(t->data->size()), outgoing_transfer::place::to_send);
    t->given.assign(t->where.size(), false);
    open_.emplace(t->id, t);
    return t;
}

std::shared_ptr<outgoing_transfer> outgoing_transfers::find(const std::string& tag) const {
    for (const auto& [id, t] : open_) {
        if (t->tag == tag) return t;
    }
    return nullptr;
}

std::size_t outgoing_transfers::active() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        open_, [](const auto& t) { return t.second->accepted && t.second->confirmed_bytes < t.second->sendable(); }));
}

std::uint64_t outgoing_transfers::offered_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [id, t] : open_) sum += t->accepted ? t->data->size() : 0;
    return sum;
}

std::uint64_t outgoing_transfers::awaited_bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [id, t] : open_) sum += t->accepted && t->credit > 0 && t->sendable() == 0 ? t->data->size() : 0;
    return sum;
}

void outgoing_transfers::fail_all(const core::error& why) {
    while (!open_.empty()) end(*open_.begin()->second, fail(why));
}

void outgoing_transfers::end(outgoing_transfer& t, result<void> outcome) {
    t.outcome = std::move(outcome);
    t.changed.notify();
    withdraw(t.id);
}

void outgoing_transfers::withdraw(std::uint64_t id) {
    const auto it = open_.find(id);
    if (it == open_.end()) return;
    auto& t = *it->second;
    for (const auto& [index, number] : t.in_flight) {
        leave(flights_.at(number));
        flights_.erase(number);
    }
    t.in_flight.clear();
    open_.erase(it);
}

/// nullptr: it is over.
result<std::shared_ptr<outgoing_transfer>> outgoing_transfers::find(std::uint64_t id) const {
    if (id > last_id_) return fail(errc::protocol, "transfer {} was never offered", id);
    const auto it = open_.find(id);
    return it == open_.end() ? nullptr : it->second;
}

result<void> outgoing_transfers::on(const wire::transfer_accept& m) {
    LONGHAUL_TRY_ASSIGN(const auto t, find(m.id));
    if (!t) return ok();
    if (m.credit > t->data->size()) {
        return fail(errc::protocol, "transfer {} of {} bytes got credit for {}", m.id, t->data->size(), m.credit);
    }
    t->accepted = true;
    t->credit = std::max(t->credit, m.credit);
    return ok();
}

result<void> outgoing_transfers::refuse(std::uint64_t id, std::string why) {
    LONGHAUL_TRY_ASSIGN(const auto t, find(id));
    if (t) end(*t, fail(errc::not_admitted, "{}", why));
    return ok();
}

result<void> outgoing_transfers::on(const wire::transfer_refuse& m) {
    return refuse(m.id, fmt::format("the receiver refused the transfer: {}", m.reason));
}

result<void> outgoing_transfers::on(const wire::transfer_abandon& m) {
    return refuse(m.id, "the receiver abandoned the transfer");
}

void outgoing_transfers::confirm(outgoing_transfer& t, std::uint64_t index, core::time_point now) {
    auto& place = t.where[index];
    if (place == outgoing_transfer::place::confirmed) return;
    // What the receiver held before says nothing about the link.
    (t.given[index] ? confirmed_bytes_ : t.skipped) += t.piece(index).length;
    place = outgoing_transfer::place::confirmed;
    t.confirmed_bytes += t.piece(index).length;
    const auto carried = t.in_flight.find(index);
    if (carried == t.in_flight.end()) return;
    const auto it = flights_.find(carried->second);
    const auto& f = it->second;
    leave(f);
    // Of a segment on two connections nobody knows which one delivered it.
    if (!f.resent) {
        segment_time_.add(now - f.given);
        auto& by = carriers_[f.carrier];
        by.overtook = std::max(by.overtook, f.given);
    }
    flights_.erase(it);
    t.in_flight.erase(carried);
}

/// The connections of a flight carry it no more.
void outgoing_transfers::leave(const flight& f) {
    for (const auto number : {f.carrier, f.second}) {
        if (const auto it = carriers_.find(number); it != carriers_.end() && it->second.carries > 0) {
            --it->second.carries;
        }
    }
}

result<void> outgoing_transfers::on(const wire::transfer_progress& m, core::time_point now) {
    LONGHAUL_TRY_ASSIGN(const auto t, find(m.id));
    if (!t) return ok();
    if (!t->accepted) return fail(errc::protocol, "transfer {} was confirmed before it was accepted", m.id);
    for (const auto& [first, count] : m.ranges) {
        if (first >= t->where.size() || count > t->where.size() - first) {
            return fail(errc::protocol, "transfer {} has no segments {} to {}", m.id, first, first + count - 1);
        }
        for (auto i = first; i < first + count; ++i) confirm(*t, i, now);
    }
    return ok();
}

result<void> outgoing_transfers::on(const wire::transfer_done& m, core::time_point now) {
    LONGHAUL_TRY_ASSIGN(const auto t, find(m.id));
    if (!t) return ok();
    if (!t->accepted) return fail(errc::protocol, "transfer {} was confirmed before it was accepted", m.id);
    for (std::uint64_t i = 0; i < t->where.size(); ++i) confirm(*t, i, now);
    end(*t, ok());
    return ok();
}

void segment_time::add(core::duration taken) {
    const double seconds = std::max(core::to_seconds(taken), 1e-6);
    if (!known()) {
        mean_ = seconds;
        deviation_ = seconds / 2;
        return;
    }
    deviation_ += (std::abs(seconds - mean_) - deviation_) / 4;
    mean_ += (seconds - mean_) / 8;
}

core::duration segment_time::patience() const {
    return core::from_seconds(mean_ + std::max(4 * deviation_, mean_ / 4) + 0.01);
}

bool outgoing_transfers::backlog() const {
    return std::ranges::any_of(open_, [this](const auto& entry) {
        const auto& t = *entry.second;
        if (holding_back_ && t.priority == transfer_priority::state) return false;
        const auto i = t.next_index;
        return i < t.where.size() && std::min<std::uint64_t>((i + 1) * segment_bytes, t.data->size()) <= t.sendable();
    });
}

outgoing_transfers::work outgoing_transfers::give(const std::shared_ptr<outgoing_transfer>& t, std::uint64_t index,
                                                  std::uint32_t number, core::time_point now) {
    t->where[index] = outgoing_transfer::place::in_flight;
    t->given[index] = true;
    if (!t->begun) t->begun = now;
    flight f;
    f.transfer = t;
    f.index = index;
    f.carrier = number;
    f.given = now;
    flights_.emplace(++last_flight_, std::move(f));
    t->in_flight[index] = last_flight_;
    ++carriers_[number].carries;
    const auto what = t->piece(index);
    return {t, what, core::const_bytes(*t->data).subspan(what.offset, what.length)};
}

std::optional<outgoing_transfers::work> outgoing_transfers::fresh(std::uint32_t number, transfer_priority priority,
                                                                  core::time_point now) {
    auto& last = last_served_[static_cast<std::size_t>(priority)];
    auto it = open_.upper_bound(last);
    for (std::size_t looked = 0; looked < open_.size(); ++looked, ++it) {
        if (it == open_.end()) it = open_.begin();
        auto& t = *it->second;
        if (t.priority != priority) continue;
        while (t.next_index < t.where.size() && t.where[t.next_index] != outgoing_transfer::place::to_send) {
            ++t.next_index;
        }
        if (t.next_index == t.where.size()) continue;
        const auto what = t.piece(t.next_index);
        if (what.offset + what.length > t.sendable()) continue;
        if (priority == transfer_priority::state && may_send_state_ && !may_send_state_(what.length)) {
            holding_back_ = true;
            return std::nullopt;
        }
        last = t.id;
        return give(it->second, t.next_index++, number, now);
    }
    return std::nullopt;
}

/// The oldest segment of other connections that was given to them before then, and to one of them only.
std::optional<outgoing_transfers::work> outgoing_transfers::held_up(std::uint32_t number,
                                                                    core::time_point given_before) {
    for (auto& [order, f] : flights_) {
        if (f.given >= given_before) break;
        if (f.resent || f.carrier == number) continue;
        f.resent = true;
        f.second = number;
        ++f.transfer->resent;
        ++carriers_[number].carries;
        const auto what = f.transfer->piece(f.index);
        return work{f.transfer, what, core::const_bytes(*f.transfer->data).subspan(what.offset, what.length)};
    }
    return std::nullopt;
}

std::optional<outgoing_transfers::work> outgoing_transfers::next(std::uint32_t number, core::time_point now) {
    const auto& mine = carriers_[number];
    const bool judges = segment_time_.known();
    const auto patience = segment_time_.patience();
    if (judges && mine.overtook > core::time_point{} + patience) {
        if (auto found = held_up(number, mine.overtook - patience)) return found;
    }
    if (auto found = fresh(number, transfer_priority::payload, now)) return found;
    if (auto found = fresh(number, transfer_priority::state, now)) return found;
    return overdue(number, now);
}

std::optional<outgoing_transfers::work> outgoing_transfers::overdue(std::uint32_t number, core::time_point now) {
    if (!segment_time_.known() || carriers_[number].carries > 0) return std::nullopt;
    return held_up(number, now - segment_time_.patience());
}

std::optional<core::time_point> outgoing_transfers::next_overdue(std::uint32_t number) const {
    const auto mine = carriers_.find(number);
    if (!segment_time_.known() || (mine != carriers_.end() && mine->second.carries > 0)) return std::nullopt;
    for (const auto& [order, f] : flights_) {
        if (!f.resent) return f.given + segment_time_.patience();
    }
    return std::nullopt;
}

void outgoing_transfers::connection_lost(std::uint32_t number) {
    carriers_.erase(number);
    for (auto it = flights_.begin(); it != flights_.end();) {
        auto& f = it->second;
        if (f.carrier == number) f.carrier = std::exchange(f.second, 0);
        if (f.second == number) f.second = 0;
        if (f.carrier != 0) {
            ++it;
            continue;
        }
        f.transfer->where[f.index] = outgoing_transfer::place::to_send;
        f.transfer->next_index = std::min(f.transfer->next_index, f.index);
        f.transfer->in_flight.erase(f.index);
        it = flights_.erase(it);
    }
}

// ---- receiving

std::shared_ptr<incoming_transfer> incoming_transfers::find_id(std::uint64_t id) const {
    const auto it = open_.find(id);
    return it == open_.end() ? nullptr : it->second;
}

std::shared_ptr<incoming_transfer> incoming_transfers::find(const std::string& tag) const {
    const auto it = by_tag_.find(tag);
    return it == by_tag_.end() ? nullptr : find_id(it->second);
}

result<std::shared_ptr<incoming_transfer>> incoming_transfers::on(const wire::transfer_offer& m) {
    if (m.id <= last_id_) return fail(errc::protocol, "transfer {} was offered after transfer {}", m.id, last_id_);
    if (open_.size() >= max_open_transfers) {
        return fail(errc::protocol, "more than {} transfers are open", max_open_transfers);
    }
    if (by_tag_.contains(m.tag)) return fail(errc::protocol, "two open transfers have the same tag");
    last_id_ = m.id;
    auto t = std::make_shared<incoming_transfer>(m.id, m.tag, m.bytes, executor_);
    open_.emplace(t->id, t);
    by_tag_.emplace(t->tag, t->id);
    return t;
}

result<void> incoming_transfers::on(const wire::transfer_withdraw& m) {
    if (m.id > last_id_) return fail(errc::protocol, "transfer {} was never offered", m.id);
    if (const auto t = find_id(m.id)) end(*t, fail(errc::not_found, "the sender withdrew the transfer"));
    return ok();
}

result<std::shared_ptr<incoming_transfer>> incoming_transfers::accept(const std::string& tag,
                                                                      core::mutable_bytes destination,
                                                                      link::arrival_handler on_arrival,
                                                                      const link::held_question& held,
                                                                      std::uint64_t used) {
    auto t = find(tag);
    if (!t) return fail(errc::not_found, "no transfer is offered under this tag");
    if (t->accepted) return fail(errc::usage, "this transfer was accepted already");
    const bool window =
        !destination.empty() && destination.size() < t->bytes && destination.size() % segment_bytes == 0;
    if (destination.size() != t->bytes && !window) {
        return fail(errc::usage, "{} bytes are neither the {} of the transfer nor a window of whole segments",
                    destination.size(), t->bytes);
    }
    t->accepted = true;
    accepted_bytes_ += t->bytes;
    t->destination = destination;
    t->on_arrival = std::move(on_arrival);
    t->have.assign(segments_of(t->bytes), false);
    use_up(*t, used);
    for (auto i = t->used; held && i < t->have.size(); ++i) {
        const auto offset = i * segment_bytes, length = std::min<std::uint64_t>(segment_bytes, t->bytes - offset);
        if (!held(offset, length)) continue;
        t->skipped += length;
        take(*t, i, length);
    }
    if (t->begun()) ++active_;
    if (t->arrived == t->have.size()) end(*t, ok());
    return t;
}

void incoming_transfers::end(incoming_transfer& t, result<void> outcome) {
    t.outcome = std::move(outcome);
    t.changed.notify();
    forget(t.id);
}

void incoming_transfers::forget(std::uint64_t id) {
    const auto t = find_id(id);
    if (!t) return;
    if (!t->unreported.empty()) --unreported_;
    if (t->begun()) --active_;
    t->destination = {};
    t->on_arrival = {};
    by_tag_.erase(t->tag);
    open_.erase(id);
}

void incoming_transfers::fail_all(const core::error& why) {
    while (!open_.empty()) end(*open_.begin()->second, fail(why));
}

result<bool> incoming_transfers::begin(const segment& s) const {
    if (s.transfer > last_id_) return fail(errc::protocol, "transfer {} was never offered", s.transfer);
    const auto t = find_id(s.transfer);
    if (!t) return false;
    if (!t->accepted) return fail(errc::protocol, "bytes of transfer {} came before it was accepted", s.transfer);
    if (s.offset >= t->bytes || s.length != std::min<std::uint64_t>(segment_bytes, t->bytes - s.offset)) {
        return fail(errc::protocol, "transfer {} of {} bytes has no segment of {} bytes at {}", s.transfer, t->bytes,
                    s.length, s.offset);
    }
    if (s.offset + s.length > t->credit) {
        return fail(errc::protocol, "bytes of transfer {} came at {} against credit for {}", s.transfer, s.offset,
                    t->credit);
    }
    return !t->have[s.index()];
}

core::mutable_bytes incoming_transfers::place(const segment& s, std::uint32_t at, std::size_t n) const {
    const auto t = find_id(s.transfer);
    if (!t || t->have[s.index()]) return {};
    return t->destination.subspan(s.offset % t->destination.size() + at, n);
}

void incoming_transfers::verified(std::uint32_t number, const segment& s, std::size_t n, core::time_point now) {
    const auto t = find_id(s.transfer);
    if (!t) return;
    if (!t->begun()) ++active_;
    if (!t->begun_at) t->begun_at = now;
    auto& part = t->partial[number];
    if (part.index != s.index()) part = {s.index(), 0};
    part.bytes += n;
}

/// Segments before `used` count as arrived: nothing is written to their places any more.
void incoming_transfers::use_up(incoming_transfer& t, std::uint64_t used) {
    for (; (t.used + 1) * segment_bytes <= used; ++t.used) {
        if (t.have[t.used]) continue;
        std::erase_if(t.partial, [&t](const auto& p) { return p.second.index == t.used; });
        t.skipped += segment_bytes;
        take(t, t.used, segment_bytes);
    }
    // By whole segments: one that is used in part may still come, and lies where the last, shorter one would.
    t.credit = std::max(t.credit, std::min(t.bytes, t.used * segment_bytes + t.destination.size()));
}

std::optional<wire::transfer_accept> incoming_transfers::make_room(const std::string& tag, std::uint64_t used) {
    const auto t = find(tag);
    if (!t || !t->accepted || used >= t->bytes) return std::nullopt;
    const auto before = t->credit;
    const bool begun = t->begun();
    use_up(*t, used);
    if (!begun && t->begun()) ++active_;
    const wire::transfer_accept more{t->id, t->credit};
    if (t->arrived == t->have.size()) end(*t, ok());
    if (more.credit == before) return std::nullopt;
    return more;
}

std::uint64_t incoming_transfer::verified() const {
    std::map<std::uint64_t, std::uint64_t> most;
    for (const auto& [number, part] : partial) most[part.index] = std::max(most[part.index], part.bytes);
    auto sum = received;
    for (const auto& [index, n] : most) sum += n;
    return sum;
}

/// A whole segment is here, to be reported.
void incoming_transfers::take(incoming_transfer& t, std::uint64_t index, std::uint64_t length) {
    t.have[index] = true;
    t.received += length;
    ++t.arrived;
    if (t.unreported.empty()) ++unreported_;
    if (!t.unreported.empty() && t.unreported.back().first + t.unreported.back().second == index) {
        ++t.unreported.back().second;
    } else {
        t.unreported.emplace_back(index, 1);
    }
}

std::shared_ptr<incoming_transfer> incoming_transfers::finish(const segment& s) {
    auto t = find_id(s.transfer);
    if (!t) return nullptr;
    if (t->have[s.index()]) return nullptr;  // the other connection's finish has dropped this one's part
    std::erase_if(t->partial, [&s](const auto& p) { return p.second.index == s.index(); });
    take(*t, s.index(), s.length);
    // A copy: the handler may end the transfer.
    if (const auto arrived = t->on_arrival) arrived(s.offset, s.length);
    if (!find_id(t->id)) return nullptr;
    if (t->arrived < t->have.size()) return nullptr;
    end(*t, ok());
    return t;
}

void incoming_transfers::connection_lost(std::uint32_t number) {
    for (const auto& [id, t] : open_) {
        if (t->partial.erase(number) > 0 && !t->begun()) --active_;
    }
}

std::optional<wire::transfer_progress> incoming_transfers::report() {
    for (const auto& [id, t] : open_) {
        if (t->unreported.empty()) continue;
        wire::transfer_progress m;
        m.id = id;
        std::ranges::sort(t->unreported);  // segments that were sent twice come out of order
        const auto n = std::min(t->unreported.size(), wire::max_progress_ranges);
        const auto end = t->unreported.begin() + static_cast<std::ptrdiff_t>(n);
        m.ranges.assign(t->unreported.begin(), end);
        t->unreported.erase(t->unreported.begin(), end);
        if (t->unreported.empty()) --unreported_;
        return m;
    }
    return std::nullopt;
}

}  // namespace longhaul::net
