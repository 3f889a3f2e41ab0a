#include "peers/command/facts.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <memory>

namespace longhaul::peers::command {

namespace {

struct interfaces {
    ifaddrs* first = nullptr;
    interfaces() {
        if (::getifaddrs(&first) != 0) first = nullptr;
    }
    ~interfaces() {
        if (first != nullptr) ::freeifaddrs(first);
    }
    interfaces(const interfaces&) = delete;
    interfaces& operator=(const interfaces&) = delete;
};

}  // namespace

int usable_cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

std::uint64_t usable_memory() {
    const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
    auto bytes = pages * static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PAGESIZE)));
    for (const auto* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
        const auto text = first_line(path);
        std::uint64_t limit = 0;
        const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), limit);
        if (e == std::errc() && end == text.data() + text.size() && limit > 0) bytes = std::min(bytes, limit);
    }
    return bytes;
}

std::optional<std::uint64_t> free_disk(const std::string& path) {
    std::filesystem::path at(path);
    std::error_code e;
    while (!at.empty() && !std::filesystem::exists(at, e) && at.has_parent_path() && at.parent_path() != at) {
        at = at.parent_path();
    }
    struct statvfs s{};
    if (::statvfs(at.c_str(), &s) != 0) return std::nullopt;
    return std::uint64_t{s.f_bavail} * s.f_frsize;
}

std::string host_name() {
    std::array<char, 256> name{};
    if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == 0) return "node";
    return std::string(name.data()).substr(0, 64);
}

std::vector<std::string> own_addresses() {
    constexpr std::size_t most = 4;
    const interfaces all;
    std::vector<std::string> v4, v6;
    for (const auto* i = all.first; i != nullptr; i = i->ifa_next) {
        if (i->ifa_addr == nullptr || (i->ifa_flags & IFF_UP) == 0 || (i->ifa_flags & IFF_LOOPBACK) != 0) continue;
        std::array<char, INET6_ADDRSTRLEN> text{};
        if (i->ifa_addr->sa_family == AF_INET) {
            const auto* a = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
            if (::inet_ntop(AF_INET, &a->sin_addr, text.data(), text.size()) != nullptr) v4.emplace_back(text.data());
        } else if (i->ifa_addr->sa_family == AF_INET6) {
            const auto* a = reinterpret_cast<const sockaddr_in6*>(i->ifa_addr);
            // A link-local address means nothing without its interface.
            if (IN6_IS_ADDR_LINKLOCAL(&a->sin6_addr)) continue;
            if (::inet_ntop(AF_INET6, &a->sin6_addr, text.data(), text.size()) != nullptr) v6.emplace_back(text.data());
        }
    }
    // In turn, so that many of one family leave room for the other.
    std::vector<std::string> both;
    for (std::size_t i = 0; i < std::max(v4.size(), v6.size()); ++i) {
        if (i < v4.size()) both.push_back(v4[i]);
        if (i < v6.size()) both.push_back(v6[i]);
    }
    if (both.size() > most) both.resize(most);
    if (both.empty()) both.emplace_back("127.0.0.1");
    return both;
}

std::uint64_t descriptor_limit() {
    rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : 0;
}

void raise_descriptor_limit() {
    constexpr rlim_t enough = 65'536;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= enough) return;
    limit.rlim_cur = std::min(limit.rlim_max, enough);
    // Where it is refused, less has to do.
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string first_line(const std::string& path) {
    std::ifstream in(path);
    std::string line;
    std::getline(in, line);
    return line;
}

std::string own_program() {
    std::error_code e;
    const auto path = std::filesystem::read_symlink("/proc/self/exe", e);
    return e ? std::string() : path.string();
}

}  // namespace longhaul::peers::command
