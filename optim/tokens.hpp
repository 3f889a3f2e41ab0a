#pragma once
/// Where tokens come from: a text read as bytes, nanoGPT's and llm.c's token files, or the default text.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/bytes.hpp"
#include "optim/mapped_file.hpp"

namespace longhaul::optim {

/// A read-only sequence of tokens, mapped from its file and widened only when read. Cheap to copy.
class token_source {
public:
    /// A text: one token a byte.
    static core::result<token_source> open_text(const std::string& path);
    /// A token file: llm.c's (magic 20240520, version 1: 16 bits a token; 20240801, version 7: 32 bits; a header of 256
    /// int32 whose third is the count), otherwise nanoGPT's (16 bits, no header). errc::malformed when the header and
    /// the file's size do not agree.
    static core::result<token_source> open_tokens(const std::string& path);
    /// The default text (optim/stdlib_text.hpp).
    static core::result<token_source> open_stdlib();

    /// Number of tokens.
    std::uint64_t size() const { return payload_.size() / width_; }
    /// Tokens [first, first + out.size()), which must exist.
    void copy(std::uint64_t first, std::span<std::int64_t> out) const;
    /// Hash of the whole file, header included: equal on all peers of a run.
    const core::digest& hash() const { return hash_; }
    /// The largest token.
    std::uint64_t largest() const { return largest_; }
    /// In words, for people, with the beginning of the hash: "Python 3.11's standard library (168 files, 4.0 MiB; hash
    /// 1f2e3d4c)", "the text input.txt (1.1 MiB; hash …)".
    const std::string& description() const { return description_; }

private:
    /// `what` and `size` make the description.
    token_source(core::const_bytes whole, std::size_t header, std::size_t width, const std::string& what,
                 const std::string& size);
    std::shared_ptr<const mapped_file> file_;
    std::shared_ptr<const core::byte_vector> text_;
    core::const_bytes payload_;
    std::size_t width_ = 1;  ///< bytes a token: 1, 2 or 4
    core::digest hash_;
    std::uint64_t largest_ = 0;
    std::string description_;
};

/// What `path` holds, by what it is: a folder is mnist, a file with llm.c's magic or a name in .bin is tokens, all else
/// is text; an empty path is stdlib. errc::config when there is nothing there.
core::result<std::string> detect_data_kind(const std::string& path);

}  // namespace longhaul::optim
