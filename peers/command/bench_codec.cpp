/// `longhaul bench codec`: what each codec takes in time and bytes, and what it loses, on one core and in memory; and
/// how much faster two threads are.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "compress/feedback.hpp"
#include "compress/kernels.hpp"
#include "core/counter_random.hpp"
#include "core/json.hpp"
#include "peers/chunk.hpp"
#include "peers/command/command.hpp"
#include "peers/command/world.hpp"

namespace longhaul::peers::command {

namespace {

using json = nlohmann::ordered_json;

struct codec_wishes {
    std::int64_t elements = std::int64_t{1} << 25;
    std::int64_t repeat = 5;
    std::vector<std::string> codecs;
    bool stochastic = false, as_json = false;
};

/// Close to normal, with a scale that changes every few thousand elements, as from row to row of a real
/// pseudo-gradient.
core::flat_buffer values_of(std::size_t n) {
    core::flat_buffer v(n);
    for (std::size_t i = 0; i < n; ++i)
        v[i] = 1e-3F * static_cast<float>(1 + core::mix64(i / 3000) % 4) * core::random_normal(1, i);
    return v;
}

class stopwatch {
public:
    explicit stopwatch(const core::clock& clock, std::int64_t repeat) : clock_(clock), repeat_(repeat) {}
    /// The fastest run's seconds, after one that warms up: what other programs take is not the codec's.
    template <typename Work>
    double best(Work work) const {
        work();
        double least = 1e9;
        for (std::int64_t i = 0; i < repeat_; ++i) {
            const auto start = clock_.now();
            work();
            least = std::min(least, core::to_seconds(clock_.now() - start));
        }
        return std::max(least, 1e-9);
    }

private:
    const core::clock& clock_;
    std::int64_t repeat_;
};

/// work(0) and work(1), each on a thread of its own.
core::task<core::result<void>> on_two_threads(core::workers& workers, const std::function<void(std::uint32_t)>& work) {
    const std::function<void()> even = [&work] { work(0); }, odd = [&work] { work(1); };
    auto first = workers.run(even, {}), second = workers.run(odd, {});
    auto done = co_await core::both(std::move(first), std::move(second));
    LONGHAUL_CO_TRY(done.first);
    co_return std::move(done.second);
}

core::result<json> measure(machine& here, const compress::codec& codec, const core::tensor_manifest& model,
                           std::span<const float> values, const codec_wishes& w, const stopwatch& watch) {
    const auto chunks = chunk_grid::of(model.elements(), codec).count();
    const compress::rounding how{w.stochastic, 1};
    std::vector<core::byte_vector> wire(chunks);
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < chunks; ++i) {
        wire[i].resize(codec.range_bytes(range_of_chunk(model, codec, i)));
        bytes += wire[i].size() + chunk_header_bytes;
    }
    core::flat_buffer sum(values.size(), 0.0F);
    core::result<void> done = core::ok();
    const auto each_chunk = [&](const auto& work) {
        for (std::uint32_t i = 0; i < chunks && done; ++i) {
            const auto r = range_of_chunk(model, codec, i);
            done = work(r, i);
        }
    };
    const auto encode = [&] {
        each_chunk([&](const compress::range& r, std::uint32_t i) {
            return codec.encode(r, values.subspan(r.first(), r.size()), how, wire[i]);
        });
    };
    const auto add = [&] {
        each_chunk([&](const compress::range& r, std::uint32_t i) {
            return codec.add(r, wire[i], {0.5F, 0.5F}, std::span(sum).subspan(r.first(), r.size()));
        });
    };
    const double encode_seconds = watch.best(encode), add_seconds = watch.best(add);
    // What a node does: compensates, encodes and keeps what is lost in one pass. Each run finds what the last one left.
    core::flat_buffer local(values.begin(), values.end()), residual(values.size(), 0.0F);
    const compress::payload_source source{values, residual, 0.95F, local, residual};
    compress::mass_sums sums;
    std::vector<core::byte_vector> other(wire);
    const double feedback_seconds = watch.best([&] {
        each_chunk([&](const compress::range& r, std::uint32_t i) {
            return compress::encode(source, codec, r, how, other[i], sums);
        });
    });
    // The same in two threads, every other chunk each.
    std::array<compress::mass_sums, 2> both_sums;
    std::array<core::result<void>, 2> both_done{core::ok(), core::ok()};
    const std::function<void(std::uint32_t)> every_other = [&](std::uint32_t which) {
        for (auto i = which; i < chunks && both_done[which]; i += 2) {
            const auto r = range_of_chunk(model, codec, i);
            both_done[which] = compress::encode(source, codec, r, how, other[i], both_sums[which]);
        }
    };
    core::result<void> ran = core::ok();
    const double two_seconds = watch.best([&] { ran = here.run(on_two_threads(here.workers, every_other)); });
    LONGHAUL_TRY(ran);
    for (const auto& half : both_done) LONGHAUL_TRY(half);
    std::ranges::fill(sum, 0.0F);
    double lost = 0, all = 0;
    each_chunk([&](const compress::range& r, std::uint32_t i) {
        return codec.decode(r, wire[i], std::span(sum).subspan(r.first(), r.size()));
    });
    LONGHAUL_TRY(done);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto x = static_cast<double>(values[i]), d = static_cast<double>(sum[i]) - x;
        lost += d * d;
        all += x * x;
    }
    const auto raw = static_cast<double>(values.size()) * 4;
    json j;
    j["codec"] = codec.name();
    j["bits_per_element"] = static_cast<double>(bytes) * 8 / static_cast<double>(values.size());
    j["encode_bytes_per_second"] = raw / encode_seconds;
    j["feedback_bytes_per_second"] = raw / feedback_seconds;
    j["two_threads_bytes_per_second"] = raw / two_seconds;
    j["decode_bytes_per_second"] = raw / add_seconds;
    j["relative_error"] = std::sqrt(lost / all);
    return j;
}

