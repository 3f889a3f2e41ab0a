#pragma once
#include <string>

namespace longhaul::tests {

/// Where the sources are: golden files and scripts are found from there. A function of one file, so that no other
/// object depends on the place of the checkout, and a compiler cache serves all checkouts.
std::string source_dir();

}  // namespace longhaul::tests
