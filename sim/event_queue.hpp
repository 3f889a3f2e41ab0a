#pragma once
/// What will happen in the simulated world, ordered by (time, order of scheduling): ties are broken the same way on
/// every machine.

#include <cstdint>
#include <functional>
#include <vector>

#include "core/clock.hpp"

namespace longhaul::sim {

/// Virtual time: nanoseconds since the world began.
using virtual_time = core::duration;

/// Later than anything that a world runs to.
inline constexpr virtual_time never = virtual_time::max();

/// A binary heap whose entries know their place, so that a cancelled timer leaves at once: most deadlines are
/// cancelled, and they would otherwise stay until their time comes. O(log n) each.
class event_queue {
public:
    using action = std::function<void()>;
    /// Names a scheduled event; stays harmless after the event has fired.
    struct ticket {
        std::uint32_t slot = 0;
        std::uint32_t generation = 0;  ///< 0: nothing
    };

    ticket add(virtual_time at, action what);
    /// Forgets the event if it has not fired yet.
    void cancel(ticket which);
    bool empty() const { return heap_.empty(); }
    std::size_t size() const { return heap_.size(); }
    /// Time of the earliest event; the queue must not be empty.
    virtual_time next() const { return slots_[heap_.front()].at; }
    /// Removes the earliest event and returns what it does.
    action pop();

private:
    struct slot {
        virtual_time at{};
        std::uint64_t order = 0;
        std::uint32_t place = 0;       // in heap_
        std::uint32_t generation = 1;  // grows each time that the slot is reused
        action what;
    };
    bool before(std::uint32_t a, std::uint32_t b) const;
    void put(std::size_t place, std::uint32_t s);
    void up(std::size_t place);
    void down(std::size_t place);
    action remove(std::size_t place);

    std::vector<slot> slots_;
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> heap_;
    std::uint64_t order_ = 0;
};

}  // namespace longhaul::sim
