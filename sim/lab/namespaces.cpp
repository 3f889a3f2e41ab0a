#include "sim/lab/namespaces.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "sim/lab/trains.hpp"

namespace longhaul::sim::lab {

using core::errc;
using core::fail;

namespace {

constexpr const char* device_name = "longhaul0";
constexpr int transmit_queue = 4096;  // reads of the device that may wait for us

/// struct in6_ifreq of <linux/ipv6.h>, which does not go together with <netinet/in.h>.
struct address6_request {
    in6_addr address;
    std::uint32_t prefix_bytes;
    int interface;
};

bool has_capability(int number) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &header, data) != 0) return false;
    return (data[number / 32].effective >> (number % 32) & 1) != 0;
}

bool write_text(const char* path, std::string_view text) {
    const auto fd = core::open_file(path, O_WRONLY);
    return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::string address_of(std::uint32_t index) { return fmt::format("10.77.{}.{}", (index + 1) / 256, (index + 1) % 256); }
std::string address6_of(std::uint32_t index) { return fmt::format("fd77::{:x}", index + 1); }

/// What the child does, in words for an error.
struct step {
    const char* doing = "";
    int number = 0;
};

/// In the new namespace: makes the device and gives it its addresses. The device's descriptor, or -1 with `at` filled.
int make_device(std::uint32_t index, std::uint64_t mtu, step& at, bool& ipv6) {
    const auto failed = [&at](const char* doing) {
        at = {doing, errno};
        return -1;
    };
    const int tun = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tun < 0) return failed("open /dev/net/tun");
    ifreq request{};
    std::strncpy(request.ifr_name, device_name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(tun, TUNSETIFF, &request) != 0) return failed("make a TUN device");
    int header = sizeof(offload_header);
    if (::ioctl(tun, TUNSETVNETHDRSZ, &header) != 0) return failed("set the header of a TUN device");
    if (::ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) return failed("set offloads");

    const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0) return failed("open a socket");
    const auto set = [&](unsigned long what) { return ::ioctl(s, what, &request) == 0; };
    request.ifr_mtu = static_cast<int>(mtu);
    if (!set(SIOCSIFMTU)) return failed("set the MTU");
    request.ifr_qlen = transmit_queue;
    (void)set(SIOCSIFTXQLEN);  // not for a user namespace's root: there, 500 have to do
    sockaddr_in address{};
    address.sin_family = AF_INET;
    const auto set_address = [&](const std::string& text, unsigned long what) {
        ::inet_pton(AF_INET, text.c_str(), &address.sin_addr);
        std::memcpy(&request.ifr_addr, &address, sizeof address);
        return set(what);
    };
    if (!set_address(address_of(index), SIOCSIFADDR)) return failed("set the address");
    if (!set_address("255.255.0.0", SIOCSIFNETMASK)) return failed("set the netmask");
    for (const char* name : {"lo", device_name}) {
        std::memset(&request, 0, sizeof request);
        std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        if (!set(SIOCGIFFLAGS)) return failed("read flags");
        request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
        if (!set(SIOCSIFFLAGS)) return failed("bring a device up");
    }
    const int s6 = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    address6_request request6{};
    ::inet_pton(AF_INET6, address6_of(index).c_str(), &request6.address);
    request6.prefix_bytes = 64;
    request6.interface = static_cast<int>(::if_nametoindex(device_name));
    ipv6 = s6 >= 0 && ::ioctl(s6, SIOCSIFADDR, &request6) == 0;
    return tun;
}

/// What the holder reports, with the descriptor beside it.
struct report {
    step at;
    char doing[40] = "";
    bool ipv6 = false;
};

[[noreturn]] void hold(int to_parent, pid_t parent, std::uint32_t index, std::uint64_t mtu) {
    die_with(parent);
    // A terminal's Ctrl-C is for the parent, which ends us in its own time.
    ::setpgid(0, 0);
    report r;
    int tun = -1;
    if (::unshare(CLONE_NEWNET) != 0) {
        r.at = {"make a network namespace", errno};
    } else {
        tun = make_device(index, mtu, r.at, r.ipv6);
    }
    std::strncpy(r.doing, r.at.doing, sizeof r.doing - 1);
    iovec data{&r, sizeof r};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (tun >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(c), &tun, sizeof tun);
    }
    if (::sendmsg(to_parent, &message, 0) < 0 || tun < 0) ::_exit(1);
    // Nothing of the parent's stays open here but its errors: who waits for our end of its pipes waits for it alone.
    ::close(STDIN_FILENO);
    ::close(STDOUT_FILENO);
    ::close_range(3, ~0U, 0);
    for (;;) ::pause();
}

