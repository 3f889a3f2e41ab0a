#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "tests/fuzz/fuzz.hpp"
#include "tests/source_dir.hpp"

void replay_corpus(const char* name, void (*target)(const std::uint8_t* data, std::size_t size)) {
    namespace fs = std::filesystem;
    std::set<fs::path> files;
    for (const auto& entry :
         fs::directory_iterator(fs::path(longhaul::tests::source_dir()) / "tests/fuzz/corpus" / name)) {
        files.insert(entry.path());
    }
    CHECK_FALSE(files.empty());
    for (const auto& path : files) {
        INFO(path);
        std::ifstream in(path, std::ios::binary);
        const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
        REQUIRE(in);
        target(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    }
}
