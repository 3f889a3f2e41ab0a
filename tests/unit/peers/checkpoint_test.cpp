#include "peers/checkpoint.hpp"

#include <sys/mount.h>

#include <asio/io_context.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "core/posix_storage.hpp"
#include "core/thread_workers.hpp"
#include "peers/checkpoint_format.hpp"
#include "peers/checkpoint_tools.hpp"
#include "tests/run_task.hpp"
#include "tests/temp_folder.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using namespace longhaul::peers;
using longhaul::tests::run_task;
using longhaul::tests::temp_folder;

namespace {

class inline_workers final : public workers {
public:
    task<result<void>> run(std::function<void()> job, duration) override {
        job();
        co_return ok();
    }
    unsigned concurrency() const override { return 1; }
    bool full() const override { return false; }
};

/// Files in memory, with faults on demand: the only way to fail at every single operation.
class memory_storage final : public storage {
public:
    std::map<std::string, byte_vector> files;
    std::size_t operations = 0;
    /// From this operation on, `failures` ones fail with errc::no_space.
    std::size_t fail_at = std::numeric_limits<std::size_t>::max();
    std::size_t failures = 0;
    std::string corrupt;  ///< puts to paths that end so are written with a flipped bit

    task<result<byte_vector>> read(std::string path, std::uint64_t max_bytes) override {
        if (faulty()) co_return fail(errc::no_space, "planned");
        const auto it = files.find(path);
        if (it == files.end()) co_return fail(errc::not_found, "there is no {}", path);
        if (it->second.size() > max_bytes) co_return fail(errc::limit, "{} is too large", path);
        co_return it->second;
    }
    task<result<void>> put(std::string path, std::vector<const_bytes> pieces) override {
        if (faulty()) co_return fail(errc::no_space, "planned");
        byte_vector all;
        for (const auto p : pieces) all.insert(all.end(), p.begin(), p.end());
        if (!corrupt.empty() && path.ends_with(corrupt)) all[all.size() / 2] ^= std::byte{4};
        files[path] = std::move(all);
        co_return ok();
    }
    task<result<void>> append(std::string, const_bytes) override { co_return fail(errc::unsupported, "not here"); }
    task<result<std::vector<std::string>>> list(std::string folder) override {
        if (faulty()) co_return fail(errc::no_space, "planned");
        std::vector<std::string> names;
        for (const auto& [path, content] : files) {
            if (!path.starts_with(folder + "/")) continue;
            const auto rest = path.substr(folder.size() + 1);
            const auto slash = rest.find('/');
            const auto name = slash == std::string::npos ? rest : rest.substr(0, slash + 1);
            if (names.empty() || names.back() != name) names.push_back(name);
        }
        co_return names;
    }
    task<result<void>> remove(std::string path) override {
        if (faulty()) co_return fail(errc::no_space, "planned");
        std::erase_if(files, [&](const auto& f) { return f.first == path || f.first.starts_with(path + "/"); });
        co_return ok();
    }
    task<result<void>> rename(std::string from, std::string to) override {
        if (faulty()) co_return fail(errc::no_space, "planned");
        std::map<std::string, byte_vector> next;
        for (auto& [path, content] : files) {
            if (path.starts_with(to + "/")) co_return fail(errc::io, "{} exists", to);
            next[path.starts_with(from + "/") ? to + path.substr(from.size()) : path] = content;
        }
        files = std::move(next);
        co_return ok();
    }

private:
    bool faulty() {
        const auto n = operations++;
        return n >= fail_at && n - fail_at < failures;
    }
};

tensor_manifest small_model() {
    return *tensor_manifest::make({{"w", {20, 3}, tensor_role::parameter},
                                   {"b", {7}, tensor_role::parameter},
                                   {"norm.mean", {7}, tensor_role::buffer}});
}

flat_buffer values(float start) {
    flat_buffer out(small_model().elements());
    for (auto& v : out) v = start += 0.25F;
    return out;
}

checkpoint state_at(std::uint64_t round) {
    checkpoint c;
    c.run = longhaul::core::digest{};
    c.run.bytes[5] = std::byte{7};
    c.generation = 1;
    c.round = round;
    c.step = round * 30;
    c.tokens = round * 1000;
    c.manifest = small_model();
    c.anchor = values(static_cast<float>(round));
    c.momentum = values(-1);
    return c;
}

struct world {
    asio::io_context io;
    inline_workers on;
    memory_storage files;

