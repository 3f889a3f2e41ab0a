// Any text as RUN.toml or as node.toml: never more than an error, and what was accepted is accepted again as it is
// written down, and means the same.
#include "core/config.hpp"
#include "peers/node_config.hpp"
#include "peers/run_config.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace longhaul;

namespace {

template <typename Config>
std::optional<std::string> written_config(std::string_view text) {
    const auto values = core::config_values::from_toml(text, "fuzz.toml");
    Config c;
    core::config_binder b;
    peers::bind(b, c);
    if (!values || !b.apply(*values) || !peers::validate(c)) return std::nullopt;
    return b.canonical();
}

template <typename Config>
void check_config(std::string_view text) {
    if (const auto canonical = written_config<Config>(text))
        FUZZ_CHECK(written_config<Config>(*canonical) == canonical);
}

}  // namespace

FUZZ_TARGET(config_files) {
    fuzz_input in(data, size);
    const bool of_node = in.byte() % 2 == 1;
    const auto text = core::as_text(in.rest());
    if (of_node) {
        check_config<peers::node_config>(text);
    } else {
        check_config<peers::run_config>(text);
    }
}
