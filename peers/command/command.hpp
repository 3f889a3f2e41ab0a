#pragma once
/// How `longhaul` is put together: each subcommand registers its flags and, when the command line names it, hands main
/// an action. Nothing is done while the line is still being parsed.

#include <functional>
#include <string>
#include <vector>

#include "core/result.hpp"

namespace CLI {
class App;
}

namespace longhaul::peers::command {

/// Does what was asked and returns the exit code; an error becomes one sentence on stderr and its exit code.
using action = std::function<core::result<int>()>;

void add_run(CLI::App& app, action& chosen);
void add_join(CLI::App& app, action& chosen);
/// stop, pause, resume and leave: requests to a daemon on this machine.
void add_requests(CLI::App& app, action& chosen);
/// status and peers.
void add_queries(CLI::App& app, action& chosen);
/// What rounds would take on links that one only thinks of.
void add_plan(CLI::App& app, action& chosen);
void add_probe(CLI::App& app, action& chosen);
/// Measurements between machines and on one.
void add_bench(CLI::App& app, action& chosen);
void add_bench_allreduce(CLI::App& bench, action& chosen);
void add_bench_codec(CLI::App& bench, action& chosen);
void add_bench_transfer(CLI::App& bench, action& chosen);
/// Of what a benchmark measured; 0 of nothing.
double median(std::vector<double> values);
void add_ckpt(CLI::App& app, action& chosen);
/// lab (and sim, its twin in virtual time).
void add_lab(CLI::App& app, action& chosen);
void add_keygen(CLI::App& app, action& chosen);
void add_doctor(CLI::App& app, action& chosen);
void add_version(CLI::App& app, action& chosen);
/// launch, top and plot: the Python package.
void add_python(CLI::App& app, action& chosen);

}  // namespace longhaul::peers::command
