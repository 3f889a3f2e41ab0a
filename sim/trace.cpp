#include "sim/trace.hpp"

#include <fmt/format.h>

#include <cstring>

#include "core/hash.hpp"

namespace longhaul::sim {

namespace {

constexpr std::size_t batch_limit = 256 * 1024;
constexpr std::size_t shown = 160;

constexpr std::string_view names[] = {
    "start",   "end",       "kill",    "vanish", "pause", "resume",  "cut",   "heal",  "timer", "job",   "listen",
    "connect", "connected", "refused", "accept", "write", "deliver", "close", "reset", "store", "event", "note"};

void append_u64(core::byte_vector& out, std::uint64_t v) {
    std::array<std::byte, 8> raw{};
    for (std::size_t i = 0; i < 8; ++i) raw[i] = static_cast<std::byte>(v >> (8 * i));
    out.insert(out.end(), raw.begin(), raw.end());
}

bool holds_text(action a) { return a == action::event || a == action::note; }

}  // namespace

void trace::add(virtual_time t, action what, std::uint32_t node, std::uint64_t x, std::uint64_t y,
                core::const_bytes content) {
    append_u64(batch_, static_cast<std::uint64_t>(t.count()));
    append_u64(batch_, static_cast<std::uint64_t>(what) | static_cast<std::uint64_t>(node) << 8);
    append_u64(batch_, x);
    append_u64(batch_, y);
    append_u64(batch_, content.size());
    batch_.insert(batch_.end(), content.begin(), content.end());
    if (batch_.size() >= batch_limit) flush();

    if (!kept_.empty()) {
        line& l = kept_[count_ % kept_.size()];
        l.t = t;
        l.what = what;
        l.node = node;
        l.x = x;
        l.y = y;
        l.bytes = content.size();
        l.text.clear();
        if (holds_text(what)) l.text = core::as_text(content.first(std::min(shown, content.size())));
    }
    ++count_;
}

void trace::flush() {
    core::hasher h;
    h.update(chain_.bytes).update(batch_);
    chain_ = h.finish();
    batch_.clear();
}

core::digest trace::hash() const {
    core::hasher h;
    h.update(chain_.bytes).update(batch_);
    return h.finish();
}

std::string trace::text(const std::vector<std::string>& node_names) const {
    std::string out;
    const auto n = std::min<std::uint64_t>(count_, kept_.size());
    for (auto i = count_ - n; i < count_; ++i) {
        const line& l = kept_[i % kept_.size()];
        const std::string_view node = l.node < node_names.size() ? std::string_view(node_names[l.node]) : "-";
        out += fmt::format("{:16.9f}  {:<10} {:<9} {} {} {}B {}\n", core::to_seconds(l.t), node,
                           names[static_cast<std::size_t>(l.what)], l.x, l.y, l.bytes, l.text);
    }
    return out;
}

}  // namespace longhaul::sim