    result<void> save(const checkpoint& c, unsigned keep = 3) {
        return run_task(io, save_checkpoint(files, on, c, keep));
    }
    result<std::optional<loaded_checkpoint>> load(std::uint64_t max = 1 << 20, std::optional<digest> run = {}) {
        return run_task(io, load_newest_checkpoint(files, on, max, run));
    }
    /// The round of the newest usable one.
    std::uint64_t newest() {
        const auto got = load();
        return got && *got ? (*got)->value.round : 0;
    }
    std::vector<std::string> folders() { return *run_task(io, files.list("checkpoints")); }
};

const std::string newest_folder = "checkpoints/round-000000020/";

/// A world with the checkpoints of rounds 10 and 20, with all optional parts.
void fill(world& w) {
    for (std::uint64_t r : {10U, 20U}) {
        auto c = state_at(r);
        c.residual = values(3);
        c.said = values(4);
        c.inner = byte_vector(500, std::byte{9});
        c.extra_json = R"({"next":"line\n"})";
        REQUIRE(w.save(c));
    }
}

}  // namespace

TEST_CASE("a checkpoint comes back whole") {
    world w;
    auto c = state_at(123);
    c.residual = values(100);
    c.said = values(101);
    c.inner = {std::byte{1}, std::byte{2}};
    c.extra_json = "{\"a\": \"\xC3\xA9\"}";
    REQUIRE(w.save(c));
    CHECK(w.folders() == std::vector<std::string>{"round-000000123/"});
    const auto got = w.load();
    REQUIRE(got);
    REQUIRE(*got);
    CHECK((*got)->skipped.empty());
    const auto& v = (*got)->value;
    CHECK(v.run == c.run);
    CHECK(v.generation == 1);
    CHECK(v.round == 123);
    CHECK(v.step == 3690);
    CHECK(v.tokens == 123000);
    CHECK(v.manifest == c.manifest);
    CHECK(v.anchor == c.anchor);
    CHECK(v.momentum == c.momentum);
    CHECK(v.residual == c.residual);
    CHECK(v.said == c.said);
    CHECK(v.inner == c.inner);
    CHECK(v.extra_json == c.extra_json);
}

TEST_CASE("optional parts have no files, and come back empty") {
    world w;
    auto c = state_at(1);
    c.momentum.clear();
    REQUIRE(w.save(c));
    CHECK(w.files.files.size() == 2);
    const auto got = w.load();
    CHECK((*got)->value.momentum.empty());
    CHECK((*got)->value.residual.empty());
    CHECK((*got)->value.said.empty());
    CHECK((*got)->value.inner.empty());
    CHECK((*got)->value.extra_json.empty());
}

TEST_CASE("the same state on two nodes gives the same model and outer files, whatever else they hold") {
    world a, b;
    auto mine = state_at(5), yours = state_at(5);
    yours.residual = values(8);
    yours.inner = {std::byte{3}};
    yours.extra_json = "other";
    yours.generation = 2;
    REQUIRE(a.save(mine));
    REQUIRE(b.save(yours));
    for (const std::string name : {"model.safetensors", "outer.safetensors"}) {
        const auto path = "checkpoints/round-000000005/" + name;
        CHECK(a.files.files.at(path) == b.files.files.at(path));
        CHECK(a.files.files.at(path).size() > 300);
    }
    CHECK(a.files.files.size() == 3);
    CHECK(b.files.files.size() == 5);
}

TEST_CASE("no checkpoint is no error") {
    world w;
    const auto got = w.load();
    REQUIRE(got);
    CHECK_FALSE(got->has_value());
    w.files.files["checkpoints/round-12/state.json"] = {};
    w.files.files["checkpoints/writing-round-000000012/state.json"] = {};
    w.files.files["checkpoints/notes/x"] = {};
    w.files.files["checkpoints/round-000000012"] = {};  // a file, not a folder
    CHECK_FALSE(w.load()->has_value());
}

