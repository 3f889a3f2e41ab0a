#pragma once
/// The default text: the sources of Python's standard library, which nearly every machine has. It needs no download and
/// is real code; peers whose Python differs have another hash and are told so by name.

#include <string>
#include <vector>

#include "core/bytes.hpp"

namespace longhaul::optim {

/// The text is cut here.
inline constexpr std::size_t max_stdlib_text = std::size_t{4} << 20;

struct stdlib_text {
    core::byte_vector bytes;
    std::string name;  ///< "Python 3.11's standard library"
    std::size_t files = 0;
};

/// Where to look, best first: the system's Python (the same on every machine of a distribution), then the one that
/// LONGHAUL_PYTHON or ./.venv names.
std::vector<std::string> stdlib_folders();

/// The top-level *.py files of the first folder that has at least 256 KiB of them, in order of their names, one after
/// another. Links and files that differ between machines of one distribution (build configuration, sitecustomize) are
/// left out. errc::config when there is none.
core::result<stdlib_text> read_stdlib_text(const std::vector<std::string>& folders);

}  // namespace longhaul::optim