core::error explain(const step& at) {
    // Where nothing went wrong its descriptor found no room here.
    if (at.number == EMFILE || at.number == 0) {
        return {errc::limit, "too many files are open for one more machine of the lab: raise \"ulimit -n\""};
    }
    const auto what = fmt::format("the lab cannot {}: {}", at.doing, std::strerror(at.number));
    if (std::strcmp(at.doing, "open /dev/net/tun") == 0) {
        return {
            errc::unsupported,
            what + (at.number == ENOENT
                        ? "; load the module with \"sudo modprobe tun\""
                        : "; allow it with \"sudo chmod 0666 /dev/net/tun\" (most distributions do), or run as root")};
    }
    return {errc::unsupported, what + "; run as root, or allow unprivileged user namespaces"};
}

}  // namespace

core::result<privilege> gain_namespaces() {
    if (has_capability(CAP_SYS_ADMIN) && has_capability(CAP_NET_ADMIN)) return privilege::root;
    const auto uid = ::geteuid();
    const auto gid = ::getegid();
    if (::unshare(CLONE_NEWUSER) != 0) {
        return fail(
            errc::unsupported,
            "the lab needs network namespaces, and this system gives an ordinary user none ({}): run it as root, "
            "or allow them with \"sudo sysctl -w kernel.unprivileged_userns_clone=1 "
            "kernel.apparmor_restrict_unprivileged_userns=0\" (whichever of the two exists)",
            std::strerror(errno));
    }
    (void)write_text("/proc/self/setgroups", "deny");
    if (!write_text("/proc/self/uid_map", fmt::format("0 {} 1", uid)) ||
        !write_text("/proc/self/gid_map", fmt::format("0 {} 1", gid))) {
        return fail(errc::unsupported, "the lab cannot map your user into its namespace ({}): run it as root",
                    std::strerror(errno));
    }
    return privilege::user_namespace;
}

core::result<machine_space> make_machine(std::uint32_t index, std::uint64_t mtu) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return fail(core::system_error(errno, "make a socket pair"));
    }
    const core::file_descriptor ours(ends[0]);
    core::file_descriptor theirs(ends[1]);
    const pid_t self = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return fail(core::system_error(errno, "start a process"));
    if (child == 0) hold(ends[1], self, index, mtu);
    theirs = core::file_descriptor();

    report r;
    iovec data{&r, sizeof r};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = 0;
    do {
        got = ::recvmsg(ours.get(), &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    const cmsghdr* c = got == static_cast<ssize_t>(sizeof r) ? CMSG_FIRSTHDR(&message) : nullptr;
    if (c == nullptr) {
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        if (got != static_cast<ssize_t>(sizeof r)) {
            return fail(errc::internal, "the process that holds a namespace of the lab died at once");
        }
        r.at.doing = r.doing;
        return fail(explain(r.at));
    }
    machine_space out;
    int tun = -1;
    std::memcpy(&tun, CMSG_DATA(c), sizeof tun);
    out.holder = child;
    out.tun = core::file_descriptor(tun);
    out.address = address_of(index);
    if (r.ipv6) out.address6 = address6_of(index);
    return out;
}

bool become_user_of(int namespace_fd) {
    if (::setns(namespace_fd, CLONE_NEWNET) != 0) return false;
    for (int cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
        if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) return false;
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[2]{};
    if (::syscall(SYS_capset, &header, none) != 0) return false;
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

void die_with(pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    // It may have died before.
    if (::getppid() != parent) ::_exit(1);
}

int index_of_address(std::uint32_t low_bits, bool version6) {
    constexpr std::uint32_t prefix4 = 10U << 24 | 77U << 16;
    if (!version6 && (low_bits & 0xffff0000U) != prefix4) return -1;
    if (version6 && low_bits > 0xffff) return -1;
    return static_cast<int>(low_bits & 0xffff) - 1;
}

}  // namespace longhaul::sim::lab
