#include "core/sodium.hpp"

#include "core/result.hpp"

namespace longhaul::core {

void ensure_sodium() {
    // The initialisation of a local static is serialised by the language.
    static const int outcome = sodium_init();
    LONGHAUL_ENSURE(outcome >= 0, "libsodium cannot be initialised: the system gives no random bytes");
}

}  // namespace longhaul::core
