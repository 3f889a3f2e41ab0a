#include "tests/source_dir.hpp"

namespace longhaul::tests {

std::string source_dir() { return LONGHAUL_SOURCE_DIR; }

}  // namespace longhaul::tests
