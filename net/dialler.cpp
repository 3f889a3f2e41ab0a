#include "net/dialler.hpp"

#include <algorithm>

#include "net/ticket.hpp"

namespace longhaul::net {

using core::errc;
using core::fail;
using core::ok;
using core::result;
using core::task;

namespace {

bool is_ipv6(const endpoint& e) { return e.host.find(':') != std::string::npos; }

}  // namespace

dialler::dialler(environment& env, std::vector<endpoint> to, stream_purpose purpose, core::duration patience)
    : env_(env), purpose_(purpose), patience_(patience), changed_(env.executor) {
    for (auto& each : to) {
        if (is_address(each.host)) {
            add({each, each});
        } else if (names_.size() < max_dialled_addresses) {
            names_.push_back(std::move(each));
        }
    }
}

void dialler::add(candidate c) {
    if (known_ == max_dialled_addresses) return;
    ++known_;
    if (!ipv6_next_) ipv6_next_ = is_ipv6(c.address);
    queue_of(c).push_back(std::move(c));
}

std::deque<dialler::candidate>& dialler::queue_of(const candidate& c) { return is_ipv6(c.address) ? ipv6_ : others_; }

dialler::candidate dialler::take() {
    auto& from = others_.empty() || (*ipv6_next_ && !ipv6_.empty()) ? ipv6_ : others_;
    ipv6_next_ = &from != &ipv6_;
    auto c = std::move(from.front());
    from.pop_front();
    return c;
}

task<result<void>> dialler::look_up(name_place name) {
    auto asking = env_.network.resolve(*name);
    auto found = co_await core::with_deadline(env_.clock, std::move(asking), env_.clock.now() + patience_);
    if (!found && found.error().code == errc::cancelled) co_return fail(found.error());
    if (found) {
        if (found->size() > max_addresses_of_a_name) found->resize(max_addresses_of_a_name);
        for (auto& address : *found) add({std::move(address), *name});
    } else {
        failed_ = found.error();
        if (failed_->code == errc::timeout) {
            failed_->message = fmt::format("the address of {} was not found within {:.0f} s: check the name server",
                                           name->host, core::to_seconds(patience_));
        }
    }
    names_.erase(name);
    changed_.notify();
    co_return ok();
}

task<result<void>> dialler::attempt(attempt_place c) {
    auto connecting = env_.network.connect(c->address, purpose_);
    auto made = co_await core::with_deadline(env_.clock, std::move(connecting), env_.clock.now() + patience_);
    if (!made && made.error().code == errc::cancelled) co_return fail(made.error());
    // Of two that connect in the same turn one is too many; it may still be needed.
    if (made && won_) co_return ok();
    if (made) {
        won_.emplace(connected{std::move(*made), c->asked});
    } else {
        failed_ = made.error();
        if (failed_->code == errc::timeout) {
            failed_->message = fmt::format("nobody answered at {} within {:.0f} s: check the address and the firewall",
                                           c->address.text(), core::to_seconds(patience_));
        }
        next_at_ = {};
        if (c->asked != c->address) failed_ = failed_->within(c->asked.text());
    }
    trying_.erase(c);
    changed_.notify();
    co_return ok();
}

task<result<void>> dialler::begin_in_turn(core::scope& attempts) {
    while (!won_) {
        if (waiting() && env_.clock.now() >= next_at_) {
            next_at_ = env_.clock.now() + dial_stagger;  // an attempt that fails takes it back
            trying_.push_back(take());
            attempts.spawn_isolated("connect", attempt(std::prev(trying_.end())));
        } else if (waiting()) {
            auto woken = co_await core::with_deadline(env_.clock, changed_.wait(), next_at_);
            if (!woken && woken.error().code != errc::timeout) co_return woken;
        } else if (!trying_.empty() || !names_.empty()) {
            auto woken = co_await changed_.wait();
            LONGHAUL_CO_TRY(woken);
        } else {
            break;
        }
    }
    attempts.cancel();
    co_return ok();
}

task<result<dialler::connected>> dialler::next() {
    won_.reset();
    next_at_ = {};
    core::scope attempts(env_.executor);
    for (auto name = names_.begin(); name != names_.end();) {
        attempts.spawn_isolated("look up", look_up(name++));  // which may be over, and gone, at once
    }
    attempts.spawn("dial", begin_in_turn(attempts));
    auto joined = co_await attempts.join();
    // Who was given up may still be needed, if the winner is not who was looked for.
    for (; !trying_.empty(); trying_.pop_back()) {
        auto& queue = queue_of(trying_.back());
        queue.push_front(std::move(trying_.back()));
    }
    LONGHAUL_CO_TRY(joined);
    if (won_) co_return std::move(*won_);
    if (failed_) co_return fail(*failed_);
    co_return fail(errc::unreachable, "no address to dial is left");
}

}  // namespace longhaul::net
