#include "peers/command/arguments.hpp"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "peers/command/environment.hpp"
#include "peers/command/files.hpp"

namespace longhaul::peers::command {

namespace {

constexpr std::size_t max_toml_bytes = 1 << 20;

struct named_flag {
    const char* spelling;
    const char* key;
    const char* help;
};

constexpr named_flag node_flags[] = {
    {"--listen", "node.listen", "HOST:PORT to listen on; :7400 is all addresses, port 0 any free one"},
    {"--advertise", "node.advertise", "HOST[:PORT] by which others reach this node; several with commas"},
    {"--data", "node.data", "this node's copy of the data"},
    {"--device", "node.device", "auto, cpu or cuda:N"},
    {"--threads", "node.threads", "threads of the trainer; 0: all cores"},
    {"--up-limit", "node.up_limit", "most that this node sends, like \"50 Mbit/s\""},
    {"--down-limit", "node.down_limit", "most that this node receives"},
    {"--name", "node.name", "of this node, for people"},
    {"--log-format", "node.log_format", "console, logfmt or json"},
    {"--memory", "node.memory", "limit of all buffers together, for example \"4 GiB\""},
};

constexpr named_flag run_flags[] = {
    {"--run-name", "name", "of the run"},
    {"--rounds", "stop.rounds", "the run ends after so many rounds of inner.steps"},
    {"--inner-steps", "inner.steps", "H: inner steps from one exchange to the next"},
    {"--lr", "inner.lr", "highest learning rate of the inner optimizer"},
    {"--batch", "inner.batch", "sequences or samples of a step"},
    {"--codec", "exchange.codec", "f32, bf16, int8, int4, e3m0, …"},
    {"--admission", "peers.admission", "invite or open"},
    {"--min-peers", "peers.min", "members before the first round starts"},
};

bool is_node_key(std::string_view key) { return key.starts_with("node."); }

/// What the flags say of keys that `wanted` accepts.
core::result<core::config_values> from_flags(const arguments& a, bool (*wanted)(std::string_view)) {
    core::config_values out;
    for (const auto& setting : a.settings) {
        const auto equals = setting.find('=');
        if (equals == 0 || equals == std::string::npos) {
            return core::fail(core::errc::usage, "--set {} is not KEY=VALUE (for example --set inner.lr=0.01)",
                              setting);
        }
        const auto key = setting.substr(0, equals);
        if (wanted(key)) out.set(key, setting.substr(equals + 1), "--set " + key);
    }
    const auto take = [&](const named_flag& flag) {
        const auto given = a.flags.find(flag.spelling);
        if (given != a.flags.end() && wanted(flag.key)) out.set(flag.key, given->second, flag.spelling);
    };
    for (const auto& flag : node_flags) take(flag);
    for (const auto& flag : run_flags) take(flag);
    return out;
}

core::result<core::config_values> from_file(const std::string& path, std::string_view what) {
    const auto text = read_file(path, max_toml_bytes, what);
    // Whatever hinders the reading, a folder in its place or its size: it is the configuration that is wrong.
    if (!text) return core::fail(core::errc::config, "{}; name a file of TOML", text.error().message);
    return core::config_values::from_toml(*text, path);
}

/// A relative data.path of a file is meant from that file's folder, wherever longhaul is started. Absolute, so that
/// --print-config means the same wherever it is read back.
core::result<void> anchor_data_path(run_config& c, const core::config_values& values, const std::string& file) {
    const auto* path = values.find("data.path");
    if (path == nullptr || c.data.path.empty()) return core::ok();
    std::filesystem::path anchored = c.data.path;
    if (!file.empty() && path->origin.text.starts_with(file + ":"))
        anchored = std::filesystem::path(file).parent_path() / anchored;
    std::error_code e;
    const auto absolute = std::filesystem::absolute(anchored, e);
    if (e)
        return core::fail(core::errc::config, "data.path = \"{}\" has no absolute path: {}", c.data.path, e.message());
    c.data.path = absolute.lexically_normal().string();
    return core::ok();
}

/// `text` as comments.
std::string commented(const std::string& text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        out += "# " + text.substr(at, end - at) + "\n";
        at = end + 1;
    }
    return out;
}

/// What --print-config prints. It reads back as RUN.toml; without the run's part, as node.toml.
std::string printed(const std::string& run_part, const std::string& node_part) {
    if (run_part.empty()) return node_part;
    return run_part + "\n# Of this node alone: node.toml in its state folder, LONGHAUL_NODE_* or flags.\n" +
           commented(node_part);
}

}  // namespace

