#include "sim/lab/relay.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>

#include "sim/lab/schedule.hpp"
#include "sim/lab/trains.hpp"

namespace longhaul::sim::lab {

namespace {

constexpr core::duration coarseness = std::chrono::microseconds(100);  ///< what is due within it is written together
constexpr core::duration late_limit = std::chrono::milliseconds(1);
constexpr int reads_in_a_row = 64;
constexpr std::size_t largest_read = sizeof(offload_header) + 65'536;

double cpu_seconds() {
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    const auto of = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return of(u.ru_utime) + of(u.ru_stime);
}

/// One read of a device, kept until its last packet has left the emulator.
struct parcel {
    offload_header offload;
    train shape;
    std::uint32_t open = 0;  ///< packets inside the emulator or waiting to be written
    std::uint8_t size_class = 0;
    std::unique_ptr<std::byte[]> bytes;
};

/// Parcels in three sizes, used again.
class parcel_store {
public:
    std::uint32_t take(std::size_t bytes) {
        const auto c = static_cast<std::uint8_t>(bytes <= sizes[0] ? 0 : bytes <= sizes[1] ? 1 : 2);
        auto& idle = idle_[c];
        if (idle.empty()) {
            parcel& p = all_.emplace_back();
            p.size_class = c;
            p.bytes = std::make_unique_for_overwrite<std::byte[]>(sizes[c]);
            return static_cast<std::uint32_t>(all_.size() - 1);
        }
        const auto at = idle.back();
        idle.pop_back();
        return at;
    }
    void done_with_one(std::uint32_t at) {
        if (--all_[at].open == 0) idle_[all_[at].size_class].push_back(at);
    }
    parcel& operator[](std::uint32_t at) { return all_[at]; }

private:
    static constexpr std::array<std::size_t, 3> sizes{2048, 16'384, 65'536};
    std::deque<parcel> all_;
    std::array<std::vector<std::uint32_t>, 3> idle_;
};

/// Packets of one parcel that are due together at one receiver.
struct outgoing {
    std::uint32_t parcel = 0, first = 0, count = 0;
};

class relay final : public packet_sink {
public:
    relay(const topology& t, std::uint64_t seed, const std::vector<machine_space>& machines, int control)
        : topology_(t), machines_(machines), control_(control), emulator_(t, seed, *this), out_(machines.size()) {}

    void run();

    void deliver(const packet& p, virtual_time due) override;
    void drop(const packet& p, drop_reason why) override;

private:
    virtual_time now() const { return real_time() - began_; }
    void read_device(std::uint32_t from);
    void flush(std::uint32_t to);
    void flush_all();
    bool read_control();
    void obey(std::string_view line);
    void answer();
    relay_report report();
    std::uint64_t device_drops() const;

    const topology& topology_;
    const std::vector<machine_space>& machines_;
    int control_;
    virtual_time began_ = real_time();
    emulator emulator_;
    parcel_store parcels_;
    std::vector<outgoing> out_;           // one a receiver
    std::vector<std::uint32_t> waiting_;  // receivers with something in out_
    std::array<std::byte, largest_read> scratch_{};
    std::string commands_;

    relay_report counted_;
    lag_counter lag_;
    double window_began_ = 0, cpu_before_ = 0;
    std::uint64_t drops_before_ = 0;
    std::vector<std::uint64_t> sent_before_;  // of each peer
};

void relay::run() {
    // A wire does not wait for its turn. Both need privileges, and it works without them where the machine is idle.
    const sched_param first{.sched_priority = 1};
    if (::sched_setscheduler(0, SCHED_FIFO, &first) != 0) (void)::setpriority(PRIO_PROCESS, 0, -20);
    ::prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);

    const core::file_descriptor poll(::epoll_create1(EPOLL_CLOEXEC));
    const auto watch = [&poll](int fd, std::uint32_t index) {
        epoll_event e{.events = EPOLLIN, .data = {.u32 = index}};
        return ::epoll_ctl(poll.get(), EPOLL_CTL_ADD, fd, &e) == 0;
    };
    const auto control_index = static_cast<std::uint32_t>(machines_.size());
    bool watched = watch(control_, control_index);
    for (std::uint32_t i = 0; i < machines_.size(); ++i) watched &= watch(machines_[i].tun.get(), i);
    LONGHAUL_ENSURE(watched, "the lab's devices can be watched");

