#include "optim/stdlib_text.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "optim/mapped_file.hpp"

namespace longhaul::optim {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t smallest_text = std::size_t{256} << 10;

/// 11 for "python3.11"; -1 for anything else.
int minor_version(const std::string& folder_name) {
    constexpr std::string_view prefix = "python3.";
    if (!folder_name.starts_with(prefix) || folder_name.size() > prefix.size() + 3) return -1;
    int minor = 0;
    for (const char c : folder_name.substr(prefix.size())) {
        if (c < '0' || c > '9') return -1;
        minor = minor * 10 + (c - '0');
    }
    return folder_name.size() == prefix.size() ? -1 : minor;
}

/// python3.* folders of `lib`, the newest first.
std::vector<std::string> python_folders(const fs::path& lib) {
    std::vector<std::pair<int, std::string>> found;
    std::error_code error;
    for (fs::directory_iterator i(lib, error), end; !error && i != end; i.increment(error)) {
        const int minor = minor_version(i->path().filename().string());
        if (minor >= 0) found.emplace_back(-minor, i->path().string());
    }
    std::sort(found.begin(), found.end());
    std::vector<std::string> out;
    for (auto& f : found) out.push_back(std::move(f.second));
    return out;
}

bool is_portable_source(const fs::directory_entry& entry) {
    std::error_code error;
    const auto name = entry.path().filename().string();
    return name.ends_with(".py") && !name.starts_with("_sysconfigdata") && name != "sitecustomize.py" &&
           entry.is_regular_file(error) && !entry.is_symlink(error);
}

}  // namespace

std::vector<std::string> stdlib_folders() {
    std::vector<std::string> out = python_folders("/usr/lib");
    const auto add = [&out](std::vector<std::string> more) { out.insert(out.end(), more.begin(), more.end()); };
    add(python_folders("/usr/local/lib"));
    const char* named = std::getenv("LONGHAUL_PYTHON");
    for (const std::string& python : {std::string(named != nullptr ? named : ""), std::string(".venv/bin/python")}) {
        std::error_code error;
        // A virtual environment's interpreter is a link into the installation that has the library.
        const auto real = fs::canonical(python, error);
        if (!python.empty() && !error) add(python_folders(real.parent_path().parent_path() / "lib"));
    }
    return out;
}

core::result<stdlib_text> read_stdlib_text(const std::vector<std::string>& folders) {
    for (const auto& folder : folders) {
        std::vector<std::string> files;
        std::error_code error;
        for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error))
            if (is_portable_source(*i)) files.push_back(i->path().string());
        std::sort(files.begin(), files.end());
        stdlib_text text;
        for (const auto& path : files) {
            const auto file = mapped_file::open(path);
            if (!file) continue;  // empty, or not ours to read
            const auto bytes = (*file)->bytes();
            const auto take = std::min(bytes.size(), max_stdlib_text - text.bytes.size());
            text.bytes.insert(text.bytes.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
            ++text.files;
            if (text.bytes.size() == max_stdlib_text) break;
        }
        if (text.bytes.size() < smallest_text) continue;
        text.name = fmt::format("Python 3.{}'s standard library", minor_version(fs::path(folder).filename().string()));
        return text;
    }
    return core::fail(core::errc::config,
                      "the default text, Python's standard library, is not on this machine (looked in {}): install "
                      "python3, or name a text with --data FILE",
                      fmt::join(folders, ", "));
}

}  // namespace longhaul::optim
