#pragma once
/// What the operating system says of this machine.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longhaul::peers::command {

/// Cores that this process may use.
int usable_cores();
/// Bytes of memory that this process may use: the machine's, or its control group's if that is less.
std::uint64_t usable_memory();
/// Bytes that are free for this user where `path` is, or would be made; absent if nobody knows.
std::optional<std::uint64_t> free_disk(const std::string& path);
std::string host_name();
/// Addresses by which other machines may reach this one, IPv4 and IPv6 in turn; the loopback address if there is no
/// other.
std::vector<std::string> own_addresses();
/// Descriptors that this process may have open at the same time if it asks for it.
std::uint64_t descriptor_limit();
/// Asks for them, up to 65,536: what a shell gives is too little for many links.
void raise_descriptor_limit();
/// The first line of a small file of /proc or /sys; empty if it cannot be read.
std::string first_line(const std::string& path);
/// The running program, symbolic links resolved; empty if unknown.
std::string own_program();

}  // namespace longhaul::peers::command
