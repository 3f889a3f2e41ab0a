#pragma once
/// libsodium, ready to use. Include only from .cpp files.

#include <sodium.h>

namespace longhaul::core {

/// Initialises libsodium once, from whichever thread comes first. Call before the first use of any sodium function.
void ensure_sodium();

}  // namespace longhaul::core
