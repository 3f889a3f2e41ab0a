#pragma once
/// A scenario's network, for real: machines in namespaces and the relay between them, in processes that end with this
/// one.

#include <memory>
#include <string>

#include "sim/lab/namespaces.hpp"
#include "sim/scenario.hpp"

namespace longhaul::sim::lab {

inline constexpr std::size_t max_lab_peers = 250;

class network {
public:
    /// Builds it and starts the relay, which counts its time (traces) from then on. Single-threaded processes only.
    static core::result<network> start(const topology& t, std::uint64_t seed);
    network(network&&) noexcept = default;
    network& operator=(network&&) = delete;
    ~network();

    privilege made_as() const { return privilege_; }
    const std::vector<machine_space>& machines() const { return machines_; }
    /// How a program is started inside of a machine: as its administrator, and as a user without capabilities.
    std::vector<std::string> enter(std::uint32_t peer, bool as_user) const;

    void set_cut(std::uint32_t from, std::uint32_t to, bool cut);
    void set_factor(std::uint32_t peer, double factor);
    /// One line of JSON on the time since the last call: what was carried, and whether the machine kept up.
    /// errc::closed when the relay died.
    core::result<std::string> stats();
    /// Readable when the relay has died.
    int relay_fd() const { return control_.get(); }

private:
    network() = default;
    void tell(const std::string& line);

    privilege privilege_ = privilege::root;
    std::vector<machine_space> machines_;
    core::file_descriptor control_;
    pid_t relay_ = 0;
};

/// `longhaul lab --hold`: builds the network, prints one line of JSON on stdout, applies the scenario's network faults
/// at their times, answers each line on stdin by a line of statistics, and ends with stdin (or SIGINT, SIGTERM). The
/// exit code.
core::result<int> hold(const scenario& s, std::uint64_t seed);

}  // namespace longhaul::sim::lab
