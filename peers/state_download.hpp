#pragma once
/// A whole state from several donors: which one most of them hold, then its chunks.

#include <functional>

#include "peers/download.hpp"
#include "peers/replica.hpp"

namespace longhaul::peers {

struct downloaded_state {
    shared_state state;
    downloaded brought;
};

/// Whether a state that a donor holds would do. errc::protocol: it lies, which goes into an event.
using index_question = std::function<core::result<void>(const state_index&)>;

/// errc::not_found: nobody holds one that would do; otherwise why the last donor stopped. Who sends what does not fit
/// to what it told is named in an event and cut off.
core::task<core::result<downloaded_state>> download_state(node& n, donors_question donors, index_question would_do);

}  // namespace longhaul::peers
