#pragma once
/// A folder for one test, removed with all in it.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace longhaul::tests {

class temp_folder {
public:
    temp_folder() {
        auto pattern = (std::filesystem::temp_directory_path() / "longhaul-test-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) std::abort();
        path_ = pattern;
    }
    ~temp_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    temp_folder(const temp_folder&) = delete;
    temp_folder& operator=(const temp_folder&) = delete;

    /// The folder, or something in it.
    std::string path(const std::string& inside = "") const { return inside.empty() ? path_ : path_ + "/" + inside; }
    std::string read(const std::string& inside) const {
        std::ifstream in(path(inside), std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    void write(const std::string& inside, const std::string& text) const {
        std::ofstream(path(inside), std::ios::binary) << text;
    }

private:
    std::string path_;
};

}  // namespace longhaul::tests
