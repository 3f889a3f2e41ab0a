#include "net/wire.hpp"

#include "net/link.hpp"
#include "net/printable.hpp"
#include "net/wire.pb.h"

namespace longhaul::net::wire {

using core::errc;
using core::fail;
using core::result;

namespace {

/// Segments of the largest transfer: no index can reach it.
constexpr std::uint64_t max_segments = max_transfer_bytes / 1024;

result<std::uint64_t> checked_id(std::uint64_t id) {
    if (id == 0) return fail(errc::protocol, "a transfer message has the id 0");
    return id;
}

result<std::string> checked_reason(const std::string& text) {
    if (text.size() > max_reason)
        return fail(errc::protocol, "a reason of {} bytes exceeds {}", text.size(), max_reason);
    return to_printable_utf8(text, max_reason);
}

template <typename Message>
result<control> only_id(const Message& m, auto empty) {
    LONGHAUL_TRY_ASSIGN(empty.id, checked_id(m.id()));
    return control(empty);
}

result<control> checked(const TransferOffer& m) {
    transfer_offer out;
    LONGHAUL_TRY_ASSIGN(out.id, checked_id(m.id()));
    if (m.tag().empty() || m.tag().size() > max_transfer_tag) {
        return fail(errc::protocol, "a transfer's tag has {} bytes, not 1 to {}", m.tag().size(), max_transfer_tag);
    }
    if (m.bytes() > max_transfer_bytes) {
        return fail(errc::protocol, "a transfer of {} bytes exceeds {}", m.bytes(), max_transfer_bytes);
    }
    out.tag = m.tag();
    out.bytes = m.bytes();
    return control(std::move(out));
}

result<control> checked(const TransferAccept& m) {
    transfer_accept out;
    LONGHAUL_TRY_ASSIGN(out.id, checked_id(m.id()));
    if (m.credit() > max_transfer_bytes) {
        return fail(errc::protocol, "a credit of {} bytes exceeds {}", m.credit(), max_transfer_bytes);
    }
    out.credit = m.credit();
    return control(out);
}

result<control> checked(const TransferRefuse& m) {
    transfer_refuse out;
    LONGHAUL_TRY_ASSIGN(out.id, checked_id(m.id()));
    LONGHAUL_TRY_ASSIGN(out.reason, checked_reason(m.reason()));
    return control(std::move(out));
}

result<control> checked(const TransferProgress& m) {
    transfer_progress out;
    LONGHAUL_TRY_ASSIGN(out.id, checked_id(m.id()));
    const auto n = static_cast<std::size_t>(m.ranges_size());
    if (n == 0 || n % 2 != 0 || n / 2 > max_progress_ranges) {
        return fail(errc::protocol, "a transfer's progress has {} numbers instead of 1 to {} pairs", n,
                    max_progress_ranges);
    }
    for (int i = 0; i + 1 < m.ranges_size(); i += 2) {
        const auto first = m.ranges(i), count = m.ranges(i + 1);
        if (count == 0 || count > max_segments || first > max_segments - count) {
            return fail(errc::protocol, "a transfer's progress names {} segments from {} on", count, first);
        }
        if (!out.ranges.empty() && first < out.ranges.back().first + out.ranges.back().second) {
            return fail(errc::protocol, "the ranges of a transfer's progress are not in order");
        }
        out.ranges.emplace_back(first, count);
    }
    return control(std::move(out));
}

result<control> checked(const StreamsWanted& m) {
    if (m.count() == 0 || m.count() > max_streams) {
        return fail(errc::protocol, "{} bulk connections are asked for, not 1 to {}", m.count(), max_streams);
    }
    return control(streams_wanted{m.count()});
}

result<control> checked(const Control& m) {
    switch (m.body_case()) {
        case Control::kHeartbeat: return control(heartbeat{m.heartbeat().sequence()});
        case Control::kHeartbeatEcho:
            return control(heartbeat_echo{m.heartbeat_echo().sequence(), m.heartbeat_echo().heard_us()});
        case Control::kTransferOffer: return checked(m.transfer_offer());
        case Control::kTransferAccept: return checked(m.transfer_accept());
        case Control::kTransferRefuse: return checked(m.transfer_refuse());
        case Control::kTransferProgress: return checked(m.transfer_progress());
        case Control::kTransferDone: return only_id(m.transfer_done(), transfer_done{});
        case Control::kTransferAbandon: return only_id(m.transfer_abandon(), transfer_abandon{});
        case Control::kTransferWithdraw: return only_id(m.transfer_withdraw(), transfer_withdraw{});
        case Control::kStreamsWanted: return checked(m.streams_wanted());
        case Control::BODY_NOT_SET: break;
    }
    return fail(errc::protocol, "a link message has no body that this version knows");
}

struct filler {
    Control& out;
    void operator()(const heartbeat& m) const { out.mutable_heartbeat()->set_sequence(m.sequence); }
    void operator()(const heartbeat_echo& m) const {
        auto& e = *out.mutable_heartbeat_echo();
        e.set_sequence(m.sequence);
        e.set_heard_us(m.heard_us);
    }
    void operator()(const transfer_offer& m) const {
        auto& t = *out.mutable_transfer_offer();
        t.set_id(m.id);
        t.set_tag(m.tag);
        t.set_bytes(m.bytes);
    }
    void operator()(const transfer_accept& m) const {
        out.mutable_transfer_accept()->set_id(m.id);
        out.mutable_transfer_accept()->set_credit(m.credit);
    }
    void operator()(const transfer_refuse& m) const {
        out.mutable_transfer_refuse()->set_id(m.id);
        out.mutable_transfer_refuse()->set_reason(to_printable_utf8(m.reason, max_reason));
    }
    void operator()(const transfer_progress& m) const {
        auto& t = *out.mutable_transfer_progress();
        t.set_id(m.id);
        for (const auto& [first, count] : m.ranges) {
            t.add_ranges(first);
            t.add_ranges(count);
        }
    }
    void operator()(const transfer_done& m) const { out.mutable_transfer_done()->set_id(m.id); }
    void operator()(const transfer_abandon& m) const { out.mutable_transfer_abandon()->set_id(m.id); }
    void operator()(const transfer_withdraw& m) const { out.mutable_transfer_withdraw()->set_id(m.id); }
    void operator()(const streams_wanted& m) const { out.mutable_streams_wanted()->set_count(m.count); }
};

}  // namespace

core::byte_vector serialize(const control& message) {
    Control out;
    std::visit(filler{out}, message);
    core::byte_vector bytes(out.ByteSizeLong());
    const bool fits =
        bytes.size() <= max_control_bytes && out.SerializeToArray(bytes.data(), static_cast<int>(bytes.size()));
    LONGHAUL_ENSURE(fits, "a link message exceeds its limit");
    return bytes;
}

result<control> parse_control(core::const_bytes bytes) {
    if (bytes.size() > max_control_bytes) {
        return fail(errc::protocol, "a link message of {} bytes exceeds {}", bytes.size(), max_control_bytes);
    }
    Control in;
    if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
        return fail(errc::protocol, "a link message of {} bytes does not parse", bytes.size());
    }
    return checked(in);
}

}  // namespace longhaul::net::wire
