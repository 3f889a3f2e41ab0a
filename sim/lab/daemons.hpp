#pragma once
/// The daemons of a lab: one process a machine, started, signalled and watched; what they write to events.jsonl.

#include <sys/types.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "sim/lab/event_reader.hpp"
#include "sim/lab/network.hpp"

namespace longhaul::sim::lab {

class daemons {
public:
    /// `binary` is the longhaul that runs in the machines; each peer's files are in folder/NAME. Refers to its
    /// arguments.
    daemons(const scenario& s, const network& net, std::string binary, std::string folder);
    /// Kills what still runs.
    ~daemons();
    daemons(const daemons&) = delete;
    daemons& operator=(const daemons&) = delete;

    /// Starts a peer: the first one founds the run, others join it with the ticket that it printed. errc::usage for a
    /// joiner before there is a ticket.
    core::result<void> start(std::uint32_t peer);
    bool running(std::uint32_t peer) const { return peers_[peer].process > 0; }
    std::size_t running() const;
    /// Whether a ticket is there to join with.
    bool founded() const { return !ticket_.empty(); }
    /// kill -9, awaited.
    void kill(std::uint32_t peer);
    /// SIGSTOP, SIGCONT, SIGTERM.
    void signal(std::uint32_t peer, int number);
    /// Sees who has ended, reads new events and, at first, the founder's ticket. Whether there was any of it.
    bool look();

    /// All events of all lives, in order.
    const std::deque<seen_event>& events(std::uint32_t peer) const { return peers_[peer].events; }
    std::uint64_t newest_round() const { return newest_round_; }
    /// Exit code of the last life, or 128 + the signal; nothing while it runs or never did.
    std::optional<int> exit_code(std::uint32_t peer) const { return peers_[peer].exit_code; }
    /// The last line on its stderr that is a sentence of longhaul.
    std::string complaint(std::uint32_t peer) const;

private:
    struct one {
        pid_t process = 0;
        std::optional<int> exit_code;
        std::string folder;
        std::optional<event_reader> reader;
        std::deque<seen_event> events;
    };
    bool read_events(one& p);
    bool read_ticket();

    const scenario& scenario_;
    const network& network_;
    std::string binary_, folder_, ticket_;
    std::vector<one> peers_;
    std::uint64_t newest_round_ = 0;
};

}  // namespace longhaul::sim::lab