    cpu_before_ = cpu_seconds();
    std::array<epoll_event, 64> ready{};
    virtual_time last_pass{};
    for (;;) {
        const auto next = emulator_.next();
        timespec wait{};
        if (next != never) {
            const auto left = std::max(std::max(next, last_pass + coarseness) - now(), core::duration::zero());
            wait.tv_sec = left / std::chrono::seconds(1);
            wait.tv_nsec = (left % std::chrono::seconds(1)).count();
        }
        const int n = ::epoll_pwait2(poll.get(), ready.data(), static_cast<int>(ready.size()),
                                     next == never ? nullptr : &wait, nullptr);
        last_pass = now();
        emulator_.advance(last_pass);
        for (int i = 0; i < n; ++i) {
            const auto index = ready[static_cast<std::size_t>(i)].data.u32;
            if (index == control_index) {
                if (!read_control()) return;
            } else {
                read_device(index);
            }
        }
        emulator_.advance(now());
        flush_all();
    }
}

void relay::read_device(std::uint32_t from) {
    for (int i = 0; i < reads_in_a_row; ++i) {
        const auto got = ::read(machines_[from].tun.get(), scratch_.data(), scratch_.size());
        if (got <= static_cast<ssize_t>(sizeof(offload_header))) return;
        ++counted_.reads;
        offload_header offload;
        std::memcpy(&offload, scratch_.data(), sizeof offload);
        const core::const_bytes ip(scratch_.data() + sizeof offload, static_cast<std::size_t>(got) - sizeof offload);
        const auto shape = inspect(offload, ip);
        if (!shape) continue;
        const auto addresses = addresses_of(ip);
        const int to = addresses.unicast ? index_of_address(addresses.to, shape->version6) : -1;
        if (to < 0 || to >= static_cast<int>(machines_.size()) || static_cast<std::uint32_t>(to) == from) continue;
        const auto receiver = static_cast<std::uint32_t>(to);
        if (!topology_.peers[receiver].reachable && opens_connection(ip)) {
            ++counted_.dropped_cut;
            continue;
        }
        const auto at = parcels_.take(ip.size());
        parcel& p = parcels_[at];
        p.offload = offload;
        p.shape = *shape;
        p.open = shape->packets;
        std::memcpy(p.bytes.get(), ip.data(), ip.size());
        const auto time = now();
        for (std::uint32_t k = 0; k < shape->packets; ++k) {
            emulator_.submit(time, {from, receiver, shape->packet_bytes(k), std::uint64_t{at} << 32 | k});
        }
    }
}

void relay::deliver(const packet& p, virtual_time due) {
    const auto at = static_cast<std::uint32_t>(p.tag >> 32);
    const auto index = static_cast<std::uint32_t>(p.tag);
    outgoing& o = out_[p.to];
    if (o.count > 0 && (o.parcel != at || o.first + o.count != index)) flush(p.to);
    if (o.count == 0) {
        o = {at, index, 0};
        waiting_.push_back(p.to);
    }
    ++o.count;
    ++counted_.packets;
    counted_.bytes += p.bytes;
    lag_.add(now() - due, 1);
}

void relay::drop(const packet& p, drop_reason why) {
    if (why == drop_reason::queue) ++counted_.dropped_queue;
    if (why == drop_reason::loss) ++counted_.dropped_loss;
    if (why == drop_reason::cut) ++counted_.dropped_cut;
    parcels_.done_with_one(static_cast<std::uint32_t>(p.tag >> 32));
}

void relay::flush(std::uint32_t to) {
    outgoing& o = out_[to];
    if (o.count == 0) return;
    parcel& p = parcels_[o.parcel];
    std::array<std::byte, 128> headers;
    const core::const_bytes ip(p.bytes.get(), p.shape.bytes);
    auto piece = cut_out(p.shape, p.offload, ip, o.first, o.count, headers);
    const std::array<iovec, 3> parts{iovec{&piece.offload, sizeof piece.offload},
                                     iovec{headers.data(), piece.header_bytes},
                                     iovec{p.bytes.get() + piece.payload_offset, piece.payload_bytes}};
    ++counted_.writes;
    if (::writev(machines_[to].tun.get(), parts.data(), static_cast<int>(parts.size())) < 0) {
        counted_.refused += o.count;
    }
    for (std::uint32_t i = 0; i < o.count; ++i) parcels_.done_with_one(o.parcel);
    o.count = 0;
}

void relay::flush_all() {
    for (const auto to : waiting_) flush(to);
    waiting_.clear();
}

bool relay::read_control() {
    std::array<char, 4096> buffer;
    const auto got = ::read(control_, buffer.data(), buffer.size());
    if (got <= 0) {
        answer();
        return false;
    }
    commands_.append(buffer.data(), static_cast<std::size_t>(got));
    for (auto end = commands_.find('\n'); end != std::string::npos; end = commands_.find('\n')) {
        obey(std::string_view(commands_).substr(0, end));
        commands_.erase(0, end + 1);
    }
    return true;
}

void relay::obey(std::string_view line) {
    if (line == "stats") {
        answer();
        return;
    }
    std::array<double, 3> numbers{};
    std::size_t count = 0;
    for (auto space = line.find(' '); space != std::string_view::npos && count < 3;) {
        const auto end = std::min(line.find(' ', space + 1), line.size());
        const auto* last = line.data() + end;
        if (std::from_chars(line.data() + space + 1, last, numbers[count++]).ptr != last) return;
        space = end == line.size() ? std::string_view::npos : end;
    }
    const auto peer = [&](std::size_t i) { return static_cast<std::uint32_t>(numbers[i]); };
    const auto valid = [&](std::size_t i) { return numbers[i] >= 0 && numbers[i] < static_cast<double>(out_.size()); };
    if (line.starts_with("cut ") && count == 3 && valid(0) && valid(1)) {
        emulator_.set_cut(peer(0), peer(1), numbers[2] != 0);
    } else if (line.starts_with("factor ") && count == 2 && valid(0)) {
        emulator_.set_factor(now(), peer(0), numbers[1]);
    }
}

void relay::answer() {
    const auto text = to_json(report()) + "\n";
    std::size_t written = 0;
    (void)core::write_fully(control_, core::as_bytes(text), written);
}

relay_report relay::report() {
    auto r = counted_;
    const auto seconds = core::to_seconds(now());
    const auto cpu = cpu_seconds();
    const auto drops = device_drops();
    r.seconds = seconds - window_began_;
    r.cpu_seconds = cpu - cpu_before_;
    r.refused += drops - drops_before_;
    r.late_share = lag_.late_share();
    r.lag_p99_seconds = core::to_seconds(lag_.quantile(0.99));
    r.lag_worst_seconds = core::to_seconds(lag_.worst());
    r.kept_up = r.late_share <= 0.01 && r.refused == 0;
    sent_before_.resize(machines_.size());
    for (std::uint32_t i = 0; i < machines_.size(); ++i) {
        const auto sent = emulator_.counters(i).sent_bytes;
        r.sent_bytes.push_back(sent - std::exchange(sent_before_[i], sent));
    }
    window_began_ = seconds;
    cpu_before_ = cpu;
    drops_before_ = drops;
    counted_ = {};
    lag_ = {};
    return r;
}

/// Packets that the devices dropped because we did not read them in time.
std::uint64_t relay::device_drops() const {
    std::uint64_t total = 0;
    for (const auto& m : machines_) {
        const auto fd = core::open_file(fmt::format("/proc/{}/net/dev", m.holder), 0);
        std::array<char, 4096> buffer;
        const auto got = fd ? ::read(fd.get(), buffer.data(), buffer.size()) : 0;
        std::string_view text(buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
        const auto at = text.find("longhaul0:");
        if (at == std::string_view::npos) continue;
        text.remove_prefix(at + 10);
        // Eight numbers of what was received, then bytes, packets, errors and drops of what was sent.
        for (int column = 0; column < 12; ++column) {
            text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
            std::uint64_t n = 0;
            const auto end = std::from_chars(text.data(), text.data() + text.size(), n).ptr;
            text.remove_prefix(static_cast<std::size_t>(end - text.data()));
            if (column == 11) total += n;
        }
    }
    return total;
}

}  // namespace

void lag_counter::add(core::duration late, std::uint64_t packets) {
    const auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(0, late.count() / 1000));
    // Sixteen buckets an octave, from 1 µs on.
    const auto octave = static_cast<std::size_t>(std::bit_width(us | 15) - 4);
    const auto bucket = us < 16 ? us : octave * 16 + ((us >> (octave - 1)) & 15);
    counts_[std::min<std::size_t>(bucket, buckets - 1)] += packets;
    packets_ += packets;
    if (late > late_limit) late_ += packets;
    worst_ = std::max(worst_, late);
}

