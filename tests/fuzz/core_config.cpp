// Any text as TOML, as units and as JSON: never more than an error, and what was read reads back the same.
#include <nlohmann/json.hpp>

#include "core/config.hpp"
#include "core/json.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

struct settings {
    std::string name;
    double lr = 0;
    std::int64_t steps = 1;
    core::duration grace{};
    core::bit_rate up;
    std::uint64_t memory = 0;
    std::vector<std::string> peers;
};

core::config_binder bound(settings& s) {
    core::config_binder b;
    b.bind("n", s.name, "");
    b.bind("i.lr", s.lr, "", 0, 10);
    b.bind("i.h", s.steps, "", 1, 1000);
    b.bind("p.g", s.grace, "");
    b.bind("p.u", s.up, "");
    b.bind_bytes("p.m", s.memory, "");
    b.bind("p.a", s.peers, "");
    return b;
}

}  // namespace

FUZZ_TARGET(core_config) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto values = core::config_values::from_toml(text, "fuzz.toml")) {
        settings s, again;
        auto b = bound(s);
        if (b.apply(*values)) {
            const auto canonical = b.canonical();
            auto c = bound(again);
            const auto back = core::config_values::from_toml(canonical, "canonical");
            FUZZ_CHECK(back && c.apply(*back) && c.canonical() == canonical);
        }
    }
    if (const auto d = core::parse_duration(text))
        FUZZ_CHECK(d->count() >= 0 && core::parse_duration(core::format_duration(*d)).has_value());
    if (const auto n = core::parse_bytes(text)) FUZZ_CHECK(core::parse_bytes(core::format_bytes(*n)).has_value());
    if (const auto r = core::parse_rate(text))
        FUZZ_CHECK(r->bits_per_second >= 0 && core::parse_rate(core::format_rate(*r)).has_value());
    if (const auto share = core::parse_share(text)) FUZZ_CHECK(*share >= 0 && *share <= 1);
    if (const auto j = core::parse_json(text, 1 << 20, 16))
        FUZZ_CHECK(core::parse_json(core::json_text(*j), 8 << 20, 16).has_value());
    if (const auto b = core::from_base64url(text, 1000)) FUZZ_CHECK(core::to_base64url(*b) == text);
}
