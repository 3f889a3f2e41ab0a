#include "core/posix_storage.hpp"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/io_context.hpp>

#include "core/thread_workers.hpp"
#include "tests/run_task.hpp"
#include "tests/temp_folder.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using longhaul::tests::run_task;
using longhaul::tests::temp_folder;

namespace {

struct opened {
    asio::io_context io;
    thread_workers pool{2};
    std::unique_ptr<posix_storage> files;

    explicit opened(const std::string& folder) {
        auto got = posix_storage::open(folder, pool);
        if (!got) FAIL(got.error().message);
        files = std::move(*got);
    }
    result<std::string> read(const std::string& path, std::uint64_t max = 1000) {
        return run_task(io, files->read(path, max)).map([](const byte_vector& b) { return std::string(as_text(b)); });
    }
    result<void> put(const std::string& path, const std::vector<std::string>& texts) {
        std::vector<const_bytes> pieces;
        for (const auto& t : texts) pieces.push_back(as_bytes(t));
        return run_task(io, files->put(path, pieces));
    }
    result<void> append(const std::string& path, const std::string& text) {
        return run_task(io, files->append(path, as_bytes(text)));
    }
    std::vector<std::string> list(const std::string& folder) { return *run_task(io, files->list(folder)); }
    result<void> remove(const std::string& path) { return run_task(io, files->remove(path)); }
    result<void> rename(const std::string& a, const std::string& b) { return run_task(io, files->rename(a, b)); }
};

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("storage paths are relative and plain") {
    for (const auto* good : {"a", "a/b", "A-z_0.9/x", ".hidden", "a/..b"}) CHECK(check_storage_path(good));
    for (const auto* bad :
         {"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\\b", "a\n", "\xc3\xa4", "a*"}) {
        INFO(bad);
        const auto r = check_storage_path(bad);
        REQUIRE_FALSE(r);
        CHECK(r.error().code == errc::malformed);
    }
    CHECK_FALSE(check_storage_path(std::string_view("a\0b", 3)));
    CHECK_FALSE(check_storage_path(std::string(201, 'a')));
    CHECK_FALSE(check_storage_path(std::string(5000, 'a')));
}

TEST_CASE("put, read, replace, append, list, rename, remove") {
    temp_folder folder;
    opened s(folder.path("state/deep"));
    CHECK(s.list("").empty());
    CHECK(s.list("nowhere").empty());
    CHECK(s.read("a").error().code == errc::not_found);

    REQUIRE(s.put("x/y/doc", {"one ", "", "two"}));
    CHECK(*s.read("x/y/doc") == "one two");
    REQUIRE(s.put("x/y/doc", {"three"}));
    CHECK(*s.read("x/y/doc") == "three");
    CHECK(*s.read("x/y/doc", 5) == "three");
    CHECK(s.read("x/y/doc", 4).error().code == errc::limit);
    REQUIRE(s.put("x/empty", {}));
    CHECK(s.read("x/empty", 0)->empty());

    REQUIRE(s.append("x/log", "ab"));
    REQUIRE(s.append("x/log", "cd"));
    CHECK(*s.read("x/log") == "abcd");

    CHECK(s.list("") == names{"x/"});
    CHECK(s.list("x") == names{"empty", "log", "y/"});
    CHECK(s.list("x/") == s.list("x"));
    CHECK(s.read("x").error().code == errc::io);

    REQUIRE(s.rename("x/y", "z/w"));
    CHECK(*s.read("z/w/doc") == "three");
    CHECK(s.list("x") == names{"empty", "log"});
    CHECK(s.rename("x/y", "q").error().code == errc::not_found);
    CHECK(s.rename("x/log", "x/empty").error().code == errc::io);
    CHECK(*s.read("x/log") == "abcd");
    CHECK(s.read("x/empty")->empty());

    REQUIRE(s.remove("z"));
    REQUIRE(s.remove("z"));
    REQUIRE(s.remove("x/log"));
    CHECK(s.list("") == names{"x/"});
    CHECK(s.put("x/empty/below", {"a"}).error().code == errc::io);
}

TEST_CASE("paths that leave the folder, and the storage's own, are refused by every operation") {
    temp_folder folder;
    folder.write("secret", "s");
    opened s(folder.path("state"));
    for (const std::string bad : {"../secret", "/etc/passwd", "", ".storage/lock", ".storage"}) {
        INFO(bad);
        CHECK(s.read(bad).error().code == errc::malformed);
        CHECK(s.put(bad, {"x"}).error().code == errc::malformed);
        CHECK(s.append(bad, "x").error().code == errc::malformed);
        CHECK(s.remove(bad).error().code == errc::malformed);
        CHECK(s.rename(bad, "b").error().code == errc::malformed);
        CHECK(s.rename("b", bad).error().code == errc::malformed);
        if (!bad.empty()) CHECK(run_task(s.io, s.files->list(bad)).error().code == errc::malformed);
    }
    CHECK(folder.read("secret") == "s");
}

TEST_CASE("files are private, and foreign names are not listed") {
    temp_folder folder;
    opened s(folder.path());
    REQUIRE(s.put("sub/key", {"k"}));
    struct stat st{};
    REQUIRE(::stat(folder.path("sub/key").c_str(), &st) == 0);
    CHECK((st.st_mode & 0777U) == 0600U);
    REQUIRE(::stat(folder.path("sub").c_str(), &st) == 0);
    CHECK((st.st_mode & 0777U) == 0700U);
    folder.write("a note.txt", "x");
    CHECK(s.list("") == names{"sub/"});
}

TEST_CASE("a second user of a state directory is told so, and temporary files of a crash are swept") {
    temp_folder folder;
    {
        opened s(folder.path());
        thread_workers pool(1);
        const auto second = posix_storage::open(folder.path(), pool);
        REQUIRE_FALSE(second);
        CHECK(second.error().code == errc::config);
        CHECK(second.error().message.find("in use by another longhaul process") != std::string::npos);
        folder.write(".storage/tmp/0", "half a file");
        // A leftover under the first temporary name must not be in the way of a put.
    }
    opened again(folder.path());
    REQUIRE(again.put("a", {"1"}));
    CHECK(std::filesystem::is_empty(folder.path(".storage/tmp")));
}

TEST_CASE("a file in the place of the state directory is an error, not a crash") {
    temp_folder folder;
    folder.write("file", "x");
    thread_workers pool(1);
    CHECK(posix_storage::open(folder.path("file"), pool).error().code == errc::io);
    CHECK(posix_storage::open(folder.path("file/below"), pool).error().code == errc::io);
    CHECK(posix_storage::open("", pool).error().code == errc::config);
}

TEST_CASE("a full disk is errc::no_space and leaves the old file in place") {
    temp_folder folder;
    if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
        WARN("skipped: mounting a small tmpfs needs root");
        return;
    }
    {
        opened s(folder.path());
        REQUIRE(s.put("doc", {"old"}));
        const std::string big(1 << 20, 'x');
        const auto put = s.put("doc", {big});
        CHECK(put.error().code == errc::no_space);
        CHECK(put.error().message.find("free some space") != std::string::npos);
        CHECK(*s.read("doc") == "old");
        // The failed attempt gave its space back.
        CHECK(s.put("other", {std::string(100'000, 'y')}));
        CHECK(s.append("log", big).error().code == errc::no_space);
        REQUIRE(s.remove("log"));
        CHECK(s.append("log", "fits"));
    }
    CHECK(::umount(folder.path().c_str()) == 0);
}
