#pragma once
/// Everything a peer may touch of the outside world; handed down, never global (DESIGN §3).

#include <asio/any_io_executor.hpp>

#include "core/clock.hpp"
#include "core/entropy.hpp"
#include "core/events.hpp"
#include "core/storage.hpp"
#include "core/workers.hpp"
#include "net/stream.hpp"

namespace longhaul::net {

/// References outlive every user. `executor` is the one I/O thread's (in simulation the world's).
struct environment {
    asio::any_io_executor executor;
    core::clock& clock;
    core::entropy& entropy;
    net::network& network;
    core::storage& storage;
    core::workers& workers;
    core::event_sink& events;
};

}  // namespace longhaul::net
