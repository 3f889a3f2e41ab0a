#include "peers/node.hpp"

namespace longhaul::peers {

using core::errc;

namespace {

/// Transfers that one peer may have running from us at the same time.
constexpr std::size_t max_serving = 4;

core::task<core::result<void>> give(shared_linked to, std::string tag, std::shared_ptr<const core::byte_vector> bytes) {
    auto sent = co_await to->link->send_transfer(tag, std::move(bytes), nullptr, net::transfer_priority::state);
    to->serving.erase(tag);
    // A receiver that changed its mind or went away is no error of ours.
    if (!sent && (sent.error().code == errc::closed || sent.error().code == errc::not_admitted)) co_return core::ok();
    co_return sent;
}

core::task<core::result<void>> give_state(node& n, shared_linked to, std::string tag, shared_state state) {
    // Joiners that come together share one frozen copy.
    if (n.frozen.first != state) {
        std::shared_ptr<const core::byte_vector> bytes;
        const auto copy = [&] { bytes = std::make_shared<const core::byte_vector>(serialize(*state)); };
        auto ran = co_await n.env.workers.run(copy, std::chrono::seconds(0));
        LONGHAUL_CO_TRY(ran);
        n.frozen = {state, std::move(bytes)};
    }
    auto frozen = n.frozen.second;
    co_return co_await give(std::move(to), std::move(tag), std::move(frozen));
}

}  // namespace

void serve_fetch(node& n, const shared_linked& to, const fetch_message& what) {
    const auto key = to->link->remote().key;
    const auto refuse = [&](std::string why) { n.send(key, fetch_refused{what, std::move(why)}); };
    const auto tag = tag_of(what);
    if (to->serving.contains(tag)) return;  // asked twice, answered once
    if (to->serving.size() >= max_serving) return refuse("busy serving you already: ask again");
    switch (what.kind) {
        case fetch_kind::state: {
            // A peer that is not caught up is never a donor (DESIGN §5).
            if (!n.state || n.state->generation != what.generation) return refuse("no state of that generation here");
            to->serving.insert(tag);
            n.tasks.spawn_isolated("donor", give_state(n, to, tag, n.state));
            return;
        }
        case fetch_kind::aggregate: {
            const auto a = n.held.find_aggregate(what.generation, what.round);
            if (!a) return refuse("that aggregate is not here any more");
            const auto view = core::bytes_of(a->values);
            to->serving.insert(tag);
            n.tasks.spawn_isolated("donor",
                                   give(to, tag, std::make_shared<const core::byte_vector>(view.begin(), view.end())));
            return;
        }
    }
}

}  // namespace longhaul::peers
