#pragma once
/// The links of one node: it listens, dials, runs handshakes, keeps at most one link a peer, and reports them up and
/// down.

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/task.hpp"
#include "net/cipher_load.hpp"
#include "net/doorkeeper.hpp"
#include "net/link.hpp"
#include "net/ticket.hpp"

namespace longhaul::net {

struct mesh_options {
    core::digest run;                   ///< run id, in the hello
    core::digest psk;                   ///< the run's secret; zero in open runs
    std::optional<core::digest> token;  ///< what we present when we dial
    std::string name;                   ///< this node's name, for people
    std::uint64_t incarnation = 1;
    std::uint64_t features = 0;
    std::vector<endpoint> advertised;  ///< sent to others; the listening port is filled in where port is 0
    core::duration handshake_deadline = std::chrono::seconds(5);
    core::duration connect_deadline = std::chrono::seconds(10);
    /// Silence on control after which a link is down, or three of it while bulk moves; heartbeats are sent at a
    /// twentieth of it. EOF is noticed at once.
    core::duration silence_limit = std::chrono::seconds(10);
    unsigned streams = 0;                            ///< bulk connections a link, at most 64; 0: found by measurement
    bool warm = true;                                ///< pads new bulk connections while a transfer waits for its bytes
    double cipher_share = cipher_load::heavy_share;  ///< of the time, from which on workers cipher bulk
    /// Who is a member of the run: for members, slots are kept free. Empty: whoever is admitted counts as one.
    std::function<bool(const peer_key&)> is_member;
    std::size_t max_links = 512;  ///< with members
    /// With others, who ask, or are not admitted yet. One more takes the place of the oldest that has had its time.
    std::size_t max_guests = 64;
    core::duration guest_time = std::chrono::seconds(30);
    door_limits door;  ///< of handshakes that are answered
};

/// Who is at the door now.
struct door_report {
    std::size_t waiting = 0;        ///< not authenticated yet
    std::uint64_t turned_away = 0;  ///< since the start: had to make room before they were authenticated
};

/// What a cleartext hello of somebody told; used by `probe` and by bare-address joins.
struct hello_report {
    std::uint16_t wire_min = 0, wire_max = 0;
    core::digest run;
    core::duration rtt{};
};

class mesh {
public:
    /// Admission: called by the responder with the authenticated initiator; an error (errc::not_admitted) goes back as
    /// a sentence, encrypted. Also called by the initiator for the responder.
    using admission = std::function<core::result<void>(const remote_peer& peer, bool they_dialled)>;
    /// A link came up. It stays valid while the pointer is held. Called on the I/O thread.
    using up_handler = std::function<void(std::shared_ptr<link>)>;

    /// `env` and `self` must outlive the mesh.
    mesh(environment& env, const identity& self, mesh_options options, admission admit, up_handler on_up);
    ~mesh();

    /// Of all links, those that are up included: who joins a run learns its limit over the first of them.
    void set_silence_limit(core::duration limit);
    /// Starts to listen; the bound endpoint (port 0 resolved). errc::address_in_use.
    core::result<endpoint> listen(endpoint at);
    /// Serves connections and links until cancelled or `close`. Run once, in a scope.
    core::task<core::result<void>> serve();
    /// A link, and which of the addresses that were dialled led to it.
    struct dialled {
        std::shared_ptr<net::link> link;
        endpoint asked;
    };
    /// Dials addresses and names side by side (net/dialler.hpp) and handshakes with whoever answers first; the others
    /// are tried when that fails, or, with `who`, when it is another node (two home networks use the same private
    /// addresses). If a link with that peer is up already, that one is returned. errc::unreachable, version_mismatch,
    /// run_mismatch, not_admitted, protocol, timeout: each a sentence with the address.
    core::task<core::result<dialled>> dial(std::vector<endpoint> to, std::optional<peer_key> who = std::nullopt);
    core::task<core::result<std::shared_ptr<link>>> dial(endpoint to);
    /// The link with that peer, if one is up.
    std::shared_ptr<link> find(const peer_key& key) const;
    /// All links that are up, in key order.
    std::vector<std::shared_ptr<link>> links() const;
    door_report door() const;
    /// Ends all links with an authenticated goodbye and stops listening.
    void close(std::string reason);

    /// Exchanges cleartext hellos only. errc::unreachable, errc::version_mismatch, errc::protocol (not longhaul).
    static core::task<core::result<hello_report>> probe(environment& env, endpoint to, core::duration deadline);

private:
    struct impl;
    std::shared_ptr<impl> impl_;
};

}  // namespace longhaul::net
