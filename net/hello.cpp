#include "net/hello.hpp"

#include <algorithm>

namespace longhaul::net {

namespace {

constexpr std::string_view magic = "LONGHAUL";

bool is_zero(core::const_bytes bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::string name_of_run(const core::digest& run) { return run.is_zero() ? "no run" : "run " + run.hex(); }

std::string name_of_versions(const hello& h) {
    return h.wire_min == h.wire_max ? fmt::format("wire version {}", h.wire_min)
                                    : fmt::format("wire versions {} to {}", h.wire_min, h.wire_max);
}

/// A first contact and a probe have no session and number 0; whatever belongs to a session has both.
core::result<void> check_session(const hello& h) {
    const bool session = !is_zero(h.session);
    const bool possible = h.role == hello_role::control ? session == (h.connection != 0)
                          : h.role == hello_role::bulk  ? session && h.connection != 0
                                                        : !session && h.connection == 0;
    if (!possible) {
        return core::fail(core::errc::protocol, "a hello for {} has connection number {} and {} session",
                          name_of(h.role), h.connection, session ? "a" : "no");
    }
    return core::ok();
}

}  // namespace

std::string_view name_of(hello_role role) {
    switch (role) {
        case hello_role::control: return "control";
        case hello_role::bulk: return "bulk";
        case hello_role::probe: return "probe";
    }
    return "unknown";
}

hello_bytes hello::encode() const {
    core::byte_writer out;
    out.raw(core::as_bytes(magic)).u16(wire_min).u16(wire_max).u8(static_cast<std::uint8_t>(role));
    out.raw(std::array<std::byte, 3>{}).u32(connection).raw(run.bytes).raw(session);
    hello_bytes bytes{};
    std::ranges::copy(out.bytes(), bytes.begin());
    return bytes;
}

hello hello::answer(const core::digest& our_run) const {
    hello h = *this;
    h.wire_min = wire_version_min;
    h.wire_max = wire_version_max;
    h.run = our_run;
    return h;
}

core::result<hello> parse_hello(core::const_bytes bytes) {
    if (bytes.size() != hello_size) {
        return core::fail(core::errc::protocol, "a hello has {} bytes, not {}", hello_size, bytes.size());
    }
    core::byte_reader in(bytes);
    LONGHAUL_TRY_ASSIGN(const auto first, in.take(magic.size()));
    if (core::as_text(first) != magic) {
        return core::fail(core::errc::protocol,
                          "the other side does not speak longhaul's protocol (it began with the bytes {}): check the "
                          "address and the port",
                          core::to_hex(first));
    }
    hello h;
    LONGHAUL_TRY_ASSIGN(h.wire_min, in.u16());
    LONGHAUL_TRY_ASSIGN(h.wire_max, in.u16());
    if (h.wire_min == 0 || h.wire_min > h.wire_max) {
        return core::fail(core::errc::protocol, "a hello names wire versions {} to {}: there are none such", h.wire_min,
                          h.wire_max);
    }
    // What follows may mean something else in versions that this build does not know.
    if (h.wire_min > wire_version_max || h.wire_max < wire_version_min) return h;

    LONGHAUL_TRY_ASSIGN(const auto role, in.u8());
    LONGHAUL_TRY_ASSIGN(const auto padding, in.take(3));
    LONGHAUL_TRY_ASSIGN(h.connection, in.u32());
    LONGHAUL_TRY(in.copy_to(h.run.bytes));
    LONGHAUL_TRY(in.copy_to(h.session));
    LONGHAUL_TRY_ASSIGN(const auto reserved, in.take(in.remaining()));
    h.role = static_cast<hello_role>(role);
    if (name_of(h.role) == "unknown") {
        return core::fail(core::errc::protocol, "a hello has the unknown role {}", role);
    }
    if (!is_zero(padding) || !is_zero(reserved)) {
        return core::fail(core::errc::protocol, "a hello has reserved bytes that are not zero");
    }
    LONGHAUL_TRY(check_session(h));
    return h;
}

core::result<std::uint16_t> compare(const hello& mine, const hello& theirs, side mine_is) {
    const auto version = std::min(mine.wire_max, theirs.wire_max);
    if (version < std::max(mine.wire_min, theirs.wire_min)) {
        return core::fail(core::errc::version_mismatch, "this node speaks {}, the other side speaks {}: update {}",
                          name_of_versions(mine), name_of_versions(theirs),
                          theirs.wire_min > mine.wire_max ? "this node" : "the other side");
    }
    if (mine.role != theirs.role || mine.connection != theirs.connection || mine.session != theirs.session) {
        return core::fail(core::errc::protocol,
                          "this node's hello is for {} connection {}, the other side's for {} connection {}, or they "
                          "name different sessions",
                          name_of(mine.role), mine.connection, name_of(theirs.role), theirs.connection);
    }
    const auto& dialled_for = mine_is == side::initiator ? mine.run : theirs.run;
    if (mine.run != theirs.run && !dialled_for.is_zero()) {
        return core::fail(core::errc::run_mismatch,
                          "this node is in {}, the other side is in {}: use a ticket of the run that both are to be in",
                          name_of_run(mine.run), name_of_run(theirs.run));
    }
    return version;
}

core::byte_vector prologue_of(const hello_bytes& initiator, const hello_bytes& responder) {
    core::byte_vector prologue(initiator.begin(), initiator.end());
    prologue.insert(prologue.end(), responder.begin(), responder.end());
    return prologue;
}

}  // namespace longhaul::net
