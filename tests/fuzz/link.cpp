// Whatever an authenticated peer may put into the records of a link, on control and on bulk connections, in any pieces:
// the link ends with the peer at the latest, counts each byte of a transfer once, and never says of a part that it is
// all.
#include <set>

#include "tests/fuzz/link_world.hpp"

using namespace longhaul;

namespace {

using fuzz::result;
using fuzz::task;

constexpr std::uint64_t most_accepted = 3 * net::segment_bytes;

/// A link, and the peer at its other end, which is the fuzzer.
struct victim {
    victim(net::environment& e, core::const_bytes pattern) : env(e), pieces(pattern), children(e.executor) {}

    net::environment& env;
    fuzz::piece_sizes pieces;
    core::scope children;
    std::shared_ptr<net::link_impl> link;
    bool reads = false;  ///< the peer reads what it is sent
    std::unique_ptr<net::channel> control;
    std::map<std::uint32_t, std::unique_ptr<net::channel>> bulk;
    std::map<net::channel*, std::size_t> announced;  ///< bytes of the latest segment that are still to come

    std::unique_ptr<net::channel> connect(std::uint32_t number, std::unique_ptr<net::channel>& theirs);
    task<result<std::unique_ptr<net::channel>>> dial(std::uint32_t number);
    task<result<void>> receive(std::string tag, std::uint64_t size);
    task<result<void>> receive_messages();
    net::channel* pick(std::uint8_t choice);
    task<result<void>> put(net::channel* c, std::uint8_t type, std::uint8_t flags, core::const_bytes payload);
    task<result<void>> put_data(net::channel* c, std::size_t bytes);
    task<result<void>> act(fuzz_input& in);
    task<result<void>> attack(fuzz_input in);
};

std::unique_ptr<net::channel> victim::connect(std::uint32_t number, std::unique_ptr<net::channel>& theirs) {
    fuzz::connection made(env.executor, pieces, number);
    made.there->swallow = reads;
    theirs = std::move(made.b);
    return std::move(made.a);
}

task<result<std::unique_ptr<net::channel>>> victim::dial(std::uint32_t number) {
    co_return connect(number, bulk[number]);
}

task<result<void>> victim::receive(std::string tag, std::uint64_t size) {
    core::byte_vector into(size);
    std::set<std::uint64_t> places;
    std::uint64_t told = 0;
    net::link::arrival_handler count = [&](std::uint64_t at, std::uint64_t n) {
        FUZZ_CHECK(n <= size && at <= size - n && places.insert(at).second);
        told += n;
    };
    auto got = co_await link->receive_transfer(tag, into, std::move(count), {}, 0);
    FUZZ_CHECK(!got || told == size);
    co_return core::ok();
}

task<result<void>> victim::receive_messages() {
    for (;;) {
        auto got = co_await link->receive();
        LONGHAUL_CO_TRY(got);
        FUZZ_CHECK(got->size() <= net::max_control_message);
    }
}

/// The control connection, or one of the bulk connections.
net::channel* victim::pick(std::uint8_t choice) {
    if (choice % 4 == 0 || bulk.empty()) return control.get();
    return std::next(bulk.begin(), static_cast<std::ptrdiff_t>(choice / 4 % bulk.size()))->second.get();
}

task<result<void>> victim::put(net::channel* c, std::uint8_t type, std::uint8_t flags, core::const_bytes payload) {
    core::byte_vector sealed(payload.size() + net::record_overhead);
    const auto n = c->sealer.seal(type, flags, payload, sealed);
    LONGHAUL_CO_TRY(n);
    co_return co_await c->write(sealed);
}

task<result<void>> victim::put_data(net::channel* c, std::size_t bytes) {
    const core::byte_vector plain(bytes, std::byte{5});
    core::byte_vector sealed(bytes + net::data_overhead);
    const auto n = c->sealer.seal_data(plain, sealed);
    LONGHAUL_CO_TRY(n);
    announced[c] -= std::min(announced[c], bytes);
    co_return co_await c->write(sealed);
}

/// A link message whose numbers are small, so that some of them are right.
net::wire::control made_message(fuzz_input& in) {
    const auto kind = in.byte();
    const std::uint64_t id = in.byte() % 4, number = in.byte();
    switch (kind % 10) {
        case 0: return net::wire::heartbeat{number};
        case 1: return net::wire::heartbeat_echo{number, id << 62U};
        case 2:
            return net::wire::transfer_offer{id, std::string(1, static_cast<char>('a' + number % 4)), number * 5000};
        case 3: return net::wire::transfer_accept{id, number * 5000};
        case 4: return net::wire::transfer_refuse{id, "no"};
        case 5: return net::wire::transfer_progress{id, {{number % 4, 1 + number / 4 % 4}}};
        case 6: return net::wire::transfer_done{id};
        case 7: return net::wire::transfer_abandon{id};
        case 8: return net::wire::transfer_withdraw{id};
        default: return net::wire::streams_wanted{static_cast<std::uint32_t>(number % 5)};
    }
}

/// One thing that the peer does. Errors of its connections are its own affair.
task<result<void>> victim::act(fuzz_input& in) {
    const auto what = in.byte(), choice = in.byte();
    auto* const c = pick(choice);
    switch (what % 8) {
        case 0: {
            const auto type = in.byte(), flags = in.byte();
            co_return co_await put(c, type, flags, in.take(in.byte()));
        }
        case 1: {
            const auto message = net::wire::serialize(made_message(in));
            co_return co_await put(control.get(), net::code(net::channel_record::link), 0, message);
        }
        case 2:
            co_return co_await put(control.get(), net::code(net::channel_record::message), choice % 4,
                                   in.take(in.byte()));
        case 3: {
            net::segment s;
            s.transfer = in.byte() % 4;
            s.offset = std::uint64_t{in.byte() % 4U} * net::segment_bytes + (choice > 250 ? 1 : 0);
            s.length = in.byte() % 2 == 0 ? net::segment_bytes : 5000U * in.byte() % net::segment_bytes;
            const auto header = s.encode();
            announced[c] = s.length;
            co_return co_await put(c, net::code(net::channel_record::segment), 0, header);
        }
        case 4: {
            const auto wish = in.byte();
            for (int repeat = in.byte() % 9; repeat >= 0; --repeat) {
                // The greatest is what is right: as much as was announced.
                const std::size_t bytes = wish == 255 && announced[c] > 0 ? announced[c] : 1 + 256U * wish;
                auto written = co_await put_data(c, std::min(bytes, net::max_data_payload));
                LONGHAUL_CO_TRY(written);
            }
            co_return core::ok();
        }
        case 5: {
            const auto garbage = in.take(in.byte());
            co_return co_await c->write(garbage);
        }
        case 6: co_return co_await env.clock.sleep_for(std::chrono::milliseconds(20) * choice);
        default: break;
    }
    if (choice % 2 == 0 && link->mine() == net::side::responder && bulk.size() < 8) {
        const auto number = static_cast<std::uint32_t>(bulk.size() + 1);
        const auto key = link->key_of_bulk(number);
        LONGHAUL_CO_TRY(key);
        const auto adopted = link->adopt_bulk(number, connect(number, bulk[number]));
        LONGHAUL_CO_TRY(adopted);
    } else if (choice % 2 != 0 && c != control.get()) {
        c->stream->close();
    }
    co_return core::ok();
}

task<result<void>> victim::attack(fuzz_input in) {
    for (int acts = 0; acts < 64 && !in.empty() && link->up(); ++acts) {
        // The peer does not wait for a victim that does not read.
        auto acting = act(in);
        (void)co_await core::with_deadline(env.clock, std::move(acting), env.clock.now() + std::chrono::seconds(1));
    }
    control->stream->close();
    const auto until = env.clock.now() + std::chrono::seconds(30);
    while (link->up()) {
        FUZZ_CHECK(env.clock.now() < until);
        auto slept = co_await env.clock.sleep_for(std::chrono::milliseconds(100));
        LONGHAUL_CO_TRY(slept);
    }
    co_return core::ok();
}

task<result<void>> host(net::environment& env, fuzz_input in) {
    victim v(env, in.take(4));
    const auto mode = in.byte();
    v.reads = (mode & 1U) != 0;
    net::link_setup setup;
    setup.mine = (mode & 2U) != 0 ? net::side::initiator : net::side::responder;
    setup.control = v.connect(0, v.control);
    setup.dial_bulk = [&v](std::uint32_t number) { return v.dial(number); };
    v.link = std::make_shared<net::link_impl>(env, std::move(setup));
    v.link->on_offer([&v](const std::string& tag, std::uint64_t size) {
        if (size > most_accepted) return v.link->refuse_transfer(tag, "too large");
        v.children.spawn_isolated("receive", v.receive(tag, size));
    });
    v.children.spawn("link", v.link->run());
    v.children.spawn_isolated("messages", v.receive_messages());
    v.children.spawn_isolated("send", v.link->send_transfer("ours", std::make_shared<const core::byte_vector>(300000),
                                                            nullptr, net::transfer_priority::payload));
    v.children.spawn("attack", v.attack(in));
    co_return co_await v.children.join();
}

}  // namespace

FUZZ_TARGET(link) {
    fuzz::run([data, size](net::environment& env) { return host(env, fuzz_input(data, size)); });
}
