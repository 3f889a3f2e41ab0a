#pragma once
/// What was seen to happen: folded into one hash, so that two runs can be compared, and the last actions kept in
/// words, so that a failure can be read.

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.hpp"
#include "sim/event_queue.hpp"

namespace longhaul::sim {

/// The kinds of observable actions. Their numbers are part of the golden hashes: append only.
enum class action : std::uint8_t {
    start,      ///< a node's process began
    end,        ///< its main returned
    kill,       ///< kill -9
    vanish,     ///< power loss
    pause,      ///< SIGSTOP
    resume,     ///< SIGCONT
    cut,        ///< a path began to drop everything; x: the other node
    heal,       ///< and works again
    timer,      ///< a sleep ended
    job,        ///< CPU work; x: its modelled nanoseconds
    listen,     ///< x: port
    connect,    ///< x: connection
    connected,  ///< x: connection
    refused,    ///< x: the other node
    accept,     ///< x: connection
    write,      ///< x: connection, with the bytes accepted
    deliver,    ///< x: connection, y: bytes that became readable
    close,      ///< x: connection
    reset,      ///< x: connection: its other end was told
    store,      ///< a change of the disk, with path and bytes
    event,      ///< an event line, with its text
    note,       ///< a test's own mark
};

class trace {
public:
    static constexpr std::uint32_t no_node = 0xffffffff;

    /// Keeps the last `length` actions in readable form.
    explicit trace(std::size_t length) : kept_(length) {}

    void add(virtual_time t, action what, std::uint32_t node, std::uint64_t x = 0, std::uint64_t y = 0,
             core::const_bytes content = {});
    /// The hash of all actions so far.
    core::digest hash() const;
    std::uint64_t size() const { return count_; }
    /// The last actions, one a line, oldest first.
    std::string text(const std::vector<std::string>& node_names) const;

private:
    struct line {
        virtual_time t{};
        action what{};
        std::uint32_t node = 0;
        std::uint64_t x = 0, y = 0, bytes = 0;
        std::string text;  // the beginning of the content, where it is text
    };
    void flush();

    core::digest chain_;
    core::byte_vector batch_;  // folded into chain_ when large
    std::vector<line> kept_;   // a ring
    std::uint64_t count_ = 0;
};

}  // namespace longhaul::sim
