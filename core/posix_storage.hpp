#pragma once
/// The production implementation of core/storage.hpp: a folder of the file system.

#include <memory>

#include "core/posix_file.hpp"
#include "core/storage.hpp"
#include "core/workers.hpp"

namespace longhaul::core {

/// Files have mode 0600 and folders 0700. Blocking calls run through `workers`. The name ".storage" in the top folder
/// is its own: a lock against a second process, and temporary files, which are swept when it opens.
class posix_storage final : public storage {
public:
    /// Opens a folder, made if missing with those above it. `workers` must outlive the storage. errc::config when
    /// another process (or object) has it open; errc::io, errc::no_space.
    static result<std::unique_ptr<posix_storage>> open(std::string folder, workers& workers);

    task<result<byte_vector>> read(std::string path, std::uint64_t max_bytes) override;
    task<result<void>> put(std::string path, std::vector<const_bytes> pieces) override;
    task<result<void>> append(std::string path, const_bytes data) override;
    task<result<std::vector<std::string>>> list(std::string folder) override;
    task<result<void>> remove(std::string path) override;
    task<result<void>> rename(std::string from, std::string to) override;

    /// The folder, as given to `open`.
    const std::string& folder() const { return root_; }

private:
    posix_storage(std::string root, workers& workers, file_descriptor lock)
        : root_(std::move(root)), workers_(workers), lock_(std::move(lock)) {}

    std::string root_;
    workers& workers_;
    file_descriptor lock_;
    std::uint64_t temporaries_ = 0;
};

}  // namespace longhaul::core
