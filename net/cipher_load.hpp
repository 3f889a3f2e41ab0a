#pragma once
/// How much of the time goes into ciphers: whether the I/O thread needs the workers' help with them. Pure.

#include "core/clock.hpp"

namespace longhaul::net {

/// Of all links of a node together: they share the I/O thread, which also moves the bytes. Handing a piece to a worker
/// and back costs that thread about as much as enciphering a few kilobytes, so it is done only when it has to be.
class cipher_load {
public:
    /// Seconds of ciphers per second from which on the workers help, and below which they do not any more. To move the
    /// bytes takes about as long as to cipher them: with half of its time in ciphers the thread has none left.
    static constexpr double heavy_share = 0.5, light_share = 0.3;
    static constexpr core::duration window = std::chrono::milliseconds(250);

    explicit cipher_load(double heavy = heavy_share) : heavy_from_(heavy) {}
    /// A piece has taken so long, wherever that was.
    void spent(core::time_point now, core::duration time);
    bool heavy() const { return heavy_; }

private:
    double heavy_from_;
    core::time_point since_{};
    core::duration sum_{};
    bool heavy_ = false;
};

}  // namespace longhaul::net
