#include "sim/sim_storage.hpp"

#include <algorithm>
#include <set>

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace longhaul::sim {

namespace {

bool inside(const std::string& path, const std::string& folder) {
    return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

}  // namespace

/// The storage seam of one process.
class process_storage final : public core::storage {
public:
    process_storage(disk& d, process& p) : disk_(d), process_(p) {}

    core::task<core::result<core::byte_vector>> read(std::string path, std::uint64_t max_bytes) override {
        LONGHAUL_CO_TRY(core::check_storage_path(path));
        const auto found = disk_.files_.find(path);
        const std::uint64_t size = found == disk_.files_.end() ? 0 : found->second.size();
        auto waited = co_await process_.finish(disk_.done_at(size <= max_bytes ? size : 0));
        LONGHAUL_CO_TRY(waited);
        const auto now_found = disk_.files_.find(path);
        if (now_found == disk_.files_.end()) co_return core::fail(core::errc::not_found, "'{}' does not exist", path);
        if (now_found->second.size() > max_bytes) {
            co_return core::fail(core::errc::limit, "'{}' has {} bytes, more than the {} allowed", path,
                                 now_found->second.size(), max_bytes);
        }
        co_return now_found->second;
    }
    core::task<core::result<void>> put(std::string path, std::vector<core::const_bytes> pieces) override {
        disk::change c{disk::kind::put, std::move(path), {}, {}};
        for (const auto& p : pieces) c.data.insert(c.data.end(), p.begin(), p.end());
        return perform(std::move(c));
    }
    core::task<core::result<void>> append(std::string path, core::const_bytes data) override {
        return perform({disk::kind::append, std::move(path), {}, core::byte_vector(data.begin(), data.end())});
    }
    core::task<core::result<std::vector<std::string>>> list(std::string folder) override {
        while (folder.ends_with('/')) folder.pop_back();
        if (!folder.empty()) LONGHAUL_CO_TRY(core::check_storage_path(folder));
        auto waited = co_await process_.finish(disk_.done_at(0));
        LONGHAUL_CO_TRY(waited);
        std::set<std::string> names;
        for (const auto& [path, content] : disk_.files_) {
            if (!folder.empty() && !inside(path, folder)) continue;
            const auto rest = folder.empty() ? path : path.substr(folder.size() + 1);
            const auto slash = rest.find('/');
            names.insert(slash == std::string::npos ? rest : rest.substr(0, slash + 1));
        }
        co_return std::vector<std::string>(names.begin(), names.end());
    }
    core::task<core::result<void>> remove(std::string path) override {
        return perform({disk::kind::remove, std::move(path), {}, {}});
    }
    core::task<core::result<void>> rename(std::string from, std::string to) override {
        return perform({disk::kind::rename, std::move(from), std::move(to), {}});
    }

private:
    /// Starts the change, waits, and makes it: all or nothing unless the node dies in between.
    core::task<core::result<void>> perform(disk::change c) {
        while (c.what == disk::kind::remove && c.path.ends_with('/')) c.path.pop_back();
        LONGHAUL_CO_TRY(core::check_storage_path(c.path));
        if (c.what == disk::kind::rename) LONGHAUL_CO_TRY(core::check_storage_path(c.to));
        if (process_.dead()) co_return core::fail(dying());
        const auto until = disk_.done_at(c.data.size());
        const auto mine = disk_.under_way_.insert(disk_.under_way_.end(), std::move(c));
        auto waited = co_await process_.finish(until);
        // The crash has already decided about it.
        if (!waited || process_.dead()) co_return core::fail(dying());
        disk::change due = std::move(*mine);
        disk_.under_way_.erase(mine);
        co_return disk_.apply(due);
    }

    disk& disk_;
    process& process_;
};

disk::disk(world& w, std::uint32_t node, disk_options options)
    : world_(w),
      node_(node),
      options_(options),
      entropy_(w.seed(), fmt::format("disk {}", node)),
      line_(options.rate) {}

std::uint64_t disk::used() const {
    std::uint64_t sum = 0;
    for (const auto& [path, content] : files_) sum += content.size();
    return sum;
}

void disk::flip_bit(const std::string& path, std::uint64_t bit) {
    auto& content = files_.at(path);
    content.at(bit / 8) ^= static_cast<std::byte>(1U << (bit % 8));
}

void disk::rot(std::string_view prefix) {
    std::vector<std::string> paths;
    for (const auto& [path, content] : files_) {
        if (path.starts_with(prefix) && !content.empty()) paths.push_back(path);
    }
    if (paths.empty()) return;
    const auto& path = paths[entropy_.below(paths.size())];
    flip_bit(path, entropy_.below(files_.at(path).size() * 8));
}

std::unique_ptr<core::storage> disk::attach(process& p) { return std::make_unique<process_storage>(*this, p); }

virtual_time disk::done_at(std::uint64_t bytes) {
    return line_.pass(world_.now(), world_.now(), bytes) + options_.latency;
}

bool disk::is_folder(const std::string& path) const {
    const auto next = files_.upper_bound(path + "/");
    return next != files_.end() && inside(next->first, path);
}

void disk::fold(const change& c, std::uint64_t bytes) {
    const auto what = static_cast<std::uint64_t>(c.what);
    world_.fold(action::store, node_, what, bytes, core::as_bytes(c.path));
    if (c.what == kind::rename) world_.fold(action::store, node_, what, bytes, core::as_bytes(c.to));
    if (!c.data.empty()) world_.fold(action::store, node_, what, bytes, core::const_bytes(c.data).first(bytes));
}

core::result<void> disk::apply(change& c) {
    const bool writes = c.what == kind::put || c.what == kind::append;
    // A put needs room for the old and the new file: the old one goes only when the new one is safe.
    if (writes && options_.capacity != 0 && used() + c.data.size() > options_.capacity) {
        return core::fail(core::errc::no_space, "the disk is full: {} bytes for '{}' do not fit", c.data.size(),
                          c.path);
    }
    if (failing_syncs_ > 0) {
        --failing_syncs_;
        if (c.what == kind::append) {
            const auto kept = entropy_.below(c.data.size() + 1);
            auto& file = files_[c.path];
            file.insert(file.end(), c.data.begin(), c.data.begin() + static_cast<std::ptrdiff_t>(kept));
            fold(c, kept);
        }
        return core::fail(core::errc::io, "'{}' could not be synced to the disk", c.path);
    }
    fold(c, c.data.size());
    switch (c.what) {
        case kind::put:
            if (is_folder(c.path)) return core::fail(core::errc::io, "'{}' is a folder", c.path);
            files_[c.path] = std::move(c.data);
            break;
        case kind::append: {
            if (is_folder(c.path)) return core::fail(core::errc::io, "'{}' is a folder", c.path);
            auto& file = files_[c.path];
            file.insert(file.end(), c.data.begin(), c.data.end());
            break;
        }
        case kind::remove:
            std::erase_if(files_, [&](const auto& f) { return f.first == c.path || inside(f.first, c.path); });
            break;
        case kind::rename: {
            if (files_.contains(c.to) || is_folder(c.to)) {
                return core::fail(core::errc::io, "cannot rename '{}': '{}' exists", c.path, c.to);
            }
            if (auto moved = files_.extract(c.path)) {
                moved.key() = c.to;
                files_.insert(std::move(moved));
                break;
            }
            if (!is_folder(c.path)) return core::fail(core::errc::not_found, "'{}' does not exist", c.path);
            std::map<std::string, core::byte_vector> after;
            for (auto& [path, content] : files_) {
                const auto name = inside(path, c.path) ? c.to + path.substr(c.path.size()) : path;
                after[name] = std::move(content);
            }
            files_ = std::move(after);
            break;
        }
    }
    return core::ok();
}

void disk::crash() {
    // Each change that was under way has happened, or has not; an append or the removal of a folder perhaps in part.
    for (auto& c : under_way_) {
        switch (c.what) {
            case kind::put:
            case kind::rename:
                if (entropy_.below(2) == 1) (void)apply(c);
                break;
            case kind::append:
                c.data.resize(entropy_.below(c.data.size() + 1));
                (void)apply(c);
                break;
            case kind::remove: {
                std::vector<std::string> doomed;
                for (const auto& [path, content] : files_) {
                    if (path == c.path || inside(path, c.path)) doomed.push_back(path);
                }
                doomed.resize(entropy_.below(doomed.size() + 1));
                for (const auto& path : doomed) files_.erase(path);
                fold(c, 0);
                break;
            }
        }
    }
    under_way_.clear();
}

}  // namespace longhaul::sim
