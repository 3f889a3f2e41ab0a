#include "sim/event_queue.hpp"

#include <algorithm>

#include "core/entropy.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace std::chrono_literals;

TEST_CASE("events of one time fire in the order in which they were added") {
    sim::event_queue q;
    std::vector<int> fired;
    for (int i = 0; i < 100; ++i) q.add(1s, [&fired, i] { fired.push_back(i); });
    while (!q.empty()) q.pop()();
    REQUIRE(fired.size() == 100);
    CHECK(std::is_sorted(fired.begin(), fired.end()));
}

TEST_CASE("a cancelled event never fires, and its ticket stays harmless when the slot is reused") {
    sim::event_queue q;
    int fired = 0;
    const auto first = q.add(1s, [&] { fired += 1; });
    q.cancel(first);
    q.cancel(first);
    q.cancel({});
    CHECK(q.empty());
    q.add(2s, [&] { fired += 10; });
    q.cancel(first);
    REQUIRE(q.size() == 1);
    q.pop()();
    CHECK(fired == 10);
}

TEST_CASE("the queue agrees with a sorted list under random additions and cancellations") {
    core::seeded_entropy random(11);
    struct expected {
        sim::virtual_time at;
        int id;
    };
    sim::event_queue q;
    std::vector<expected> model;  // in order of addition
    std::vector<sim::event_queue::ticket> tickets;
    std::vector<int> fired;
    for (int id = 0; id < 5000; ++id) {
        const sim::virtual_time at(static_cast<std::int64_t>(random.below(300)));
        tickets.push_back(q.add(at, [&fired, id] { fired.push_back(id); }));
        model.push_back({at, id});
        if (random.below(3) == 0) {
            const auto victim = static_cast<int>(random.below(tickets.size()));
            q.cancel(tickets[static_cast<std::size_t>(victim)]);
            std::erase_if(model, [victim](const expected& e) { return e.id == victim; });
        }
        if (random.below(5) == 0 && !q.empty()) {
            const auto earliest = std::min_element(model.begin(), model.end(),
                                                   [](const expected& a, const expected& b) { return a.at < b.at; });
            CHECK(q.next() == earliest->at);
            q.pop()();
            REQUIRE(fired.back() == earliest->id);
            model.erase(earliest);
        }
    }
    fired.clear();
    while (!q.empty()) q.pop()();
    std::sort(model.begin(), model.end(),
              [](const expected& a, const expected& b) { return std::pair(a.at, a.id) < std::pair(b.at, b.id); });
    REQUIRE(fired.size() == model.size());
    for (std::size_t i = 0; i < fired.size(); ++i) REQUIRE(fired[i] == model[i].id);
}