core::result<int> bench(const codec_wishes& w) {
    machine here(2);
    const stopwatch watch(here.clock, w.repeat);
    const auto n = static_cast<std::size_t>(w.elements);
    std::vector<core::tensor_spec> specs(1);
    specs[0].name = "w";
    // Rows, for codecs that look at matrices.
    constexpr std::int64_t width = 1024;
    specs[0].shape = {1, w.elements};
    if (w.elements % width == 0) specs[0].shape = {w.elements / width, width};
    LONGHAUL_TRY_ASSIGN(const auto model, core::tensor_manifest::make(std::move(specs)));
    const auto values = values_of(n);
    core::flat_buffer copy(n);
    const double copying = watch.best([&] { std::memcpy(copy.data(), values.data(), n * sizeof(float)); });
    const double memcpy_speed = static_cast<double>(n) * 4 / copying;
    copy = {};
    json all = json::array();
    if (!w.as_json)
        fmt::print(
            "{} elements, kernels {}, memcpy {:.1f} GB/s; GB of f32 a second\n{:<14}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}\n",
            n, compress::best_kernels().name, memcpy_speed * 1e-9, "codec", "bits", "encode", "with ef", "2 cores",
            "add", "error");
    for (const auto& name : w.codecs.empty() ? compress::codec_names() : w.codecs) {
        LONGHAUL_TRY_ASSIGN(const auto codec, compress::find_codec(name));
        LONGHAUL_TRY_ASSIGN(auto row, measure(here, *codec, model, values, w, watch));
        row["memcpy_bytes_per_second"] = memcpy_speed;
        row["elements"] = n;
        row["rounding"] = w.stochastic ? "stochastic" : "nearest";
        row["kernels"] = compress::best_kernels().name;
        if (!w.as_json) {
            fmt::print("{:<14}{:>9.3f}{:>9.2f}{:>9.2f}{:>9.2f}{:>9.2f}{:>9.4f}\n", name,
                       row["bits_per_element"].get<double>(), row["encode_bytes_per_second"].get<double>() * 1e-9,
                       row["feedback_bytes_per_second"].get<double>() * 1e-9,
                       row["two_threads_bytes_per_second"].get<double>() * 1e-9,
                       row["decode_bytes_per_second"].get<double>() * 1e-9, row["relative_error"].get<double>());
            std::fflush(stdout);
        }
        all.push_back(std::move(row));
    }
    if (w.as_json) std::puts(core::json_text(all).c_str());
    return 0;
}

}  // namespace

void add_bench_codec(CLI::App& bench_command, action& chosen) {
    auto* command = bench_command.add_subcommand("codec", "how fast, small and exact the codecs are, on one core");
    const auto w = std::make_shared<codec_wishes>();
    command->add_option("--elements", w->elements, "of the f32 tensor; default 32 Mi")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 33));
    command->add_option("--codec", w->codecs, "only this one; may be given again")
        ->check(CLI::IsMember(compress::codec_names()));
    command->add_option("--repeat", w->repeat, "measurements, of which the fastest counts; default 5")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1000}));
    command->add_flag("--stochastic", w->stochastic, "round at random where a codec can");
    command->add_flag("--json", w->as_json, "for programs");
    command->callback([w, &chosen] { chosen = [w] { return bench(*w); }; });
}

}  // namespace longhaul::peers::command
