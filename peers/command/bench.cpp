#include <CLI/CLI.hpp>
#include <algorithm>

#include "peers/command/command.hpp"

namespace longhaul::peers::command {

void add_bench(CLI::App& app, action& chosen) {
    auto* bench = app.add_subcommand("bench", "measure what links and machines can do, before or without a run");
    bench->require_subcommand(1);
    add_bench_transfer(*bench, chosen);
    add_bench_allreduce(*bench, chosen);
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values.empty() ? 0 : values[values.size() / 2];
}

}  // namespace longhaul::peers::command
