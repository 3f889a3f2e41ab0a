#include "core/result.hpp"

#include <cstdio>
#include <cstdlib>

namespace longhaul::core {

std::string_view name_of(errc code) {
    switch (code) {
        case errc::cancelled: return "cancelled";
        case errc::timeout: return "timeout";
        case errc::closed: return "closed";
        case errc::unreachable: return "unreachable";
        case errc::address_in_use: return "address_in_use";
        case errc::protocol: return "protocol";
        case errc::version_mismatch: return "version_mismatch";
        case errc::run_mismatch: return "run_mismatch";
        case errc::not_admitted: return "not_admitted";
        case errc::malformed: return "malformed";
        case errc::limit: return "limit";
        case errc::not_found: return "not_found";
        case errc::io: return "io";
        case errc::no_space: return "no_space";
        case errc::config: return "config";
        case errc::usage: return "usage";
        case errc::forgotten: return "forgotten";
        case errc::quorum_lost: return "quorum_lost";
        case errc::unsupported: return "unsupported";
        case errc::internal: return "internal";
    }
    return "unknown";
}

int exit_code_of(errc code) {
    switch (code) {
        case errc::cancelled: return 0;  // asked to stop
        case errc::usage: return 2;
        case errc::unreachable:
        case errc::timeout:
        case errc::closed: return 69;
        case errc::quorum_lost: return 75;
        case errc::protocol:
        case errc::version_mismatch:
        case errc::run_mismatch: return 76;
        case errc::not_admitted: return 77;
        case errc::config:
        case errc::malformed:
        case errc::forgotten:
        case errc::not_found:
        case errc::address_in_use:
        case errc::unsupported: return 78;
        case errc::limit:
        case errc::io:
        case errc::no_space:
        case errc::internal: return 1;
    }
    return 1;
}

void invariant_failed(const char* expression, const char* file, int line, std::string_view why) {
    // stderr directly: the logger may be the thing that broke.
    std::fprintf(stderr, "longhaul: internal error at %s:%d: %.*s (%s does not hold); please report this\n", file, line,
                 static_cast<int>(why.size()), why.data(), expression);
    std::abort();
}

}  // namespace longhaul::core
