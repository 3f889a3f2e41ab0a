#include "core/events.hpp"

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <limits>

#include "core/event_file.hpp"
#include "tests/temp_folder.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using longhaul::tests::temp_folder;

namespace {

class fixed_clock final : public longhaul::core::clock {
public:
    time_point now() const override { return {}; }
    double wall_seconds() const override { return 12.5; }
    std::unique_ptr<longhaul::core::alarm> call_at(time_point, std::function<void()>) override { return nullptr; }
};

}  // namespace

TEST_CASE("an event is one line of JSON with its fields in order") {
    event e("round_committed");
    e.with("round", std::uint64_t{18446744073709551615U}).with("delta", std::int64_t{-3}).with("loss", 1.5);
    e.with("final", true)
        .with("members", std::vector<std::string>{"a", "b"})
        .with("times", std::vector<double>{0.25, 2});
    e.with("why", std::string("\"quoted\"\nnext line"));
    CHECK(to_json_line(e, 0.5, "n1") ==
          R"({"v":1,"t":0.5,"node":"n1","event":"round_committed","round":18446744073709551615,"delta":-3,"loss":1.5,)"
          R"("final":true,"members":["a","b"],"times":[0.25,2.0],"why":"\"quoted\"\nnext line"})");
    CHECK(std::get<double>(*e.find("loss")) == 1.5);
    CHECK(e.find("absent") == nullptr);
}

TEST_CASE(
    "numbers that JSON lacks become null, bytes that are not text are replaced, reserved keys keep their meaning") {
    event e("inner");
    e.with("loss", std::numeric_limits<double>::quiet_NaN()).with("up", std::numeric_limits<double>::infinity());
    e.with("name", std::string("\xff")).with("node", std::string("impostor"));
    CHECK(to_json_line(e, 1, "n") ==
          "{\"v\":1,\"t\":1.0,\"node\":\"n\",\"event\":\"inner\",\"loss\":null,\"up\":null,\"name\":\"\xEF\xBF\xBD\"}");
}

TEST_CASE("an event log stamps events and tells its listeners") {
    fixed_clock time;
    std::vector<std::string> lines, heard;
    event_log log(time, "n7", [&](std::string_view line) { lines.emplace_back(line); });
    log.listen([&](const event& e) { heard.push_back(e.name); });
    log.listen([&](const event& e) { heard.push_back(e.name + "!"); });
    log.emit(event("joined"));
    CHECK(lines == std::vector<std::string>{R"({"v":1,"t":12.5,"node":"n7","event":"joined"})"});
    CHECK(heard == std::vector<std::string>{"joined", "joined!"});
}

TEST_CASE("an event file appends, and starts on a fresh line after a torn one") {
    temp_folder folder;
    const auto path = folder.path("events.jsonl");
    const auto unexpected = [](const error& e) { FAIL(e.message); };
    {
        auto file = *event_file::open(path, unexpected);
        file->write("one");
        file->write("two");
    }
    CHECK(folder.read("events.jsonl") == "one\ntwo\n");
    folder.write("events.jsonl", "one\n{\"torn");
    (*event_file::open(path, unexpected))->write("next");
    CHECK(folder.read("events.jsonl") == "one\n{\"torn\nnext\n");
    (*event_file::open(path, unexpected))->write("last");
    CHECK(folder.read("events.jsonl") == "one\n{\"torn\nnext\nlast\n");
    CHECK(event_file::open(folder.path("no/such/file"), unexpected).error().code == errc::not_found);
}

TEST_CASE("a full event file steps back for a new one, and the two together are bounded") {
    temp_folder folder;
    const auto path = folder.path("events.jsonl");
    const auto unexpected = [](const error& e) { FAIL(e.message); };
    {
        auto file = *event_file::open(path, unexpected, 10);
        for (const auto* line : {"one", "two", "three", "longer than ten bytes"}) file->write(line);
        CHECK(folder.read("events.jsonl.1") == "three\n");
        CHECK(folder.read("events.jsonl") == "longer than ten bytes\n");
    }
    // What an earlier process wrote counts.
    (*event_file::open(path, unexpected, 30))->write("more than nine");
    CHECK(folder.read("events.jsonl.1") == "longer than ten bytes\n");
    CHECK(folder.read("events.jsonl") == "more than nine\n");
}

TEST_CASE("an event file that cannot step back grows on and says so once") {
    temp_folder folder;
    std::filesystem::create_directories(folder.path("e.1") + "/in the way");
    std::vector<error> errors;
    auto file = *event_file::open(folder.path("e"), [&](const error& e) { errors.push_back(e); }, 5);
    for (const auto* line : {"one", "two", "three"}) file->write(line);
    CHECK(folder.read("e") == "one\ntwo\nthree\n");
    REQUIRE(errors.size() == 1);
    CHECK(errors[0].message.starts_with("cannot rename "));
}

TEST_CASE("a write that fails is reported once, and the next line starts fresh") {
    temp_folder folder;
    std::vector<error> errors;
    auto file = *event_file::open(folder.path("e"), [&](const error& e) { errors.push_back(e); });
    file->write("0123456789");
    // A limit on file sizes makes write(2) short and then fail, as a full disk does.
    auto* before = std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const auto old = limit.rlim_cur;
    limit.rlim_cur = 16;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    file->write("abcdefgh");
    file->write("ijk");
    limit.rlim_cur = old;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, before);
    file->write("later");
    CHECK(folder.read("e") == "0123456789\nabcde\nlater\n");
    REQUIRE(errors.size() == 1);
    CHECK(errors[0].code == errc::io);
    CHECK(errors[0].message.starts_with("events are being lost: cannot write "));
}
