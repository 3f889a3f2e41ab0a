#pragma once
/// Files of one node, below its state directory: atomic documents and synced logs. In production a folder; in
/// simulation memory that forgets unsynced writes at a crash.
///
/// Paths are relative, with '/' between parts of [A-Za-z0-9._-]; anything else is errc::malformed.
/// A failed fsync is an error and is never retried in place: the caller writes a new file.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.hpp"
#include "core/clock.hpp"

namespace longhaul::core {

/// errc::malformed unless `path` is as described above. Every implementation calls it first.
result<void> check_storage_path(std::string_view path);

class storage {
public:
    virtual ~storage() = default;
    /// The whole file; errc::not_found, errc::limit if it is larger than `max_bytes`, errc::io.
    virtual task<result<byte_vector>> read(std::string path, std::uint64_t max_bytes) = 0;
    /// Replaces or creates the file in one step that survives a power cut: temporary file, fsync, rename, fsync of
    /// the folder. errc::no_space leaves the old file in place. `pieces` are written one after another and must live
    /// until this returns.
    virtual task<result<void>> put(std::string path, std::vector<const_bytes> pieces) = 0;
    /// Appends to the file (created if missing) and syncs it. After an error the file's tail is unknown.
    virtual task<result<void>> append(std::string path, const_bytes data) = 0;
    /// Names in a folder ("" is the top one), sorted; empty when it does not exist. Folders end with '/'.
    virtual task<result<std::vector<std::string>>> list(std::string folder) = 0;
    /// Removes a file, or a folder with all in it; not an error when it does not exist.
    virtual task<result<void>> remove(std::string path) = 0;
    /// Renames a file or folder to a name that does not exist yet (else errc::io), and syncs the folder;
    /// errc::not_found.
    virtual task<result<void>> rename(std::string from, std::string to) = 0;
};

/// `put` of bytes that nobody else keeps.
task<result<void>> put_bytes(storage& to, std::string path, byte_vector bytes);

}  // namespace longhaul::core
