/// Members that send what nobody has learnt: how far they move a run, by how contributions become one.

#include <cmath>

#include "tests/sim/swarm.hpp"
#include "tests/test.hpp"

using namespace longhaul;
using namespace longhaul::sim::testing;
using namespace std::chrono_literals;

namespace {

/// The held-out loss of a run of eight, of whom the last two send so many times what they learnt, at its end; the first
/// loss if nothing was learnt. Infinite when the honest ones could not go on.
double loss_with(const std::string& aggregate, float poison, const std::string& mode = "gather") {
    auto c = quadratic_run(20, 8);
    c.exchange.aggregate = aggregate;
    c.exchange.mode = mode;
    c.eval.every = 1;
    small_run r(9);
    r.s.step_time = 20ms;
    if (poison != 1) r.s.poison = {{"n6", poison}, {"n7", poison}};
    r.start(c, 8, usual_line);
    const auto problem = r.finish(20, "");
    double last = std::numeric_limits<double>::infinity();
    for (const auto& n : r.w.nodes()) {
        for (const auto& [at, e] : n->events()) {
            if (e.name == "eval" && std::get<std::uint64_t>(*e.find("round")) == 20) {
                last = std::get<double>(*e.find("loss"));
            }
        }
    }
    INFO(aggregate << " of " << poison << "\n" << problem);
    if (aggregate != "mean") CHECK(problem.empty());
    return last;
}

}  // namespace

TEST_CASE("a quarter that poisons ruins a mean and not the sums that it cannot move far", "[sim]") {
    const double honest = loss_with("mean", 1);
    // Far beyond what the honest ones would have made of it.
    CHECK_FALSE(loss_with("mean", 1000) < 100 * honest);
    for (const auto* aggregate : {"clip", "trimmed_mean", "centered_clip"}) {
        INFO(aggregate);
        const double alone = loss_with(aggregate, 1);
        CHECK(alone < 1.5 * honest);
        for (const float poison : {1000.0F, -1.0F, -1000.0F}) {
            const double loss = loss_with(aggregate, poison);
            INFO("times " << poison << ": " << loss << ", honest " << honest);
            // Shortened, a lie keeps its direction: two of eight undo what two others do.
            const bool against = std::string(aggregate) == "clip" && poison < 0;
            CHECK(loss < (against ? 8 : 2) * honest);
        }
    }
    // Owners of shards judge as well.
    CHECK(loss_with("centered_clip", -1000, "shard") < 2 * honest);
}
