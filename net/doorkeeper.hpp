#pragma once
/// Who may wait at a node's door to be authenticated, when more come than can be served. A state machine without I/O.
///
/// Whoever connects is a stranger at first. Strangers have a bounded room, of which the addresses of one block share a
/// part. Nobody is turned away because a room is full: the one who has waited longest goes instead, of the block that
/// holds most. An honest node says what it has to within a round trip or two, and a flood is older than that in its
/// own block.
///
/// Acquaintances have a room of their own, which no number of strangers fills: who comes from an address where a member
/// was seen, and who has shown a secret of the run.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace longhaul::net {

/// Handshakes that are answered at the same time.
struct door_limits {
    std::size_t strangers = 512;
    std::size_t strangers_per_block = 64;
    std::size_t acquaintances = 512;
    std::size_t acquaintances_per_block = 256;
};

/// The block that an address counts for: of IPv4 a /24, of IPv6 a /48. A site is given a /48 to a /56 of IPv6, so by
/// smaller blocks one of them could be as many strangers as it likes; a /48 shared by homes with a /56 each is as
/// crowded as a /24. What is no address is a block of its own.
std::string address_block(const std::string& host);

class doorkeeper {
public:
    using visitor = std::uint64_t;  ///< numbered in the order of coming
    struct arrival {
        visitor who = 0;
        std::optional<visitor> gives_way;  ///< whose connection is to be closed, for this one to have its place
    };

    explicit doorkeeper(door_limits limits);

    arrival arrives(const std::string& host);
    /// It has shown a secret of the run. Who gives way among the acquaintances, if anybody.
    std::optional<visitor> vouched_for(visitor who);
    /// Its connection is closed, or has become a link.
    void leaves(visitor who);
    /// A member was seen at this address. The last 1,024 are remembered.
    void member_seen(const std::string& host);

    std::size_t waiting() const { return strangers_.size() + acquaintances_.size(); }
    /// Of all who came, those that had to give way.
    std::uint64_t turned_away() const { return turned_away_; }

private:
    class room {
    public:
        room(std::size_t capacity, std::size_t per_block) : capacity_(capacity), per_block_(per_block) {}
        std::optional<visitor> enter(visitor who, std::string block);
        /// The block that it waited in, if it did.
        std::optional<std::string> leave(visitor who);
        std::size_t size() const { return block_of_.size(); }

    private:
        std::size_t capacity_, per_block_;
        std::map<visitor, std::string> block_of_;
        std::map<std::string, std::deque<visitor>> blocks_;  ///< the oldest first
    };

    room strangers_, acquaintances_;
    visitor last_ = 0;
    std::uint64_t turned_away_ = 0;
    std::uint64_t sightings_ = 0;
    std::map<std::string, std::uint64_t> seen_;  ///< address of a member → number of the last sighting
};

}  // namespace longhaul::net
