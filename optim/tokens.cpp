#include "optim/tokens.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/hash.hpp"
#include "core/units.hpp"
#include "optim/stdlib_text.hpp"

namespace longhaul::optim {
namespace {

constexpr std::uint32_t gpt2_magic = 20240520, llama3_magic = 20240801;
constexpr std::size_t header_bytes = 1024;

std::uint64_t token_at(const std::byte* p, std::size_t width) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i) value |= std::to_integer<std::uint64_t>(p[i]) << (8 * i);
    return value;
}

std::uint32_t magic_of(core::const_bytes bytes) {
    return bytes.size() < 4 ? 0 : static_cast<std::uint32_t>(token_at(bytes.data(), 4));
}

}  // namespace

token_source::token_source(core::const_bytes whole, std::size_t header, std::size_t width, const std::string& what,
                           const std::string& size)
    : payload_(whole.subspan(header)), width_(width) {
    // Hash and largest token in one pass over the file, a piece at a time so that it stays in the cache.
    core::hasher hasher;
    hasher.update(whole.first(header));
    constexpr std::size_t piece = 1 << 18;
    for (std::size_t at = 0; at < payload_.size(); at += piece) {
        const auto part = payload_.subspan(at, std::min(piece, payload_.size() - at));
        hasher.update(part);
        for (std::size_t i = 0; i + width_ <= part.size(); i += width_)
            largest_ = std::max(largest_, token_at(part.data() + i, width_));
    }
    hash_ = hasher.finish();
    description_ = describe_data(what, size, hash_);
}

core::result<token_source> token_source::open_text(const std::string& path) {
    LONGHAUL_TRY_ASSIGN(auto file, mapped_file::open(path));
    token_source source(file->bytes(), 0, 1, "the text " + data_file_name(path),
                        core::format_bytes(file->bytes().size()));
    source.file_ = std::move(file);
    return source;
}

core::result<token_source> token_source::open_tokens(const std::string& path) {
    LONGHAUL_TRY_ASSIGN(auto file, mapped_file::open(path));
    const auto bytes = file->bytes();
    std::size_t width = 2;
    std::size_t header = 0;
    const auto magic = magic_of(bytes);
    if (magic == gpt2_magic || magic == llama3_magic) {
        if (bytes.size() < header_bytes)
            return core::fail(core::errc::malformed, "the token file {} ends inside its header ({} of {} bytes)", path,
                              bytes.size(), header_bytes);
        const auto version = token_at(bytes.data() + 4, 4);
        const auto count = token_at(bytes.data() + 8, 4);
        width = magic == gpt2_magic ? 2 : 4;
        header = header_bytes;
        const std::uint64_t known_version = magic == gpt2_magic ? 1 : 7;
        if (version != known_version)
            return core::fail(core::errc::malformed,
                              "the token file {} has version {}; this reads version {} of magic {}", path, version,
                              known_version, magic);
        // Below 2³² · 4 + 1024: no overflow.
        if (count * width + header != bytes.size())
            return core::fail(core::errc::malformed,
                              "the token file {} announces {} tokens of {} bytes but holds {} bytes after its header; "
                              "copy it again",
                              path, count, width, bytes.size() - header);
    } else if (bytes.size() % 2 != 0) {
        return core::fail(core::errc::malformed,
                          "the token file {} has {} bytes, an odd number: neither nanoGPT's 16-bit tokens nor llm.c's; "
                          "for a text set data.kind = \"text\"",
                          path, bytes.size());
    }
    if (bytes.size() == header) return core::fail(core::errc::malformed, "the token file {} holds no tokens", path);
    token_source source(bytes, header, width, "the token file " + data_file_name(path),
                        fmt::format("{} tokens", (bytes.size() - header) / width));
    source.file_ = std::move(file);
    return source;
}

core::result<token_source> token_source::open_stdlib() {
    LONGHAUL_TRY_ASSIGN(auto text, read_stdlib_text(stdlib_folders()));
    auto owned = std::make_shared<const core::byte_vector>(std::move(text.bytes));
    token_source source(*owned, 0, 1, text.name,
                        fmt::format("{} files, {}", text.files, core::format_bytes(owned->size())));
    source.text_ = std::move(owned);
    return source;
}

void token_source::copy(std::uint64_t first, std::span<std::int64_t> out) const {
    LONGHAUL_ENSURE(first <= size() && out.size() <= size() - first, "the tokens exist");
    const std::byte* p = payload_.data() + first * width_;
    for (auto& token : out) {
        token = static_cast<std::int64_t>(token_at(p, width_));
        p += width_;
    }
}

core::result<std::string> detect_data_kind(const std::string& path) {
    if (path.empty()) return "stdlib";
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) return "mnist";
    LONGHAUL_TRY_ASSIGN(const auto file, mapped_file::open(path));
    const auto magic = magic_of(file->bytes());
    const bool tokens = magic == gpt2_magic || magic == llama3_magic || path.ends_with(".bin");
    return tokens ? "tokens" : "text";
}

}  // namespace longhaul::optim
