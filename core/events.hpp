#pragma once
/// events.jsonl: one JSON object a line, the source of truth for the console line, plots, `top` and tests.
/// DESIGN §8 lists the events and their fields; fields are added, meanings never changed.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/clock.hpp"

namespace longhaul::core {

/// A field of an event: text, number, truth value, or a list of texts or numbers.
using event_value =
    std::variant<std::string, std::int64_t, std::uint64_t, double, bool, std::vector<std::string>, std::vector<double>>;

/// An event before it gets its time and node: a name and fields, kept in the order they were given.
struct event {
    std::string name;
    std::vector<std::pair<std::string, event_value>> fields;

    explicit event(std::string n) : name(std::move(n)) {}
    event& with(std::string key, event_value value) & {
        fields.emplace_back(std::move(key), std::move(value));
        return *this;
    }
    event&& with(std::string key, event_value value) && {
        fields.emplace_back(std::move(key), std::move(value));
        return std::move(*this);
    }
    /// The field's value, or nullptr.
    const event_value* find(std::string_view key) const;
};

/// One line of events.jsonl, without the newline: {"v":1,"t":…,"node":…,"event":…, fields…}. NaN and infinities become
/// null.
std::string to_json_line(const event& e, double t, std::string_view node);

/// Where events go. Cheap to call from the I/O thread; never fails (a full disk is itself an event and a log line).
class event_sink {
public:
    virtual ~event_sink() = default;
    virtual void emit(const event& e) = 0;
};

/// Stamps events with a clock and a node's name and hands the lines to `write`, and each event to the listeners.
class event_log final : public event_sink {
public:
    using line_writer = std::function<void(std::string_view line)>;
    using listener = std::function<void(const event&)>;
    event_log(const clock& clock, std::string node, line_writer write);
    void emit(const event& e) override;
    void listen(listener l) { listeners_.push_back(std::move(l)); }

private:
    const clock& clock_;
    std::string node_;
    line_writer write_;
    std::vector<listener> listeners_;
};

}  // namespace longhaul::core
