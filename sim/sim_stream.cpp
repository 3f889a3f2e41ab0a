// What an application holds of a connection: the stream of net/stream.hpp.

#include <algorithm>
#include <cstring>

#include "sim/fabric.hpp"
#include "sim/process.hpp"

namespace longhaul::sim {

namespace {

using fabric = sim_network::fabric;
using held = std::shared_ptr<connection>;

core::error closed_here() { return {core::errc::closed, "the stream was closed on this side"}; }

/// Moves up to out.size() bytes from the readable front of a direction.
std::size_t take(direction& way, core::mutable_bytes out) {
    std::size_t done = 0;
    while (done < out.size()) {
        auto& front = way.chunks.front();
        const auto n = std::min(out.size() - done, front.size() - way.head);
        std::memcpy(out.data() + done, front.data() + way.head, n);
        done += n;
        way.head += n;
        if (way.head == front.size()) {
            way.chunks.pop_front();
            way.head = 0;
        }
    }
    way.readable -= done;
    return done;
}

// Free functions that share the connection, so that an operation survives the stream object that began it.

core::task<core::result<std::size_t>> read_from(fabric& f, held c, int side, core::mutable_bytes out) {
    end& self = c->ends[side];
    direction& in = c->ways[1 - side];
    for (;;) {
        if (self.closed) co_return core::fail(closed_here());
        if (out.empty()) co_return std::size_t{0};
        if (in.readable > 0) {
            std::uint64_t n = std::min<std::uint64_t>(in.readable, out.size());
            if (f.options.fragment) n = 1 + f.entropy.below(n);
            const auto got = take(in, out.first(n));
            f.took(c, side, got);
            co_return got;
        }
        if (self.reset) co_return core::fail(core::errc::closed, "{}", self.why);
        if (self.finished) co_return std::size_t{0};
        self.reading = true;
        auto woken = co_await self.readable->wait();
        LONGHAUL_CO_TRY(woken);
    }
}

core::task<core::result<std::size_t>> write_to(fabric& f, held c, int side, core::const_bytes data) {
    end& self = c->ends[side];
    direction& out = c->ways[side];
    for (;;) {
        if (self.closed) co_return core::fail(closed_here());
        if (self.reset) co_return core::fail(core::errc::closed, "{}", self.why);
        if (data.empty()) co_return std::size_t{0};
        if (out.unsent < f.options.send_buffer) {
            std::uint64_t n = std::min<std::uint64_t>(f.options.send_buffer - out.unsent, data.size());
            if (f.options.fragment) n = 1 + f.entropy.below(n);
            const auto taken = data.first(n);
            out.chunks.emplace_back(taken.begin(), taken.end());
            out.unsent += n;
            f.hosts[self.node].sent += n;
            f.world_.fold(action::write, self.node, c->id, 0, taken);
            f.activate(c, side);
            co_return static_cast<std::size_t>(n);
        }
        self.writing = true;
        auto woken = co_await self.writable->wait();
        LONGHAUL_CO_TRY(woken);
    }
}

core::task<core::result<void>> until_writable(fabric& f, held c, int side) {
    end& self = c->ends[side];
    for (;;) {
        if (self.closed) co_return core::fail(closed_here());
        if (self.reset) co_return core::fail(core::errc::closed, "{}", self.why);
        if (c->ways[side].unsent < f.options.send_buffer) co_return core::ok();
        self.writing = true;
        auto woken = co_await self.writable->wait();
        LONGHAUL_CO_TRY(woken);
    }
}

class sim_stream final : public net::stream {
public:
    sim_stream(fabric& f, held c, int side) : fabric_(f), connection_(std::move(c)), side_(side) {}
    ~sim_stream() override { close(); }
    sim_stream(const sim_stream&) = delete;
    sim_stream& operator=(const sim_stream&) = delete;

    core::task<core::result<std::size_t>> read_some(core::mutable_bytes out) override {
        return read_from(fabric_, connection_, side_, out);
    }
    core::task<core::result<std::size_t>> write_some(core::const_bytes data) override {
        return write_to(fabric_, connection_, side_, data);
    }
    core::task<core::result<void>> writable() override { return until_writable(fabric_, connection_, side_); }
    void close() override { fabric_.close_end(connection_, side_); }
    net::endpoint local() const override { return connection_->ends[side_].address; }
    net::endpoint remote() const override { return connection_->ends[1 - side_].address; }
    std::optional<net::stream_info> info() const override {
        net::stream_info i;
        i.rtt = connection_->rtt();
        i.retransmits = connection_->ways[side_].retransmits;
        i.congestion_window_bytes = fabric_.options.receive_window;
        i.window_limit_bytes = fabric_.options.receive_window;
        const direction& way = connection_->ways[side_];
        i.delivered_bytes = way.delivered;
        i.unsent_bytes = way.unsent;
        i.queued_bytes = way.unsent + way.in_flight;
        return i;
    }

private:
    fabric& fabric_;
    held connection_;
    int side_;
};

}  // namespace

std::unique_ptr<net::stream> make_stream(sim_network::fabric& f, std::shared_ptr<connection> c, int side) {
    return std::make_unique<sim_stream>(f, std::move(c), side);
}

}  // namespace longhaul::sim