void add_arguments(CLI::App& command, arguments& into, bool founder) {
    const auto add = [&](const named_flag& flag) {
        command.add_option_function<std::string>(
            flag.spelling, [&into, spelling = flag.spelling](const std::string& text) { into.flags[spelling] = text; },
            flag.help);
    };
    for (const auto& flag : node_flags) add(flag);
    command.add_option("--state-dir", into.state_dir, "folder of this node's identity, checkpoints and events");
    command.add_option("--node-config", into.node_file, "node.toml; default: the one in the state folder");
    command.add_option("--set", into.settings, "KEY=VALUE: any key, for example inner.lr=0.01")->take_all();
    command.add_option("--trainer", into.trainer, "auto, torch or quadratic")
        ->check(CLI::IsMember({"auto", "torch", "quadratic"}));
    command.add_flag("--json-ready", into.json_ready, "say \"ready\" as one JSON line on stdout");
    command.add_option("--die-with-fd", into.die_with_fd, "stop when this inherited file descriptor ends")
        ->check(CLI::Range(0, 1 << 20));
    command.add_flag("--print-config", into.print_config, "print the configuration with origins, and do nothing");
    if (!founder) return;
    for (const auto& flag : run_flags) add(flag);
    command.add_option("--fit-budget", into.fit_budget,
                       "scale the run to about this time on this machine, for example \"150 s\"");
    command.add_option("--fit-peers", into.fit_peers, "peers that will share this machine's cores")
        ->check(CLI::Range(1, 1024));
    command.add_option("--fit-exchange", into.fit_exchange, "what a round takes beside its steps: more on slow links")
        ->capture_default_str();
}

core::result<resolved> resolve(const arguments& a, bool founder, const std::string& name_if_unknown) {
    const auto environment = environment_strings();
    resolved out;
    core::config_binder run_binder;
    bind(run_binder, out.run);
    core::config_values run_values;
    if (!a.run_file.empty()) {
        LONGHAUL_TRY_ASSIGN(run_values, from_file(a.run_file, "the run's configuration"));
    }
    LONGHAUL_TRY_ASSIGN(const auto run_flags_given,
                        from_flags(a, [](std::string_view key) { return !is_node_key(key); }));
    if (!founder && a.run_file.empty() && !run_flags_given.values().empty()) {
        return core::fail(core::errc::usage,
                          "--set {} would change the run, which its founder has fixed: a joiner sets node.* only",
                          run_flags_given.values().begin()->first);
    }
    // A joiner without RUN.toml takes the run as it is, whatever the environment says.
    if (founder || !a.run_file.empty()) {
        run_values.merge(core::config_values::from_environment(environment, run_binder.keys()));
        run_values.merge(run_flags_given);
        LONGHAUL_TRY(run_binder.apply(run_values));
        LONGHAUL_TRY(anchor_data_path(out.run, run_values, a.run_file));
        LONGHAUL_TRY(validate(out.run));
        out.run_given = true;
    }
    LONGHAUL_TRY_ASSIGN(out.state_dir, state_dir(a.state_dir, out.run_given ? out.run.name : name_if_unknown));

    core::config_binder node_binder;
    bind(node_binder, out.node);
    core::config_values node_values;
    const auto node_file = a.node_file.empty() ? out.state_dir + "/node.toml" : a.node_file;
    std::error_code unreachable;  // the storage says why, when it opens the folder
    if (!a.node_file.empty() || std::filesystem::exists(node_file, unreachable)) {
        LONGHAUL_TRY_ASSIGN(node_values, from_file(node_file, "this node's configuration"));
    }
    node_values.merge(core::config_values::from_environment(environment, node_binder.keys()));
    LONGHAUL_TRY_ASSIGN(const auto node_flags_given, from_flags(a, is_node_key));
    node_values.merge(node_flags_given);
    LONGHAUL_TRY(node_binder.apply(node_values));
    LONGHAUL_TRY(validate(out.node));
    out.shown = printed(out.run_given ? run_binder.print() : std::string(), node_binder.print());
    return out;
}

}  // namespace longhaul::peers::command
