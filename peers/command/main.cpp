/// The command `longhaul`. One small file a subcommand in this folder.

#include <google/protobuf/stubs/logging.h>
#include <malloc.h>
#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/config.hpp"
#include "core/posix_file.hpp"
#include "net/hello.hpp"
#include "peers/command/command.hpp"
#include "peers/command/environment.hpp"

namespace {

using namespace longhaul;

int complain(const core::error& e) {
    if (e.code == core::errc::cancelled) return 0;
    std::fprintf(stderr, "longhaul: %s\n", e.message.c_str());
    return core::exit_code_of(e.code);
}

/// The first word that should name a command and names none. CLI11 only says that one is missing.
core::result<void> check_words(const CLI::App& app, int argc, char** argv) {
    const CLI::App* at = &app;
    std::string path = "longhaul";
    for (int i = 1; i < argc && *argv[i] != '-'; ++i) {
        const auto commands = at->get_subcommands({});
        if (commands.empty()) break;
        const std::string word = argv[i];
        std::vector<std::string> known;
        const CLI::App* found = nullptr;
        for (const auto* c : commands) {
            known.push_back(c->get_name());
            if (c->get_name() == word) found = c;
        }
        if (found == nullptr) {
            const auto near = core::nearest(word, known);
            return core::fail(core::errc::usage, "there is no command \"{} {}\"{}; see \"{} --help\"", path,
                              word.substr(0, 64), near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near),
                              path);
        }
        at = found;
        path += " " + word;
    }
    return core::ok();
}

/// CLI11's messages begin with a flag's name and have no final word; the way out is the same for all.
int usage(const CLI::App& app, const CLI::ParseError& e) {
    std::string command = "longhaul";
    for (const auto* chosen : app.get_subcommands()) command += " " + chosen->get_name();
    std::fprintf(stderr, "longhaul: %s; see \"%s --help\"\n", e.what(), command.c_str());
    return core::exit_code_of(core::errc::usage);
}

/// Who asked must not take an answer that was cut short for the whole one.
int carry_out(const peers::command::action& chosen) {
    try {
        const auto outcome = chosen();
        if (!outcome) return complain(outcome.error());
        if (std::fflush(stdout) == 0) return *outcome;
        return complain(core::system_error(errno, "write to stdout"));
    } catch (const std::exception& e) {
        return complain({core::errc::internal, fmt::format("unexpected: {}; please report this", e.what())});
    }
}

}  // namespace

int main(int argc, char** argv) {
    // Buffers of the model's size go back to the system when they are freed. glibc would raise this bound to 32 MiB by
    // and by, and keep a heap whose holes fit nothing: half as much memory again.
    ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
    // A peer or a reader that went away is an error value of the write, not the end of the process.
    std::signal(SIGPIPE, SIG_IGN);
    // Threads of the trainer's maths sleep while they wait: spinning on shared cores makes a step ten times slower.
    ::setenv("OMP_WAIT_POLICY", "PASSIVE", 0);
    // Strangers' bytes must not write on our stderr.
    google::protobuf::SetLogHandler(nullptr);

    CLI::App app("longhaul trains one model across machines that only the internet joins.", "longhaul");
    app.require_subcommand(1);
    peers::command::action chosen;
    if constexpr (!net::null_cipher) {
        peers::command::add_run(app, chosen);
        peers::command::add_join(app, chosen);
    }
    peers::command::add_queries(app, chosen);
    peers::command::add_plan(app, chosen);
    peers::command::add_probe(app, chosen);
    peers::command::add_requests(app, chosen);
    peers::command::add_bench(app, chosen);
    peers::command::add_lab(app, chosen);
    peers::command::add_ckpt(app, chosen);
    peers::command::add_keygen(app, chosen);
    peers::command::add_doctor(app, chosen);
    peers::command::add_version(app, chosen);
    peers::command::add_python(app, chosen);
    std::string footer =
        "Each key of the configuration is a variable, too (inner.lr: LONGHAUL_INNER_LR), and there are:\n";
    for (const auto& v : peers::command::other_variables) footer += fmt::format("  {:<26}{}\n", v.name, v.help);
    app.footer(footer);
    if (const auto checked = check_words(app, argc, argv); !checked) return complain(checked.error());
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        std::fputs(app.help().c_str(), stdout);
        return 0;
    } catch (const CLI::CallForVersion&) {
        std::puts(app.version().c_str());
        return 0;
    } catch (const CLI::ParseError& e) {
        return usage(app, e);
    }
    if (!chosen) return complain({core::errc::internal, "no action for this command; please report this"});
    if (const auto checked = peers::command::check_environment(); !checked) return complain(checked.error());
    return carry_out(chosen);
}
