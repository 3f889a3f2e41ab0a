#include "sim/event_queue.hpp"

namespace longhaul::sim {

bool event_queue::before(std::uint32_t a, std::uint32_t b) const {
    const slot &x = slots_[a], &y = slots_[b];
    return x.at != y.at ? x.at < y.at : x.order < y.order;
}

void event_queue::put(std::size_t place, std::uint32_t s) {
    heap_[place] = s;
    slots_[s].place = static_cast<std::uint32_t>(place);
}

void event_queue::up(std::size_t place) {
    const auto s = heap_[place];
    while (place > 0) {
        const auto parent = (place - 1) / 2;
        if (!before(s, heap_[parent])) break;
        put(place, heap_[parent]);
        place = parent;
    }
    put(place, s);
}

void event_queue::down(std::size_t place) {
    const auto s = heap_[place];
    for (;;) {
        auto child = 2 * place + 1;
        if (child >= heap_.size()) break;
        if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
        if (!before(heap_[child], s)) break;
        put(place, heap_[child]);
        place = child;
    }
    put(place, s);
}

event_queue::ticket event_queue::add(virtual_time at, action what) {
    std::uint32_t s = 0;
    if (free_.empty()) {
        s = static_cast<std::uint32_t>(slots_.size());
        slots_.emplace_back();
    } else {
        s = free_.back();
        free_.pop_back();
    }
    slots_[s].at = at;
    slots_[s].order = order_++;
    slots_[s].what = std::move(what);
    heap_.push_back(s);
    up(heap_.size() - 1);
    return {s, slots_[s].generation};
}

event_queue::action event_queue::remove(std::size_t place) {
    const auto s = heap_[place];
    const auto last = heap_.back();
    heap_.pop_back();
    if (last != s) {
        put(place, last);
        up(place);
        down(slots_[last].place);
    }
    ++slots_[s].generation;
    free_.push_back(s);
    return std::move(slots_[s].what);
}

void event_queue::cancel(ticket which) {
    if (which.generation == 0 || slots_[which.slot].generation != which.generation) return;
    // The action may own the last reference to something that schedules or cancels in its destructor: let it end here,
    // when the queue is whole again.
    const action forgotten = remove(slots_[which.slot].place);
}

event_queue::action event_queue::pop() { return remove(0); }

}  // namespace longhaul::sim