TEST_CASE("truncated at every 97th byte, each file: the previous checkpoint is used, and it is said") {
    world intact;
    fill(intact);
    CHECK(intact.newest() == 20);
    for (const std::string name : {"model.safetensors", "outer.safetensors", "residual.safetensors", "said.safetensors",
                                   "inner.bin", "state.json"}) {
        const auto path = newest_folder + name;
        const auto whole = intact.files.files.at(path);
        for (std::size_t cut = 0; cut < whole.size(); cut += 97) {
            world w;
            w.files.files = intact.files.files;
            w.files.files[path].resize(cut);
            const auto got = w.load();
            INFO(name << " cut at " << cut);
            REQUIRE(got);
            REQUIRE(*got);
            CHECK((*got)->value.round == 10);
            CHECK((*got)->value.anchor == values(10));
            REQUIRE((*got)->skipped.size() == 1);
            CHECK((*got)->skipped[0].starts_with("the checkpoint of round 20 is damaged and was skipped: " + name));
        }
        world w;
        w.files.files = intact.files.files;
        w.files.files[path].push_back(std::byte{'\n'});
        CHECK(w.newest() == 10);
        w.files.files.erase(path);
        CHECK(w.newest() == 10);
    }
}

TEST_CASE("flipped bits, everywhere in state.json and at every 97th byte elsewhere: the previous one is used") {
    world intact;
    fill(intact);
    for (const std::string name : {"model.safetensors", "outer.safetensors", "residual.safetensors", "said.safetensors",
                                   "inner.bin", "state.json"}) {
        const auto path = newest_folder + name;
        const auto size = intact.files.files.at(path).size();
        for (std::size_t at = 0; at < size; at += name == "state.json" ? 1 : 97) {
            world w;
            w.files.files = intact.files.files;
            w.files.files[path][at] ^= static_cast<std::byte>(1U << (at % 8));
            INFO(name << " flipped at " << at);
            CHECK(w.newest() == 10);
        }
    }
}

TEST_CASE("when all are damaged that is an error that names each") {
    world w;
    fill(w);
    for (auto& [path, content] : w.files.files)
        if (path.ends_with("model.safetensors")) content[100] ^= std::byte{1};
    const auto got = w.load();
    REQUIRE_FALSE(got);
    CHECK(got.error().code == errc::malformed);
    CHECK(
        got.error().message ==
        "no checkpoint can be used: the checkpoint of round 20 is damaged and was skipped: model.safetensors does not "
        "match its hash; the checkpoint of round 10 is damaged and was skipped: model.safetensors does not match its "
        "hash; remove the folder \"checkpoints\" to start without");
}

TEST_CASE("a checkpoint under another round's name is not believed") {
    world w;
    fill(w);
    std::map<std::string, byte_vector> moved;
    for (const auto& [path, content] : w.files.files)
        moved[path.starts_with(newest_folder) ? "checkpoints/round-000000099/" + path.substr(newest_folder.size())
                                              : path] = content;
    w.files.files = moved;
    const auto got = w.load();
    CHECK((*got)->value.round == 10);
    CHECK((*got)->skipped[0].ends_with("it is of round 20"));
}

TEST_CASE("the newest three are kept, and more or fewer when asked") {
    world w;
    for (std::uint64_t r : {1U, 2U, 3U, 4U, 5U, 1000000000U}) REQUIRE(w.save(state_at(r)));
    CHECK(w.folders() == std::vector<std::string>{"round-000000004/", "round-000000005/", "round-1000000000/"});
    CHECK(w.newest() == 1000000000);
    REQUIRE(w.save(state_at(1000000001), 2));
    CHECK(w.folders() == std::vector<std::string>{"round-1000000000/", "round-1000000001/"});
    REQUIRE(w.save(state_at(1000000002), 0));
    CHECK(w.folders() == std::vector<std::string>{"round-1000000002/"});
}

