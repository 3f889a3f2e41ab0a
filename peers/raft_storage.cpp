#include "peers/raft_storage.hpp"

#include "core/hash.hpp"

namespace longhaul::peers::raft {

using core::errc;
using core::fail;

namespace {

std::string log_name(std::uint64_t number) { return fmt::format("log-{:012}", number); }

}  // namespace

std::string folder_of(std::uint64_t branch) { return branch == 0 ? "raft" : fmt::format("raft-{:x}", branch); }

std::string disk_log::log_path(std::uint64_t number) const { return folder_ + "/" + log_name(number); }

core::task<core::result<void>> disk_log::create(voter_id self, core::digest generation, durable_state content) {
    usable_ = false;
    auto old = co_await storage_.read(state_path(), limits_.file_bytes);
    if (old) co_return fail(errc::io, "there is a voter's log already: {}", state_path());
    if (old.error().code != errc::not_found) co_return fail(old.error());
    state_ = {self, generation, 0, std::move(content)};
    co_return co_await renew();
}

core::task<core::result<durable_state>> disk_log::open(voter_id self, core::digest generation) {
    usable_ = false;
    auto bytes = co_await storage_.read(state_path(), limits_.file_bytes);
    LONGHAUL_CO_TRY(bytes);
    auto parsed = parse_disk_state(*bytes);
    if (!parsed) co_return fail(parsed.error().within("the voter's log is damaged, " + state_path()));
    state_ = std::move(*parsed);
    if (state_.self != self || state_.generation != generation) {
        co_return fail(errc::run_mismatch, "{} belongs to peer {} in generation {}", state_path(), state_.self.brief(),
                       state_.generation.brief());
    }
    const auto hash = core::hash(*bytes);
    auto replayed = co_await replay(hash);
    LONGHAUL_CO_TRY(replayed);
    auto alone = co_await check_other_logs();
    LONGHAUL_CO_TRY(alone);
    auto renewed = co_await renew();
    LONGHAUL_CO_TRY(renewed);
    co_return state_.content;
}

/// The log begins with an empty frame, written before its state: a state without it has lost its log.
core::task<core::result<void>> disk_log::replay(core::digest hash) {
    const auto path = log_path(state_.number);
    auto log = co_await storage_.read(path, limits_.file_bytes);
    if (!log && log.error().code == errc::not_found) {
        co_return fail(errc::malformed, "the voter's log {} is gone: this node has forgotten what it agreed to", path);
    }
    LONGHAUL_CO_TRY(log);
    core::const_bytes rest(*log);
    std::uint64_t frames = 0;
    for (;; ++frames) {
        LONGHAUL_CO_TRY_ASSIGN(const auto next, next_frame(hash, frames, rest));
        if (!next) break;
        for (const auto& w : next->writes) {
            auto applied = apply(state_.content, w);
            if (!applied) co_return fail(applied.error().within("the voter's log " + path));
        }
        rest = rest.subspan(next->bytes);
    }
    // What a power cut tears is the last frame, and it was never acknowledged. Anything whole behind the damage was.
    if (frames == 0 || (!rest.empty() && has_frame(hash, frames, rest.subspan(1)))) {
        co_return fail(errc::malformed, "the voter's log {} is damaged behind write {}", path, frames);
    }
    co_return core::ok();
}

/// A crash in `renew` leaves at most the beginning of the next log. Frames in it say that its state was lost since:
/// this one is an older copy.
core::task<core::result<void>> disk_log::check_other_logs() {
    auto names = co_await storage_.list(folder_);
    LONGHAUL_CO_TRY(names);
    const auto own = log_name(state_.number), next = log_name(state_.number + 1);
    for (const auto& name : *names) {
        if (!name.starts_with("log-") || name == own) continue;
        const auto path = folder_ + "/" + name;
        const bool later = name > own;
        auto other = co_await storage_.read(path, limits_.file_bytes);
        LONGHAUL_CO_TRY(other);
        if (later && (name != next || other->size() > frame_of({}, 0, {}).size())) {
            co_return fail(errc::malformed, "{} is older than {}: this node has forgotten what it agreed to",
                           state_path(), path);
        }
        auto removed = co_await storage_.remove(path);
        LONGHAUL_CO_TRY(removed);
    }
    co_return core::ok();
}

/// Writes the state anew, with an empty log behind it.
core::task<core::result<void>> disk_log::renew() {
    usable_ = false;
    const auto before = state_.number++;
    const auto bytes = serialize(state_);
    if (bytes.size() > limits_.file_bytes) {
        co_return fail(errc::limit, "the voter's log takes {} bytes, more than the {} that are read back", bytes.size(),
                       limits_.file_bytes);
    }
    hash_ = core::hash(bytes);
    // The log first, of an attempt that came to nothing perhaps: behind a state that is there, it must be there.
    auto cleared = co_await storage_.remove(log_path(state_.number));
    LONGHAUL_CO_TRY(cleared);
    const auto beginning = frame_of(hash_, 0, {});
    auto begun = co_await storage_.append(log_path(state_.number), beginning);
    LONGHAUL_CO_TRY(begun);
    std::vector<core::const_bytes> pieces;
    pieces.emplace_back(bytes);
    auto written = co_await storage_.put(state_path(), std::move(pieces));
    LONGHAUL_CO_TRY(written);
    auto removed = co_await storage_.remove(log_path(before));
    LONGHAUL_CO_TRY(removed);
    frames_ = 1;
    log_bytes_ = beginning.size();
    usable_ = true;
    co_return core::ok();
}

core::task<core::result<void>> disk_log::write(std::vector<disk_write> writes) {
    if (!usable_) co_return fail(errc::io, "the voter's log cannot be written since an earlier error");
    usable_ = false;  // until it is known to be written whole
    bool snapshot = false;
    for (const auto& w : writes) {
        auto applied = apply(state_.content, w);
        if (!applied) co_return fail(errc::internal, "{}", applied.error().message);
        snapshot = snapshot || w.base;
    }
    if (snapshot) co_return co_await renew();
    const auto next = frame_of(hash_, frames_, writes);
    if (log_bytes_ + next.size() > limits_.log_bytes) co_return co_await renew();
    auto written = co_await storage_.append(log_path(state_.number), next);
    if (!written) co_return fail(written.error().within("writing the voter's log"));
    ++frames_;
    log_bytes_ += next.size();
    usable_ = true;
    co_return core::ok();
}

}  // namespace longhaul::peers::raft
