#pragma once
/// The coordinator's choice of how payloads travel: from what members report of their lines to the plan in ROUND, by
/// optim/time_model. Pure.

#include <map>
#include <optional>
#include <set>

#include "core/clock.hpp"
#include "optim/time_model.hpp"
#include "peers/messages.hpp"

namespace longhaul::peers {

class exchange_planner {
public:
    /// A pair that both report as not linked for so long cannot reach each other.
    static constexpr core::duration time_to_link = std::chrono::seconds(4);
    /// Chunks of a window where there is memory for them: enough to sum while others come.
    static constexpr std::uint32_t usual_window = 8;

    struct model {
        std::uint32_t chunks = 1;  ///< of a payload, as its codec cuts it
        std::uint64_t payload_bytes = 0;
        bool may_shard = true;                       ///< the codec fits sums
        std::string mode = "auto";                   ///< auto | gather | shard
        double encode_seconds = 0, add_seconds = 0;  ///< of a payload
        bool in_turn = false;                        ///< a round has several of them, one after another
    };
    explicit exchange_planner(model m) : model_(std::move(m)) {}
    /// With what it has heard, for another codec.
    exchange_planner with(model m) const;

    void heard(peer_number who, const lines_message& m, core::time_point now);
    void gone(peer_number who);
    /// Whether a payload can go from one to the other directly; strangers and newcomers get the benefit of the doubt.
    bool reach(peer_number a, peer_number b, core::time_point now) const;

    struct choice {
        std::string mode;
        exchange_plan plan;
        double line_seconds = 0;  ///< of the prediction, without latency; only of exchanges in turn
    };
    /// For a new round. `present` is the mode of the last one ("" for none): another one must be a tenth faster.
    choice plan(const std::vector<peer_number>& members, const std::vector<peer_number>& contributors,
                core::time_point now, std::string_view present) const;
    /// How many contributors to a round fit the memory of all of these, when all that each sends is kept, so many
    /// bytes; at least one.
    std::size_t most_contributors(const std::vector<peer_number>& members, std::uint64_t bytes_of_each) const;
    /// For another attempt: the same shards, those of owners who left in other hands, and every way that is needed.
    exchange_plan replan(const round_record& next, core::time_point now,
                         const std::set<peer_number>& relieved = {}) const;
    /// A step from one member to another that an attempt needs and that is not there.
    struct missing_link {
        peer_number from = 0, to = 0;
        core::time_point lost_at{};  ///< until then it may still come
    };
    /// The one of this attempt that is lost first.
    std::optional<missing_link> missing(const round_record& r) const;

private:
    struct report {
        lines_message said;
        core::time_point first{};
        std::map<peer_number, core::time_point> lost;  ///< links that it had, since when it has them no more
    };
    /// From when on two members count as unable to reach each other, unless they link until then; nothing: they are
    /// linked, or one of them has said nothing yet.
    std::optional<core::time_point> apart_at(peer_number a, peer_number b) const;
    /// Bytes that a member has for streams; nothing: it does not count them.
    std::optional<std::uint64_t> room_of(peer_number who) const;
    /// Owners who cannot hold all contributions get a window, and the reason says so.
    void fit_memory(exchange_plan& plan, std::size_t members) const;
    optim::exchange_network network(const std::vector<peer_number>& members, core::time_point now) const;
    std::map<peer_number, report> reports_;
    model model_;
};

}  // namespace longhaul::peers
