// Two ends of a link that keep to the protocol, over connections whose bytes come in any pieces and which break at any
// time: all messages come once, in order, and all transfers with the bytes that were sent.
#include <map>

#include "tests/fuzz/link_world.hpp"

using namespace longhaul;

namespace {

using fuzz::result;
using fuzz::task;

core::byte_vector made_of(std::size_t n, std::uint8_t first) {
    core::byte_vector out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(first + i * 7 + (i >> 8U));
    return out;
}

/// Both ends, and what each was sent.
struct conversation {
    conversation(net::environment& e, core::const_bytes pattern)
        : env(e), pieces(pattern), children(e.executor), heard(e.executor) {}

    net::environment& env;
    fuzz::piece_sizes pieces;
    core::scope children;
    core::wakeup heard;
    std::array<std::shared_ptr<net::link_impl>, 2> ends;
    std::array<std::deque<core::byte_vector>, 2> messages;  ///< to each end, not received yet
    std::map<std::string, std::shared_ptr<const core::byte_vector>> transfers;
    std::vector<std::shared_ptr<fuzz::pipe>> bulk;
    std::size_t transfers_left = 0;

    task<result<std::unique_ptr<net::channel>>> dial(std::uint32_t number);
    task<result<void>> accept(std::uint32_t number, std::unique_ptr<net::channel> theirs);
    task<result<void>> receive_messages(std::size_t at);
    task<result<void>> receive(std::size_t at, std::string tag, std::uint64_t size);
    task<result<void>> send(std::size_t from, std::string tag, std::shared_ptr<const core::byte_vector> data);
    task<result<void>> play(fuzz_input in);
};

task<result<std::unique_ptr<net::channel>>> conversation::dial(std::uint32_t number) {
    const auto key = ends[1]->key_of_bulk(number);
    LONGHAUL_CO_TRY(key);
    fuzz::connection made(env.executor, pieces, number);
    bulk.push_back(made.there);
    children.spawn_isolated("accept", accept(number, std::move(made.b)));
    co_return std::move(made.a);
}

task<result<void>> conversation::accept(std::uint32_t number, std::unique_ptr<net::channel> theirs) {
    auto first = co_await theirs->next_record();
    LONGHAUL_CO_TRY(first);
    co_return ends[1]->adopt_bulk(number, std::move(theirs));
}

task<result<void>> conversation::receive_messages(std::size_t at) {
    for (;;) {
        auto got = co_await ends[at]->receive();
        LONGHAUL_CO_TRY(got);
        FUZZ_CHECK(!messages[at].empty() && messages[at].front() == *got);
        messages[at].pop_front();
        heard.notify();
    }
}

task<result<void>> conversation::receive(std::size_t at, std::string tag, std::uint64_t size) {
    core::byte_vector into(size);
    std::uint64_t told = 0;
    net::link::arrival_handler count = [&told](std::uint64_t, std::uint64_t n) { told += n; };
    auto got = co_await ends[at]->receive_transfer(tag, into, std::move(count), {}, 0);
    FUZZ_CHECK(got && told == size && into == *transfers.at(tag));
    --transfers_left;
    heard.notify();
    co_return core::ok();
}

task<result<void>> conversation::send(std::size_t from, std::string tag,
                                      std::shared_ptr<const core::byte_vector> data) {
    auto sent =
        co_await ends[from]->send_transfer(std::move(tag), std::move(data), nullptr, net::transfer_priority::payload);
    FUZZ_CHECK(sent);
    --transfers_left;
    heard.notify();
    co_return core::ok();
}

task<result<void>> conversation::play(fuzz_input in) {
    for (int acts = 0; acts < 24 && !in.empty(); ++acts) {
        const auto what = in.byte(), size = in.byte();
        const std::size_t from = what & 1U;
        if (what % 8 < 3) {
            auto message = made_of(std::size_t{size} * size, what);
            messages[1 - from].push_back(message);
            auto sent = co_await ends[from]->send(std::move(message));
            FUZZ_CHECK(sent);
        } else if (what % 8 < 5) {
            const auto tag = std::to_string(acts);
            const auto data = std::make_shared<const core::byte_vector>(made_of(std::size_t{size} * size * 9, what));
            transfers.emplace(tag, data);
            transfers_left += 2;
            children.spawn("send", send(from, tag, data));
        } else if (what % 8 < 7) {
            auto slept = co_await env.clock.sleep_for(std::chrono::milliseconds(size));
            LONGHAUL_CO_TRY(slept);
        } else if (!bulk.empty()) {
            auto& broken = *bulk[size % bulk.size()];
            broken.ended = broken.broken = true;
            broken.changed.notify();
        }
    }
    auto through = co_await core::wait_until(
        heard, [this] { return transfers_left == 0 && messages[0].empty() && messages[1].empty(); });
    LONGHAUL_CO_TRY(through);
    FUZZ_CHECK(ends[0]->up() && ends[1]->up());
    ends[0]->close("all is said");
    co_return core::ok();
}

task<result<void>> talk(net::environment& env, fuzz_input in) {
    conversation c(env, in.take(6));
    fuzz::connection control(env.executor, c.pieces, 0);
    for (const std::size_t at : {0U, 1U}) {
        net::link_setup setup;
        setup.mine = at == 0 ? net::side::initiator : net::side::responder;
        setup.control = std::move(at == 0 ? control.a : control.b);
        setup.dial_bulk = [&c](std::uint32_t number) { return c.dial(number); };
        c.ends[at] = std::make_shared<net::link_impl>(env, std::move(setup));
    }
    for (const std::size_t at : {0U, 1U}) {
        c.ends[at]->on_offer([&c, at](const std::string& tag, std::uint64_t size) {
            c.children.spawn("receive", c.receive(at, tag, size));
        });
        c.children.spawn("link", c.ends[at]->run());
        c.children.spawn_isolated("messages", c.receive_messages(at));
    }
    c.children.spawn("play", c.play(in));
    co_return co_await c.children.join();
}

}  // namespace

FUZZ_TARGET(two_links) {
    fuzz::run([data, size](net::environment& env) { return talk(env, fuzz_input(data, size)); });
}