double lag_counter::late_share() const {
    return packets_ == 0 ? 0 : static_cast<double>(late_) / static_cast<double>(packets_);
}

core::duration lag_counter::quantile(double q) const {
    const auto wanted = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(packets_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets && packets_ > 0; ++i) {
        seen += counts_[i];
        if (seen < wanted) continue;
        const auto us = i < 16 ? i : (16 + i % 16) << (i / 16 - 1);
        return std::chrono::microseconds(us);
    }
    return {};
}

std::string to_json(const relay_report& r) {
    return fmt::format(
        R"({{"seconds": {:.6f}, "packets": {}, "bytes": {}, "reads": {}, "writes": {}, "dropped_queue": {}, )"
        R"("dropped_loss": {}, "dropped_cut": {}, "sent_bytes": [{}], )"
        R"("refused": {}, "cpu_seconds": {:.6f}, "late_share": {:.6f}, )"
        R"("lag_p99_seconds": {:.6f}, "lag_worst_seconds": {:.6f}, "kept_up": {}}})",
        r.seconds, r.packets, r.bytes, r.reads, r.writes, r.dropped_queue, r.dropped_loss, r.dropped_cut,
        fmt::join(r.sent_bytes, ", "), r.refused, r.cpu_seconds, r.late_share, r.lag_p99_seconds, r.lag_worst_seconds,
        r.kept_up ? "true" : "false");
}

void run_relay(const topology& t, std::uint64_t seed, const std::vector<machine_space>& machines, int control) {
    relay(t, seed, machines, control).run();
}

}  // namespace longhaul::sim::lab
