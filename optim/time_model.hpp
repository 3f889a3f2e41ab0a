#pragma once
/// How long an exchange takes, and by which way it is shortest (DESIGN §5, "Exchange modes"): a pure function of what
/// was measured. It counts bytes at every line and adds the latency of the hops; what it cannot know (loss, queues,
/// other traffic) is in the measured rates.

#include <cstdint>
#include <string>
#include <vector>

namespace longhaul::optim {

/// One member's line, in bytes per second; 0: nobody has measured it.
struct peer_line {
    double up = 0;
    double down = 0;
    /// Members of one site are near each other and share `exchange_network::sites`' line; what they give each other
    /// goes over no line that is counted.
    std::size_t site = 0;
};

/// What is known of the network between N members.
struct exchange_network {
    std::vector<peer_line> peers;
    std::vector<peer_line> sites;  ///< shared lines, by site; may be empty: nobody shares; a rate of 0 does not limit
    /// N × N round trips in seconds; negative: these two cannot reach each other; 0: not measured.
    std::vector<std::vector<double>> rtt;

    std::size_t size() const { return peers.size(); }
    bool reach(std::size_t a, std::size_t b) const { return a == b || rtt[a][b] >= 0; }
    bool same_site(std::size_t a, std::size_t b) const { return !sites.empty() && peers[a].site == peers[b].site; }
};

struct exchange_work {
    double bytes = 0;                            ///< of one payload on the wire
    std::uint32_t chunks = 1;                    ///< that it is cut into
    bool may_shard = true;                       ///< its codec fits sums
    double encode_seconds = 0, add_seconds = 0;  ///< of one payload; both go on beside the lines, chunk by chunk
    std::vector<bool> contributes;               ///< of each member; empty: all do
};

/// `to` gets what `source` has through `via`; all are indices of members.
struct exchange_hop {
    std::size_t source = 0, to = 0, via = 0;
    bool operator==(const exchange_hop&) const = default;
};

enum class exchange_mode : std::uint8_t { gather, shard };

/// What a codec takes a member, beside the lines: it encodes its payload and adds all of them; or an owner adds its
/// shard of each, and everybody the sums.
constexpr double coding_seconds(exchange_mode mode, double encode, double add, std::size_t payloads) {
    return encode + (mode == exchange_mode::gather ? static_cast<double>(payloads) : 2) * add;
}

struct exchange_forecast {
    exchange_mode mode = exchange_mode::gather;
    double seconds = 0;                 ///< 0: nothing is measured
    std::vector<std::uint32_t> chunks;  ///< shard: of each member as owner; sums to the work's chunks
    std::vector<exchange_hop> hops;     ///< everything else goes directly
    std::vector<std::size_t> cut_off;   ///< members that a payload cannot reach by any way
    std::string reason;                 ///< one sentence
};

/// What no exchange can beat: every contributor sends its payload once, every member receives one result, and the last
/// byte travels for half a round trip.
double exchange_floor(const exchange_network& net, const exchange_work& work);

/// Shares of the owners: s_i = max(0, (T·b_i − S)/((N−2)·S)) with b_i = min(up, down) and the smallest T for which they
/// sum to 1; halves for two. A line that nobody has measured owns nothing; if none is measured, shares are equal.
std::vector<double> shard_shares(const exchange_network& net);

/// Seconds of a round of several exchanges one after another: the steps before each take `steps`, its payloads keep the
/// lines busy for `line`, and its result is here `latency` after that; before the steps after an exchange the result
/// of the one `staleness` before it must be here, and before the round's end all are. Of many exchanges each takes
/// max(steps, line, (steps + line + latency) / (staleness + 1)) (DESIGN §6, "Time model").
double seconds_of_exchanges(std::uint64_t exchanges, double steps, double line, double latency,
                            std::uint32_t staleness);

exchange_forecast forecast_gather(const exchange_network& net, const exchange_work& work);
exchange_forecast forecast_shard(const exchange_network& net, const exchange_work& work);
/// The faster of the two. In doubt `gather`, which has one hop.
exchange_forecast plan_exchange(const exchange_network& net, const exchange_work& work);

/// Members of one site are within so many seconds of each other, and everybody else is so many times as far from them.
inline constexpr double near_seconds = 0.005, apart_factor = 4;

/// Sites by their round trips. Members exchange at the same time, so a site's line carries what they were seen to get
/// together.
void infer_sites(exchange_network& net);
/// The same as one member can see it: which of the others, by their round trips in seconds (0: not measured), it shares
/// its line with.
std::vector<bool> inside_site(const std::vector<double>& rtts);

}  // namespace longhaul::optim
