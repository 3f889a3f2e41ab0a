#include <CLI/CLI.hpp>

#include "peers/command/command.hpp"

namespace longhaul::peers::command {

void add_bench(CLI::App& app, action& chosen) {
    auto* bench = app.add_subcommand("bench", "measure what links and machines can do, before or without a run");
    bench->require_subcommand(1);
    add_bench_transfer(*bench, chosen);
    add_bench_allreduce(*bench, chosen);
    add_bench_codec(*bench, chosen);
}

}  // namespace longhaul::peers::command
