#pragma once
/// Connecting to whichever of several addresses answers first: RFC 8305, "happy eyeballs", over the network seam, so
/// that the simulated world runs the same code. Names are looked up side by side; the two address families take turns;
/// an attempt begins 250 ms after the one before it, or as soon as one fails; the first that connects wins and the
/// others are given up.

#include <deque>
#include <list>
#include <optional>
#include <vector>

#include "core/task.hpp"
#include "net/environment.hpp"

namespace longhaul::net {

/// The next address is tried so long after the one before it (RFC 8305 §5).
inline constexpr auto dial_stagger = std::chrono::milliseconds(250);
/// Addresses that one dialler tries, and of them those of one name: the rest is ignored.
inline constexpr std::size_t max_dialled_addresses = 128;
inline constexpr std::size_t max_addresses_of_a_name = 16;

class dialler {
public:
    struct connected {
        std::unique_ptr<stream> connection;
        endpoint asked;  ///< of those given, the one that led there
    };

    /// `patience` bounds each attempt and each look-up. `env` must outlive the dialler.
    dialler(environment& env, std::vector<endpoint> to, stream_purpose purpose, core::duration patience);

    /// The first connection that any address gives which neither failed nor was returned before. When there is none
    /// left: the last failure, errc::unreachable or errc::timeout, a sentence with the address.
    core::task<core::result<connected>> next();

private:
    /// One address, and the name that it was found under (or itself).
    struct candidate {
        endpoint address, asked;
    };
    using attempt_place = std::list<candidate>::iterator;
    using name_place = std::list<endpoint>::iterator;
    core::task<core::result<void>> look_up(name_place name);
    core::task<core::result<void>> attempt(attempt_place c);
    core::task<core::result<void>> begin_in_turn(core::scope& attempts);
    void add(candidate c);
    std::deque<candidate>& queue_of(const candidate& c);
    candidate take();
    bool waiting() const { return !ipv6_.empty() || !others_.empty(); }

    environment& env_;
    stream_purpose purpose_;
    core::duration patience_;
    core::wakeup changed_;
    std::list<endpoint> names_;            ///< not looked up yet
    std::list<candidate> trying_;          ///< neither failed nor won yet
    std::deque<candidate> ipv6_, others_;  ///< not tried yet
    std::optional<bool> ipv6_next_;        ///< whose turn it is; the first address decides
    core::time_point next_at_{};           ///< when the next attempt may begin
    std::size_t known_ = 0;                ///< candidates so far
    std::optional<connected> won_;
    std::optional<core::error> failed_;  ///< the last one
};

}  // namespace longhaul::net
