#pragma once
/// Network namespaces without names: each is held by a child process that dies with its parent, and the kernel removes
/// namespace and device with it. Nothing is left behind, also not by a kill -9.

#include <sys/types.h>

#include <string>
#include <vector>

#include "core/posix_file.hpp"
#include "core/result.hpp"

namespace longhaul::sim::lab {

/// One machine of the lab.
struct machine_space {
    pid_t holder = 0;           ///< whose network namespace it is
    core::file_descriptor tun;  ///< our end of its only network device, non-blocking
    std::string address;        ///< IPv4
    std::string address6;       ///< empty where the kernel has no IPv6
};

/// How the namespaces were made.
enum class privilege : std::uint8_t { root, user_namespace };

/// Makes this process able to make namespaces: as root nothing is to be done; otherwise it enters a user namespace of
/// its own, in which it is root. Single-threaded processes only. errc::unsupported with what to change where the
/// system allows neither.
core::result<privilege> gain_namespaces();

/// A namespace with the device "longhaul0", whose packets come out of `tun`: 10.77.x.y/16 and fd77::x:y, where x.y is
/// index + 1. Packets carry an offload_header.
core::result<machine_space> make_machine(std::uint32_t index, std::uint64_t mtu);

/// Called between fork and exec: enters the machine's network and gives up every capability for good. False: errno
/// says why.
bool become_user_of(int namespace_fd);

/// Dies when its parent does; to be called first in a child of `parent`.
void die_with(pid_t parent);

/// The numbers of the addresses above; index -1 where they are others.
int index_of_address(std::uint32_t low_bits, bool version6);

}  // namespace longhaul::sim::lab
