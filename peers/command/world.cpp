#include "peers/command/world.hpp"

namespace longhaul::peers::command {

core::result<void> machine::run(core::task<core::result<void>> main) {
    std::optional<core::result<void>> outcome;
    core::start(io.get_executor(), std::move(main), [&](core::result<void> r) { outcome.emplace(std::move(r)); });
    io.restart();
    io.run();
    if (!outcome) return core::fail(core::errc::internal, "the work ended without a result; please report this");
    return std::move(*outcome);
}

struct visitor::no_files final : core::storage {
    static core::error refusal() { return {core::errc::unsupported, "this command keeps no files"}; }
    core::task<core::result<core::byte_vector>> read(std::string, std::uint64_t) override {
        co_return core::fail(refusal());
    }
    core::task<core::result<void>> put(std::string, std::vector<core::const_bytes>) override {
        co_return core::fail(refusal());
    }
    core::task<core::result<void>> append(std::string, core::const_bytes) override { co_return core::fail(refusal()); }
    core::task<core::result<std::vector<std::string>>> list(std::string) override { co_return core::fail(refusal()); }
    core::task<core::result<void>> remove(std::string) override { co_return core::fail(refusal()); }
    core::task<core::result<void>> rename(std::string, std::string) override { co_return core::fail(refusal()); }
};

struct visitor::no_events final : core::event_sink {
    void emit(const core::event&) override {}
};

visitor::visitor()
    : machine_(1),
      files_(std::make_unique<no_files>()),
      events_(std::make_unique<no_events>()),
      env_{machine_.io.get_executor(), machine_.clock, machine_.entropy, machine_.network, *files_,
           machine_.workers,           *events_} {}
visitor::~visitor() = default;

}  // namespace longhaul::peers::command
