#pragma once
/// Who is joined to whom, and by what lines: the network of a scenario, in numbers. The simulator and the lab build the
/// same one.
///
///     peer ── access line ──┐                                    ┌── access line ── peer
///     peer ── access line ──┴ site line ── path (rtt, loss) ── site line ┴── access line ── peer
///
/// A site's line is shared by its peers and carries only what leaves the site.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/units.hpp"

namespace longhaul::sim {

/// Lost packets: a share of all, in bursts of a mean length. Above 1 they follow a Gilbert-Elliott chain whose bad
/// state loses everything: p(good → bad) = rate / (burst · (1 − rate)), p(bad → good) = 1 / burst.
struct loss_model {
    double rate = 0;
    double burst = 1;
};

/// By what factor a line's rates are multiplied from which time on; in order of time.
struct rate_change {
    core::duration at{};
    double factor = 1;
};
using rate_trace = std::vector<rate_change>;

/// A line in both directions.
struct access_line {
    core::bit_rate up{}, down{};                 ///< of IP packets; zero: unlimited
    core::duration delay{};                      ///< one way
    core::duration jitter{};                     ///< each packet takes up to this much longer; the order is kept
    loss_model loss{};                           ///< each way
    std::uint64_t up_queue = 0, down_queue = 0;  ///< bytes that wait for the line; zero: see topology::queue_bytes
    rate_trace changes;
};

struct site {
    std::string name;
    access_line line;
    core::duration rtt{};  ///< between its peers, beyond their access lines
};

struct peer_place {
    std::string name;
    int site = -1;  ///< index; -1: none
    access_line line;
    bool reachable = true;  ///< false: a firewall lets nobody connect to it
};

/// What lies between two sites or peers, beyond their lines.
struct path_between {
    core::duration rtt{};
    core::duration jitter{};  ///< one way
    loss_model loss{};        ///< each way
};

/// An exception to the default path, both ways.
struct path_rule {
    std::vector<std::uint32_t> a, b;  ///< peers, ascending
    path_between path;
};

struct topology {
    std::vector<site> sites;
    std::vector<peer_place> peers;
    path_between default_path;
    std::vector<path_rule> rules;  ///< the last one that fits a pair counts
    std::uint64_t mtu = 1500;      ///< of IP packets
    std::uint64_t queue = 0;       ///< bytes, of every line that does not say; zero: one bandwidth-delay product

    bool same_site(std::uint32_t from, std::uint32_t to) const {
        return peers[from].site >= 0 && peers[from].site == peers[to].site;
    }
    path_between path(std::uint32_t from, std::uint32_t to) const;
    /// From wire to wire, without queues, jitter and the time of serialisation.
    core::duration one_way(std::uint32_t from, std::uint32_t to) const;
    /// The longest round trip of that peer to another one.
    core::duration longest_rtt(std::uint32_t peer) const;
    /// How many bytes wait for a line of that rate before more are dropped: what was said, or one bandwidth-delay
    /// product of `rtt`, at least 64 KiB.
    std::uint64_t queue_bytes(std::uint64_t said, core::bit_rate rate, core::duration rtt) const;
};

/// A kind of access line that people have, with the source of its numbers.
struct line_preset {
    std::string_view name;
    access_line line;
    std::string_view source;
};
const std::vector<line_preset>& line_presets();

}  // namespace longhaul::sim
