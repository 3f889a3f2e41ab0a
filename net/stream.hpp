#pragma once
/// The network seam: ordered byte streams. Framing, encryption, pacing, deadlines and striping live above it, so that
/// all of them run unchanged in simulation. Implemented by net/asio_network.cpp and sim/sim_network.cpp.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "core/clock.hpp"

namespace longhaul::net {

/// A host (an IPv4 or IPv6 literal without brackets, or a DNS name) and a port.
struct endpoint {
    std::string host;
    std::uint16_t port = 0;
    auto operator<=>(const endpoint&) const = default;
    /// "HOST:PORT", IPv6 in brackets.
    std::string text() const;
};

/// All bytes that one connection gave to its socket and took from it, hello and handshake included.
struct wire_count {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
};

/// What the kernel knows of a connection; absent where there is no kernel.
struct stream_info {
    core::duration rtt{};
    std::uint64_t segments_sent = 0;  ///< TCP segments with data, repetitions included
    std::uint64_t retransmits = 0;    ///< of them, repetitions
    std::uint64_t congestion_window_bytes = 0;
    std::uint64_t window_limit_bytes = 0;  ///< that can be in flight at most, by buffers and losses; 0: not known
    std::uint64_t delivered_bytes = 0;     ///< that have arrived, about; 0: not known
    std::uint64_t queued_bytes = 0;        ///< given to the kernel and not acknowledged
    std::uint64_t unsent_bytes = 0;        ///< of them, those that were never sent
};

/// What a stream is for: control favours latency (TCP_NODELAY), bulk favours little unsent data (TCP_NOTSENT_LOWAT).
enum class stream_purpose { control, bulk };

/// One ordered, reliable byte stream. At most one read and one write at a time; a read and a write may overlap.
class stream {
public:
    virtual ~stream() = default;
    /// Reads at least one byte and at most out.size(); 0 means an orderly end. errc::closed after a reset,
    /// errc::cancelled.
    virtual core::task<core::result<std::size_t>> read_some(core::mutable_bytes out) = 0;
    /// Writes at least one byte and at most data.size(). Accepts while the socket wants data: little is queued below.
    virtual core::task<core::result<std::size_t>> write_some(core::const_bytes data) = 0;
    /// Returns when a write would be accepted at once; the stream of a bulk connection then has little unsent data.
    virtual core::task<core::result<void>> writable() = 0;
    /// Ends both directions at once; pending reads and writes return errc::closed. May be called twice.
    virtual void close() = 0;
    virtual endpoint local() const = 0;
    virtual endpoint remote() const = 0;
    virtual std::optional<stream_info> info() const { return std::nullopt; }
    /// Tells an accepted stream what it turned out to be for. Accepted streams begin as control.
    virtual void set_purpose(stream_purpose) {}
    /// Sends no faster than that, bytes per second; 0: as fast as it goes. Where there is no kernel it has no effect.
    virtual void set_pace(double) {}
};

/// Reads exactly out.size() bytes; errc::closed if the stream ends before.
core::task<core::result<void>> read_exact(stream& s, core::mutable_bytes out);
/// Writes all of `data`.
core::task<core::result<void>> write_all(stream& s, core::const_bytes data);

/// Accepts streams on one address.
class listener {
public:
    virtual ~listener() = default;
    virtual core::task<core::result<std::unique_ptr<stream>>> accept() = 0;
    virtual endpoint local() const = 0;
    virtual void close() = 0;
};

/// Opens streams. net/dialler.hpp makes one connection of several addresses and names.
class network {
public:
    virtual ~network() = default;
    /// The addresses of a host, with its port, in the order in which the system would try them. errc::unreachable when
    /// nobody is called so. The caller sets the deadline.
    virtual core::task<core::result<std::vector<endpoint>>> resolve(endpoint of) = 0;
    /// To one address: no name is looked up.
    /// errc::unreachable with the reason. The caller sets the deadline.
    virtual core::task<core::result<std::unique_ptr<stream>>> connect(endpoint to, stream_purpose purpose) = 0;
    /// errc::address_in_use or errc::io. Port 0 picks a free one; host "" listens on all addresses, both families.
    virtual core::result<std::unique_ptr<listener>> listen(endpoint at) = 0;
};

}  // namespace longhaul::net