TEST_CASE("a run that went back leaves no future behind: another run's and damaged ones stay") {
    world w;
    for (std::uint64_t r : {10U, 20U, 30U}) REQUIRE(w.save(state_at(r)));
    w.files.files["checkpoints/round-000000040/state.json"] = {std::byte{'{'}};
    auto other = state_at(50);
    other.run.bytes[0] = std::byte{1};
    REQUIRE(w.save(other, 10));
    REQUIRE(w.save(state_at(15)));
    CHECK(w.folders() ==
          std::vector<std::string>{"round-000000010/", "round-000000015/", "round-000000040/", "round-000000050/"});
    const auto mine = w.load(1 << 20, state_at(1).run);
    REQUIRE(mine);
    CHECK((*mine)->value.round == 15);
    CHECK((*mine)->skipped.size() == 1);
    CHECK(w.newest() == 50);
}

TEST_CASE("a checkpoint of the same round is replaced") {
    world w;
    REQUIRE(w.save(state_at(7)));
    auto again = state_at(7);
    again.tokens = 1;
    again.momentum.clear();
    REQUIRE(w.save(again));
    CHECK((*w.load())->value.tokens == 1);
    CHECK(w.files.files.size() == 2);
}

TEST_CASE("a disk that fails at any single operation costs at most the new checkpoint") {
    world intact;
    fill(intact);
    const auto before = intact.files.operations;
    REQUIRE(intact.save(state_at(30)));
    const auto steps = intact.files.operations - before;
    CHECK(steps >= 10);
    for (std::size_t failures : {std::size_t{1}, std::size_t{1000}}) {  // once, and for good
        for (std::size_t n = 0; n < steps; ++n) {
            world w;
            fill(w);
            w.files.fail_at = w.files.operations + n;
            w.files.failures = failures;
            const auto saved = w.save(state_at(30));
            INFO("operation " << n << ", " << failures);
            w.files.failures = 0;
            const auto got = w.load();
            REQUIRE(got);
            REQUIRE(*got);
            CHECK((*got)->skipped.empty());
            if (saved) {
                CHECK((*got)->value.round == 30);
            } else {
                CHECK(saved.error().code == errc::no_space);
                CHECK((*got)->value.round >= 20);
            }
            CHECK((*got)->value.anchor == values(static_cast<float>((*got)->value.round)));
            // And when there is room again, all is well and nothing is left over.
            REQUIRE(w.save(state_at(40)));
            CHECK(w.newest() == 40);
            for (const auto& name : w.folders()) CHECK(name.starts_with("round-"));
            CHECK(w.folders().size() == 3);
        }
    }
}

TEST_CASE("what reads back differently from what was written is never put in place") {
    for (const std::string name : {"model.safetensors", "outer.safetensors", "state.json"}) {
        world w;
        fill(w);
        w.files.corrupt = name;
        const auto saved = w.save(state_at(30));
        REQUIRE_FALSE(saved);
        CHECK(saved.error().code == errc::io);
        CHECK(saved.error().message ==
              "the checkpoint of round 30 was not written: " + name + " reads back differently from what was written");
        CHECK(w.newest() == 20);
        CHECK(w.folders() == std::vector<std::string>{"round-000000010/", "round-000000020/"});
    }
}

TEST_CASE("limits: the caller's memory, and the extra text") {
    world w;
    REQUIRE(w.save(state_at(1)));
    CHECK(w.load(100).error().code == errc::limit);
    auto c = state_at(2);
    c.extra_json = std::string(max_checkpoint_extra, '\x01');  // six bytes each in JSON
    REQUIRE(w.save(c));
    CHECK((*w.load())->value.extra_json == c.extra_json);
    c.extra_json += 'x';
    CHECK(w.save(c).error().code == errc::limit);
    c.extra_json = "\xff";
    CHECK(w.save(c).error().code == errc::limit);
    CHECK(w.newest() == 2);
}

