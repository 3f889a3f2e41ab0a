#include "sim/topology.hpp"

namespace longhaul::sim {

namespace {

using namespace std::chrono_literals;

constexpr core::bit_rate mbit(double n) { return {n * 1e6}; }

access_line line(core::bit_rate up, core::bit_rate down, core::duration delay, core::duration jitter, loss_model loss) {
    access_line out;
    out.up = up;
    out.down = down;
    out.delay = delay;
    out.jitter = jitter;
    out.loss = loss;
    return out;
}

}  // namespace

const std::vector<line_preset>& line_presets() {
    static const std::vector<line_preset> presets{
        {"dsl", line(mbit(10), mbit(50), 6ms, 2ms, {0.0005, 1}),
         "VDSL2 as sold, 50 Mbit/s down and 10 up, 4 ms to the first hop with vectoring and 24 without "
         "(gist.github.com/kralo/811f6e427233bba71d0ce2487c64d905)"},
        {"cable", line(mbit(50), mbit(940), 4ms, 2ms, {0.0002, 1}),
         "DOCSIS: 7.5 ms to the first hop (the same gist); 940 Mbit/s down, 48 up, 7 ms and 1 to 2 ms of jitter to a "
         "server in town (gist.github.com/zajdee/bc50f8625db00e2ba70f16eaa01fc8aa)"},
        {"fibre", line(mbit(500), mbit(500), 1ms, 200us, {0, 1}),
         "GPON: 1.5 ms to the first hop (kralo's gist); a common symmetric product"},
        {"lte", line(mbit(12), mbit(40), 35ms, 10ms, {0.001, 3}),
         "70 ms of round trip and 12 Mbit/s up are WebPageTest's LTE profile (connectivity.ini.sample); the 40 Mbit/s "
         "down and the bursts are ours, for a good cell that others use, too"},
        {"5g", line(mbit(18), mbit(220), 25ms, 6ms, {0.0005, 3}),
         "medians of the largest mid-band network of the US in 2023: 220 Mbit/s down and round trips of 51 ms (Ookla: "
         "rcrwireless.com/20230718/carriers/t-mobile-us-continues-to-top-5g-speed-charts-ookla), 18 Mbit/s up "
         "(Opensignal: mobileworldlive.com/top-three/t-mobile-us-tops-verizon-5g-data-rating); jitter and bursts are "
         "ours"},
        {"satellite", line(mbit(17), mbit(178), 22ms, 10ms, {0.004, 8}),
         "Starlink: medians of 178 Mbit/s down and 17 up, round trips of 50 ms within Europe, 0.4 % of packets lost in "
         "bursts (Michel et al., A First Look at Starlink Performance, IMC 2022; blog.apnic.net/2022/11/28)"},
        {"campus", line(mbit(1000), mbit(1000), 1ms, 100us, {0, 1}),
         "the gigabit jack of a university's office (med.stanford.edu/irt/infrastructure/networking/performance.html); "
         "the millisecond across a campus is ours"},
        {"datacentre", line(mbit(10'000), mbit(10'000), 67us, 20us, {0, 1}),
         "a 10 Gbit/s port; round trips of 268 us are the median between pods of one data centre (Guo et al., "
         "Pingmesh, "
         "SIGCOMM 2015, section 4)"},
    };
    return presets;
}

}  // namespace longhaul::sim
