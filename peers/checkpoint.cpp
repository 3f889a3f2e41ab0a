#include "peers/checkpoint.hpp"

#include <algorithm>
#include <functional>

#include "core/hash.hpp"
#include "peers/checkpoint_format.hpp"

namespace longhaul::peers {

using core::errc;
using core::fail;
using core::result;
using core::task;

namespace {

constexpr auto top_folder = "checkpoints";
constexpr std::string_view unfinished_prefix = "writing-";
constexpr double hashed_per_second = 0.77e9;

std::string path_of(const std::string& folder, const std::string& name = {}) {
    return name.empty() ? fmt::format("{}/{}", top_folder, folder) : fmt::format("{}/{}/{}", top_folder, folder, name);
}

core::duration hashing_time(std::uint64_t bytes) {
    return core::from_seconds(static_cast<double>(bytes) / hashed_per_second);
}

/// Runs CPU work that gives a result.
template <typename T>
task<result<T>> computed(core::workers& on, std::uint64_t bytes, std::function<result<T>()> work) {
    result<T> out = fail(errc::internal, "the job did not run");
    std::function<void()> job = [&out, &work] { out = work(); };
    auto ran = co_await on.run(std::move(job), hashing_time(bytes));
    LONGHAUL_CO_TRY(ran);
    co_return out;
}

struct listing {
    std::vector<std::uint64_t> rounds;  ///< newest first
    std::vector<std::string> unfinished;
};

task<result<listing>> list_checkpoints(core::storage& files) {
    listing out;
    auto names = co_await files.list(top_folder);
    LONGHAUL_CO_TRY(names);
    for (std::string_view name : *names) {
        if (!name.ends_with('/')) continue;
        name.remove_suffix(1);
        if (const auto round = checkpoint_round(name)) out.rounds.push_back(*round);
        if (name.starts_with(unfinished_prefix)) out.unfinished.emplace_back(name);
    }
    std::ranges::sort(out.rounds, std::greater());
    co_return out;
}

task<result<checkpoint_state>> read_state(core::storage& files, std::string folder) {
    auto text = co_await files.read(path_of(folder, checkpoint_state_file), max_checkpoint_state);
    LONGHAUL_CO_TRY(text);
    auto state = parse_checkpoint_state(*text);
    if (!state) co_return fail(state.error().within(checkpoint_state_file));
    co_return std::move(*state);
}

task<result<void>> write_all(core::storage& files, const std::vector<checkpoint_file>& parts, std::string folder) {
    for (const auto& part : parts) {
        std::vector<core::const_bytes> pieces{part.head, part.body};
        auto put = co_await files.put(path_of(folder, part.name), std::move(pieces));
        LONGHAUL_CO_TRY(put);
    }
    co_return core::ok();
}

/// Reads back what was written, one file at a time.
task<result<void>> verify(core::storage& files, core::workers& on, const std::vector<checkpoint_file>& parts,
                          std::string folder) {
    for (const auto& part : parts) {
        auto content = co_await files.read(path_of(folder, part.name), part.bytes());
        LONGHAUL_CO_TRY(content);
        std::function<result<core::digest>()> work = [&content]() -> result<core::digest> {
            return core::hash(*content);
        };
        auto hash = co_await computed(on, part.bytes(), std::move(work));
        LONGHAUL_CO_TRY(hash);
        if (*hash != part.hash) co_return fail(errc::io, "{} reads back differently from what was written", part.name);
    }
    co_return core::ok();
}

task<result<void>> write_verified(core::storage& files, core::workers& on, const std::vector<checkpoint_file>& parts,
                                  std::string temporary, std::string final_name) {
    auto written = co_await write_all(files, parts, temporary);
    LONGHAUL_CO_TRY(written);
    auto verified = co_await verify(files, on, parts, temporary);
    LONGHAUL_CO_TRY(verified);
    auto removed = co_await files.remove(path_of(final_name));
    LONGHAUL_CO_TRY(removed);
    co_return co_await files.rename(path_of(temporary), path_of(final_name));
}

/// Removes what the checkpoint of `round` makes superfluous.
task<result<void>> prune(core::storage& files, core::digest run, std::uint64_t round, unsigned keep) {
    auto found = co_await list_checkpoints(files);
    LONGHAUL_CO_TRY(found);
    unsigned kept = 0;
    for (const auto r : found->rounds) {
        const auto folder = checkpoint_folder(r);
        if (r > round) {
            // Damaged ones, and those of another run, are left for a person to look at.
            auto state = co_await read_state(files, folder);
            if (!state || state->run != run) continue;
        } else if (++kept <= std::max(1U, keep)) {
            continue;
        }
        auto removed = co_await files.remove(path_of(folder));
        LONGHAUL_CO_TRY(removed);
    }
    co_return core::ok();
}

task<result<checkpoint>> load(core::storage& files, core::workers& on, const checkpoint_state& state,
                              std::string folder) {
    std::map<std::string, core::byte_vector> contents;
    for (const auto& [name, file] : state.files) {
        auto content = co_await files.read(path_of(folder, name), file.bytes);
        if (!content && content.error().code == errc::limit)
            co_return fail(errc::malformed, "{} has more than its {} bytes", name, file.bytes);
        LONGHAUL_CO_TRY(content);
        contents.emplace(name, std::move(*content));
    }
    std::function<result<checkpoint>()> work = [&state, &contents] { return assemble(state, std::move(contents)); };
    co_return co_await computed(on, state.total_bytes(), std::move(work));
}

}  // namespace

checkpoint_view::checkpoint_view(const checkpoint& c)
    : run(c.run),
      generation(c.generation),
      round(c.round),
      step(c.step),
      tokens(c.tokens),
      manifest(&c.manifest),
      anchor(c.anchor),
      momentum(c.momentum),
      residual(c.residual),
      said(c.said),
      inner(c.inner),
      extra_json(c.extra_json) {}

task<result<void>> save_checkpoint(core::storage& files, core::workers& workers, checkpoint_view c, unsigned keep) {
    auto found = co_await list_checkpoints(files);
    LONGHAUL_CO_TRY(found);
    for (const auto& leftover : found->unfinished) {
        auto removed = co_await files.remove(path_of(leftover));
        LONGHAUL_CO_TRY(removed);
    }
    std::function<result<std::vector<checkpoint_file>>()> work = [&c] { return lay_out(c); };
    const auto bytes =
        (c.anchor.size() + c.momentum.size() + c.residual.size() + c.said.size()) * sizeof(float) + c.inner.size();
    auto parts = co_await computed(workers, bytes, std::move(work));
    LONGHAUL_CO_TRY(parts);
    const auto folder = checkpoint_folder(c.round);
    const auto temporary = std::string(unfinished_prefix) + folder;
    auto written = co_await write_verified(files, workers, *parts, temporary, folder);
    if (!written) {
        // Its space is given back; what hinders that is not worth hiding the first error.
        auto removed = co_await files.remove(path_of(temporary));
        (void)removed;
        co_return fail(written.error().within(fmt::format("the checkpoint of round {} was not written", c.round)));
    }
    co_return co_await prune(files, c.run, c.round, keep);
}

task<result<std::optional<loaded_checkpoint>>> load_newest_checkpoint(core::storage& files, core::workers& workers,
                                                                      std::uint64_t max_bytes,
                                                                      std::optional<core::digest> run) {
    auto found = co_await list_checkpoints(files);
    LONGHAUL_CO_TRY(found);
    std::vector<std::string> skipped;
    for (const auto round : found->rounds) {
        const auto folder = checkpoint_folder(round);
        const auto damaged = [&](const core::error& e) {
            skipped.push_back(
                fmt::format("the checkpoint of round {} is damaged and was skipped: {}", round, e.message));
        };
        auto state = co_await read_state(files, folder);
        if (!state && state.error().code == errc::cancelled) co_return fail(state.error());
        if (!state) {
            damaged(state.error());
            continue;
        }
        if (run && state->run != *run) continue;
        if (state->round != round) {
            damaged(core::error(errc::malformed, fmt::format("it is of round {}", state->round)));
            continue;
        }
        if (state->total_bytes() > max_bytes)
            co_return fail(errc::limit, "the checkpoint of round {} has {} bytes, more than {}", round,
                           state->total_bytes(), max_bytes);
        auto value = co_await load(files, workers, *state, folder);
        if (!value && value.error().code == errc::cancelled) co_return fail(value.error());
        if (!value) {
            damaged(value.error());
            continue;
        }
        loaded_checkpoint out;
        out.value = std::move(*value);
        out.skipped = std::move(skipped);
        std::optional<loaded_checkpoint> newest(std::move(out));
        co_return newest;
    }
    if (skipped.empty()) co_return std::optional<loaded_checkpoint>();
    std::string all;
    for (const auto& sentence : skipped) all += (all.empty() ? "" : "; ") + sentence;
    co_return fail(errc::malformed, "no checkpoint can be used: {}; remove the folder \"{}\" to start without", all,
                   top_folder);
}

}  // namespace longhaul::peers
