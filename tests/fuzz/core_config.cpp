// Any text as TOML, as units and as JSON: never more than an error, and what was read reads back the same.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/bytes.hpp"
#include "core/config.hpp"
#include "core/json.hpp"

using namespace longhaul::core;

namespace {

struct settings {
    std::string name;
    double lr = 0;
    std::int64_t steps = 1;
    duration grace{};
    bit_rate up;
    std::uint64_t memory = 0;
    std::vector<std::string> peers;
};

config_binder bound(settings& s) {
    config_binder b;
    b.bind("n", s.name, "");
    b.bind("i.lr", s.lr, "", 0, 10);
    b.bind("i.h", s.steps, "", 1, 1000);
    b.bind("p.g", s.grace, "");
    b.bind("p.u", s.up, "");
    b.bind_bytes("p.m", s.memory, "");
    b.bind("p.a", s.peers, "");
    return b;
}

void check(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto values = config_values::from_toml(text, "fuzz.toml")) {
        settings s, again;
        auto b = bound(s);
        if (b.apply(*values)) {
            const auto canonical = b.canonical();
            auto c = bound(again);
            const auto back = config_values::from_toml(canonical, "canonical");
            check(back && c.apply(*back) && c.canonical() == canonical);
        }
    }
    if (const auto d = parse_duration(text)) check(d->count() >= 0 && parse_duration(format_duration(*d)).has_value());
    if (const auto n = parse_bytes(text)) check(parse_bytes(format_bytes(*n)).has_value());
    if (const auto r = parse_rate(text)) check(r->bits_per_second >= 0 && parse_rate(format_rate(*r)).has_value());
    if (const auto share = parse_share(text)) check(*share >= 0 && *share <= 1);
    if (const auto j = parse_json(text, 1 << 20, 16)) check(parse_json(json_text(*j), 8 << 20, 16).has_value());
    if (const auto b = from_base64url(text, 1000)) check(to_base64url(*b) == text);
    return 0;
}
