#pragma once
/// For the targets that are about links: connections in memory whose bytes come in pieces that the fuzzer chose, and a
/// world in virtual time for the waiting.

#include <deque>
#include <memory>

#include "net/link_impl.hpp"
#include "sim/world.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace fuzz {

namespace core = longhaul::core;
namespace net = longhaul::net;
namespace sim = longhaul::sim;
using core::result;
using core::task;

/// The sizes of pieces, one after another and from the beginning again: up to 128 bytes, or all that there is. After
/// the first 2,000, which is where a run would begin to take long, always all.
class piece_sizes {
public:
    explicit piece_sizes(core::const_bytes pattern) : pattern_(pattern) {}
    std::size_t next(std::size_t all) {
        if (pattern_.empty() || used_ == 2000) return all;
        const auto size = std::to_integer<std::size_t>(pattern_[used_++ % pattern_.size()]) + 1;
        return size > 128 ? all : std::min(size, all);
    }

private:
    core::const_bytes pattern_;
    std::size_t used_ = 0;
};

/// One direction of a connection.
struct pipe {
    explicit pipe(asio::any_io_executor executor) : changed(std::move(executor)) {}
    std::deque<std::byte> bytes;
    bool ended = false;    ///< by the writer: what is there can still be read
    bool broken = false;   ///< by the reader
    bool swallow = false;  ///< what is written is gone
    core::wakeup changed;
    static constexpr std::size_t room = 64 * 1024;
};

class pipe_end final : public net::stream {
public:
    pipe_end(std::shared_ptr<pipe> in, std::shared_ptr<pipe> out, piece_sizes& pieces)
        : in_(std::move(in)), out_(std::move(out)), pieces_(pieces) {}
    ~pipe_end() override { shut(); }
    pipe_end(const pipe_end&) = delete;
    pipe_end& operator=(const pipe_end&) = delete;

    task<result<std::size_t>> read_some(core::mutable_bytes out) override {
        const auto in = in_;
        while (in->bytes.empty() && !in->ended && !in->broken) {
            auto woken = co_await in->changed.wait();
            LONGHAUL_CO_TRY(woken);
        }
        if (in->broken) co_return core::fail(core::errc::closed, "the connection is closed");
        const auto n = in->bytes.empty() ? 0 : pieces_.next(std::min(out.size(), in->bytes.size()));
        const auto end = in->bytes.begin() + static_cast<std::ptrdiff_t>(n);
        std::copy(in->bytes.begin(), end, out.begin());
        in->bytes.erase(in->bytes.begin(), end);
        in->changed.notify();
        co_return n;
    }
    task<result<std::size_t>> write_some(core::const_bytes data) override {
        auto free = writable();
        auto may = co_await std::move(free);
        LONGHAUL_CO_TRY(may);
        const auto n = pieces_.next(data.size());
        if (!out_->swallow)
            out_->bytes.insert(out_->bytes.end(), data.begin(), data.begin() + static_cast<std::ptrdiff_t>(n));
        out_->changed.notify();
        co_return n;
    }
    task<result<void>> writable() override {
        const auto out = out_;
        while (out->bytes.size() >= pipe::room && !out->ended && !out->broken) {
            auto woken = co_await out->changed.wait();
            LONGHAUL_CO_TRY(woken);
        }
        if (out->ended || out->broken) co_return core::fail(core::errc::closed, "the connection is closed");
        co_return core::ok();
    }
    void close() override { shut(); }
    net::endpoint local() const override { return {"here", 1}; }
    net::endpoint remote() const override { return {"there", 2}; }

private:
    void shut() {
        in_->broken = out_->ended = true;
        in_->changed.notify();
        out_->changed.notify();
    }
    std::shared_ptr<pipe> in_, out_;
    piece_sizes& pieces_;
};

/// Both ends of a secured connection; `number` makes its keys, and records are rekeyed often.
struct connection {
    connection(asio::any_io_executor executor, piece_sizes& pieces, std::uint32_t number)
        : there(std::make_shared<pipe>(executor)), back(std::make_shared<pipe>(executor)) {
        const auto cipher = [number](std::uint8_t direction) {
            core::digest key;
            key.bytes[0] = static_cast<std::byte>(direction);
            key.bytes[1] = static_cast<std::byte>(number);
            return net::noise::cipher_state(net::noise::secret_key(key));
        };
        const auto keys = [&cipher](std::uint8_t out, std::uint8_t in) {
            return net::secured{net::record_sealer(cipher(out), 3), net::record_opener(cipher(in), 3), {}, {}};
        };
        a = std::make_unique<net::channel>(std::make_unique<pipe_end>(back, there, pieces), keys(1, 2),
                                           net::wire_count{});
        b = std::make_unique<net::channel>(std::make_unique<pipe_end>(there, back, pieces), keys(2, 1),
                                           net::wire_count{});
    }
    std::shared_ptr<pipe> there, back;  ///< from a to b, from b to a
    std::unique_ptr<net::channel> a, b;
};

/// Runs `body` to its end in virtual time; it must end, and well.
inline void run(const std::function<task<result<void>>(net::environment&)>& body) {
    sim::world world(1);
    auto& machine = world.add_node("machine");
    machine.start([&body](net::environment& env) -> task<result<void>> { co_return co_await body(env); });
    world.run_while([&machine] { return !machine.outcome(); }, std::chrono::minutes(10));
    const auto& outcome = machine.outcome();
    LONGHAUL_ENSURE(outcome && *outcome, outcome ? outcome->error().message : "it did not end in ten minutes");
}

}  // namespace fuzz
