#pragma once
/// A file of the user's, mapped read-only: token files may be larger than memory.

#include <memory>
#include <string>

#include "core/bytes.hpp"

namespace longhaul::optim {

/// Owns the mapping. The file must not be truncated meanwhile (the process would get SIGBUS, as with any mapping).
class mapped_file {
public:
    /// errc::config when there is no regular, readable file with content at `path`: data paths come from
    /// configuration.
    static core::result<std::shared_ptr<const mapped_file>> open(const std::string& path);
    ~mapped_file();
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    core::const_bytes bytes() const { return bytes_; }

private:
    explicit mapped_file(core::const_bytes bytes) : bytes_(bytes) {}
    core::const_bytes bytes_;
};

/// The last part of a path, for descriptions that reach other people's terminals: control characters become '?', and it
/// is cut at 100 bytes.
std::string data_file_name(const std::string& path);

/// "what (size; hash 1f2e3d4c)": how a run names its data, so that two peers can see whether theirs is the same.
std::string describe_data(const std::string& what, const std::string& size, const core::digest& hash);

}  // namespace longhaul::optim
