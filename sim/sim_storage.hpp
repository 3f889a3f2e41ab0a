#pragma once
/// A disk in memory. What `put` and `append` returned for is durable; a crash in the middle leaves what a real disk may
/// leave, drawn from the world's seed.

#include <list>
#include <map>
#include <memory>
#include <string>

#include "core/entropy.hpp"
#include "core/storage.hpp"
#include "sim/link_model.hpp"

namespace longhaul::sim {

class process;
class world;

struct disk_options {
    core::duration latency = std::chrono::milliseconds(1);  ///< of each operation, fsync included
    core::bit_rate rate{4e9};                               ///< of reading and writing; zero: unlimited
    std::uint64_t capacity = 0;                             ///< bytes; zero: unlimited
};

/// The disk of a node: outlives its processes.
class disk {
public:
    disk(world& w, std::uint32_t node, disk_options options);

    // Seeing and damaging, from outside.

    const std::map<std::string, core::byte_vector>& files() const { return files_; }
    std::uint64_t used() const;
    void write(std::string path, core::byte_vector content) { files_[std::move(path)] = std::move(content); }
    void erase(const std::string& path) { files_.erase(path); }
    /// Bit rot; the file must have that bit.
    void flip_bit(const std::string& path, std::uint64_t bit);
    /// Flips any bit of any file whose path begins so, if there is one.
    void rot(std::string_view prefix);
    /// A copy of all files, and back to it.
    std::map<std::string, core::byte_vector> copy() const { return files_; }
    void put_back(std::map<std::string, core::byte_vector> files) { files_ = std::move(files); }
    /// Loses all files whose paths begin so.
    void lose(std::string_view prefix) {
        std::erase_if(files_, [prefix](const auto& f) { return f.first.starts_with(prefix); });
    }
    /// Bytes that fit; zero: unlimited.
    void set_capacity(std::uint64_t bytes) { options_.capacity = bytes; }
    void set_latency(core::duration d) { options_.latency = d; }
    /// The next `n` changes fail with errc::io as if fsync had failed: a `put` leaves the old file, an `append` any
    /// part of its bytes.
    void fail_syncs(unsigned n) { failing_syncs_ = n; }

    // For the world.

    /// The storage seam of one process; it must not outlive it.
    std::unique_ptr<core::storage> attach(process& p);
    /// The changes under way end: each happened, or not, or in part.
    void crash();

private:
    friend class process_storage;
    enum class kind : std::uint8_t { put, append, remove, rename };
    struct change {
        kind what{};
        std::string path, to;
        core::byte_vector data;
    };
    /// When an operation of that size that starts now is over.
    virtual_time done_at(std::uint64_t bytes);
    core::result<void> apply(change& c);
    void fold(const change& c, std::uint64_t bytes);
    bool is_folder(const std::string& path) const;

    world& world_;
    std::uint32_t node_;
    disk_options options_;
    core::seeded_entropy entropy_;
    rate_line line_;
    std::map<std::string, core::byte_vector> files_;
    std::list<change> under_way_;
    unsigned failing_syncs_ = 0;
};

}  // namespace longhaul::sim