TEST_CASE("checkpoints on a real disk: inspect and export") {
    temp_folder folder;
    asio::io_context io;
    thread_workers pool(2);
    const auto c = state_at(12);
    {
        auto files = *posix_storage::open(folder.path("state"), pool);
        REQUIRE(run_task(io, save_checkpoint(*files, pool, state_at(11))));
        REQUIRE(run_task(io, save_checkpoint(*files, pool, c)));
        const auto got = run_task(io, load_newest_checkpoint(*files, pool, 1 << 20));
        REQUIRE(got);
        CHECK((*got)->value.anchor == c.anchor);
    }
    const auto base = folder.path("state/checkpoints/round-000000012");
    for (const auto& path : {folder.path("state"), folder.path("state/checkpoints"), base, base + "/state.json",
                             base + "/model.safetensors"}) {
        INFO(path);
        const auto summary = inspect_checkpoint(path);
        REQUIRE(summary);
        CHECK(summary->round == 12);
        CHECK(summary->parameters == 74);
        CHECK(summary->has_momentum);
        CHECK_FALSE(summary->has_residual);
    }
    const auto summary = *inspect_checkpoint(base);
    CHECK(summary.text().find("round      12 (generation 1, step 360, 12000 tokens)") != std::string::npos);
    const auto json = nlohmann::json::parse(summary.json());
    CHECK(json["round"] == 12);
    CHECK(json["run"] == c.run.hex());
    CHECK(json["tensors"][0]["name"] == "w");
    double squares = 0;
    for (std::size_t i = 0; i < 60; ++i) squares += static_cast<double>(c.anchor[i]) * static_cast<double>(c.anchor[i]);
    CHECK(json["tensors"][0]["norm"].get<double>() == Approx(std::sqrt(squares)));

    REQUIRE(export_checkpoint(base, folder.path("out.safetensors")));
    CHECK(folder.read("out.safetensors") == folder.read("state/checkpoints/round-000000012/model.safetensors"));
    CHECK(export_checkpoint(base, folder.path("out.safetensors")).error().code == errc::usage);

    CHECK(inspect_checkpoint(folder.path("nothing")).error().code == errc::not_found);
    CHECK(inspect_checkpoint(folder.path())
              .error()
              .message.ends_with("holds no checkpoint; name a folder like checkpoints/round-000000120"));
    auto model = folder.read("state/checkpoints/round-000000012/model.safetensors");
    model[model.size() - 1] = static_cast<char>(model[model.size() - 1] ^ 1);
    folder.write("state/checkpoints/round-000000012/model.safetensors", model);
    CHECK(inspect_checkpoint(base).error().message.ends_with("model.safetensors does not match its hash"));
    CHECK(export_checkpoint(base, folder.path("no.safetensors")).error().code == errc::malformed);
    CHECK_FALSE(std::filesystem::exists(folder.path("no.safetensors")));
}

TEST_CASE("a disk that fills up in the middle of a checkpoint keeps the one before") {
    temp_folder folder;
    if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
        WARN("skipped: mounting a small tmpfs needs root");
        return;
    }
    {
        asio::io_context io;
        thread_workers pool(1);
        auto files = *posix_storage::open(folder.path(), pool);
        REQUIRE(run_task(io, save_checkpoint(*files, pool, state_at(1))));
        auto large = state_at(2);
        large.inner = byte_vector(400'000, std::byte{1});  // model and outer fit, this does not
        const auto saved = run_task(io, save_checkpoint(*files, pool, large));
        REQUIRE_FALSE(saved);
        CHECK(saved.error().code == errc::no_space);
        CHECK(saved.error().message.starts_with("the checkpoint of round 2 was not written: cannot write "));
        CHECK((*run_task(io, load_newest_checkpoint(*files, pool, 1 << 20)))->value.round == 1);
        CHECK(run_task(io, files->list("checkpoints"))->size() == 1);
        REQUIRE(run_task(io, save_checkpoint(*files, pool, state_at(3))));
        CHECK((*run_task(io, load_newest_checkpoint(*files, pool, 1 << 20)))->value.round == 3);
    }
    CHECK(::umount(folder.path().c_str()) == 0);
}
