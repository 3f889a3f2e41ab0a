#include "optim/data.hpp"

#include <zlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/hash.hpp"
#include "optim/stdlib_text.hpp"
#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;
namespace fs = std::filesystem;

namespace {

/// A folder that goes when the test ends.
struct scratch {
    fs::path path;
    scratch() {
        std::string name = (fs::temp_directory_path() / "longhaul-data-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~scratch() { fs::remove_all(path); }
    scratch(const scratch&) = delete;
    std::string file(const std::string& name, const std::string& content) const {
        std::ofstream(path / name, std::ios::binary) << content;
        return (path / name).string();
    }
    std::string gzip(const std::string& name, const std::string& content) const {
        auto* f = ::gzopen((path / name).c_str(), "wb");
        REQUIRE(::gzwrite(f, content.data(), static_cast<unsigned>(content.size())) ==
                static_cast<int>(content.size()));
        ::gzclose(f);
        return (path / name).string();
    }
};

std::string little(std::uint64_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
    return out;
}

std::string big(std::uint64_t value) {
    auto s = little(value, 4);
    std::reverse(s.begin(), s.end());
    return s;
}

std::string llmc(std::uint32_t magic, std::uint32_t version, std::uint32_t count, int width, std::uint32_t present) {
    std::string s = little(magic, 4) + little(version, 4) + little(count, 4);
    s.resize(1024);
    for (std::uint32_t i = 0; i < present; ++i) s += little(i * 3, width);
    return s;
}

std::string images(std::uint32_t n, std::uint32_t rows, std::uint32_t columns, std::size_t present) {
    std::string s = big(0x803) + big(n) + big(rows) + big(columns);
    for (std::size_t i = 0; i < present; ++i) s.push_back(static_cast<char>(i));
    return s;
}

std::string labels(std::uint32_t n, std::size_t present) {
    std::string s = big(0x801) + big(n);
    for (std::size_t i = 0; i < present; ++i) s.push_back(static_cast<char>(i % 10));
    return s;
}

std::vector<std::int64_t> first(const optim::token_source& s, std::size_t n) {
    std::vector<std::int64_t> out(n);
    s.copy(0, out);
    return out;
}

template <typename T>
core::errc code_of(const core::result<T>& r) {
    REQUIRE_FALSE(r);
    CAPTURE(r.error().message);
    CHECK(r.error().message.size() > 20);
    return r.error().code;
}

}  // namespace

TEST_CASE("a text is one token a byte") {
    const scratch dir;
    const auto s = optim::token_source::open_text(dir.file("a.txt", "az\xff"));
    REQUIRE(s);
    CHECK(s->size() == 3);
    CHECK(s->largest() == 255);
    CHECK(first(*s, 3) == std::vector<std::int64_t>{'a', 'z', 255});
    CHECK(s->hash() == core::hash(core::as_bytes("az\xff")));
    CHECK(s->description() == "the text a.txt (3 B; hash " + s->hash().brief() + ")");
    CHECK(optim::data_file_name("/tmp/a\x1b[31m\nb.txt") == "a?[31m?b.txt");
}

TEST_CASE("token files of nanoGPT and llm.c are told apart by their magic") {
    const scratch dir;
    const auto nano =
        optim::token_source::open_tokens(dir.file("n.bin", little(1, 2) + little(50256, 2) + little(65535, 2)));
    REQUIRE(nano);
    CHECK(nano->size() == 3);
    CHECK(nano->largest() == 65535);
    CHECK(first(*nano, 3) == std::vector<std::int64_t>{1, 50256, 65535});

    const auto gpt2 = optim::token_source::open_tokens(dir.file("g.bin", llmc(20240520, 1, 5, 2, 5)));
    REQUIRE(gpt2);
    CHECK(first(*gpt2, 5) == std::vector<std::int64_t>{0, 3, 6, 9, 12});

    const auto llama = optim::token_source::open_tokens(dir.file("l.bin", llmc(20240801, 7, 4, 4, 4)));
    REQUIRE(llama);
    CHECK(first(*llama, 4) == std::vector<std::int64_t>{0, 3, 6, 9});
    // The hash covers the header: the same tokens in another container are another file.
    CHECK(gpt2->hash() !=
          optim::token_source::open_tokens(dir.file("h.bin", llmc(20240520, 1, 5, 2, 5).substr(1024)))->hash());
}

TEST_CASE("token files whose header and size disagree are refused") {
    const scratch dir;
    const auto refused = [&](const std::string& content) {
        return code_of(optim::token_source::open_tokens(dir.file("x.bin", content))) == core::errc::malformed;
    };
    const auto good = llmc(20240520, 1, 5, 2, 5);
    for (const std::size_t cut : {4, 8, 12, 1022}) CHECK(refused(good.substr(0, cut)));
    CHECK(refused(good.substr(0, 1024)));
    CHECK(refused(good.substr(0, good.size() - 1)));
    CHECK(refused(good + "xx"));
    CHECK(refused(llmc(20240520, 2, 5, 2, 5)));
    CHECK(refused(llmc(20240520, 7, 5, 2, 5)));
    CHECK(refused(llmc(20240801, 1, 5, 4, 5)));
    CHECK(refused(llmc(20240520, 1, 0xffffffff, 2, 5)));
    CHECK(refused(llmc(20240801, 7, 0xffffffff, 4, 5)));
    CHECK(refused(llmc(20240520, 1, 0, 2, 0)));
    CHECK(refused("odd"));
}

TEST_CASE("the kind of data follows from what the path holds") {
    const scratch dir;
    CHECK(optim::detect_data_kind("").value() == "stdlib");
    CHECK(optim::detect_data_kind(dir.path.string()).value() == "mnist");
    CHECK(optim::detect_data_kind(dir.file("a.txt", "hello")).value() == "text");
    CHECK(optim::detect_data_kind(dir.file("train.bin", "hell")).value() == "tokens");
    CHECK(optim::detect_data_kind(dir.file("train", llmc(20240520, 1, 5, 2, 5))).value() == "tokens");
}

TEST_CASE("a missing, empty or wrong data file is one sentence that names it") {
    const scratch dir;
    optim::data_config data;
    for (const char* kind : {"auto", "text", "tokens", "stdlib"}) {
        data.kind = kind;
        const auto r = optim::open_token_data(data, (dir.path / "nothing.txt").string());
        REQUIRE_FALSE(r);
        CHECK(r.error().code == core::errc::config);
        CHECK(r.error().message.find("nothing.txt") != std::string::npos);
        CHECK(r.error().message.find("--data") != std::string::npos);
    }
    data.kind = "text";
    CHECK(code_of(optim::open_token_data(data, "")) == core::errc::config);
    CHECK(code_of(optim::open_token_data(data, dir.file("empty.txt", ""))) == core::errc::config);
    CHECK(code_of(optim::open_token_data(data, dir.path.string())) == core::errc::config);
    data.kind = "auto";
    CHECK(code_of(optim::open_token_data(data, dir.path.string())) == core::errc::config);
    data.kind = "mnist";
    CHECK(code_of(optim::open_image_data(data, dir.path.string())) == core::errc::config);
    CHECK(code_of(optim::open_image_data(data, (dir.path / "no").string())) == core::errc::config);
}

TEST_CASE("idx files, plain and compressed, read the same") {
    const scratch dir;
    const auto plain = optim::read_idx(dir.file("a", images(20, 3, 2, 120)), dir.file("b", labels(20, 20)));
    REQUIRE(plain);
    CHECK(plain->count == 20);
    CHECK(plain->rows == 3);
    CHECK(plain->columns == 2);
    CHECK(plain->pixels[119] == 119);
    CHECK(plain->largest_label() == 9);
    const auto packed = optim::read_idx(dir.gzip("a.gz", images(20, 3, 2, 120)), dir.gzip("b.gz", labels(20, 20)));
    REQUIRE(packed);
    CHECK(packed->hash == plain->hash);
    CHECK(packed->pixels == plain->pixels);
}

TEST_CASE("idx files with hostile headers are refused") {
    const scratch dir;
    const auto refused = [&](const std::string& i, const std::string& l) {
        return code_of(optim::read_idx(dir.file("a", i), dir.file("b", l))) == core::errc::malformed &&
               code_of(optim::read_idx(dir.gzip("a.gz", i), dir.gzip("b.gz", l))) == core::errc::malformed;
    };
    const auto good = images(20, 3, 2, 120);
    const auto good_labels = labels(20, 20);
    for (std::size_t cut = 0; cut < 16; ++cut) CHECK(refused(good.substr(0, cut), good_labels));
    for (std::size_t cut = 0; cut < 8; ++cut) CHECK(refused(good, good_labels.substr(0, cut)));
    CHECK(refused(good.substr(0, good.size() - 1), good_labels));
    CHECK(refused(good + "x", good_labels));
    CHECK(refused(images(0, 3, 2, 0), labels(0, 0)));
    CHECK(refused(images(20, 0, 2, 0), good_labels));
    CHECK(refused(images(0xffffffff, 0xffffffff, 0xffffffff, 10), good_labels));
    CHECK(refused(images(1 << 20, 1 << 10, 1, 10), good_labels));  // within the limit, but nothing follows
    CHECK(refused(images(19, 3, 2, 114), good_labels));
    CHECK(refused(good_labels, good_labels));
    // A cut gzip stream, and one with a flipped bit.
    const auto packed = dir.gzip("a.gz", good);
    std::ifstream in(packed, std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(in)), {});
    const auto l = dir.file("l", good_labels);
    CHECK(code_of(optim::read_idx(dir.file("c.gz", content.substr(0, content.size() - 9)), l)) ==
          core::errc::malformed);
    auto flipped = content;
    flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 4);
    CHECK(code_of(optim::read_idx(dir.file("f.gz", flipped), l)) == core::errc::malformed);
}

TEST_CASE("MNIST's folder: the training pair is preferred") {
    const scratch dir;
    dir.gzip("t10k-images-idx3-ubyte.gz", images(20, 3, 2, 120));
    dir.gzip("t10k-labels-idx1-ubyte.gz", labels(20, 20));
    CHECK(optim::read_mnist_folder(dir.path.string())->count == 20);
    dir.file("train-images-idx3-ubyte", images(30, 3, 2, 180));
    dir.gzip("train-labels-idx1-ubyte.gz", labels(30, 30));
    CHECK(optim::read_mnist_folder(dir.path.string())->count == 30);
}

TEST_CASE("the default text is there, is portable Python and is the same twice") {
    const auto a = optim::read_stdlib_text(optim::stdlib_folders());
    REQUIRE(a);
    const auto b = optim::read_stdlib_text(optim::stdlib_folders());
    CHECK(a->bytes == b->bytes);
    CHECK(a->bytes.size() <= optim::max_stdlib_text);
    CHECK(a->bytes.size() >= 256 << 10);
    const auto text = core::as_text(a->bytes);
    CHECK(text.find("import ") != std::string_view::npos);
    CHECK(text.find("AC_APPLE_UNIVERSAL_BUILD") == std::string_view::npos);  // _sysconfigdata*
    CHECK(a->name.find("'s standard library") != std::string::npos);
    CHECK(a->files > 50);
    const auto none = optim::read_stdlib_text({"/nonexistent/python3.11"});
    CHECK(code_of(none) == core::errc::config);
}

TEST_CASE("the default text is named after its Python") {
    const scratch dir;
    for (const char* version : {"python3.11", "python3.12"}) {
        fs::create_directory(dir.path / version);
        std::ofstream(dir.path / version / "abc.py") << std::string(300 << 10, version[8]);
        std::ofstream(dir.path / version / "zlib.py") << "last";
        std::ofstream(dir.path / version / "_sysconfigdata_x.py") << "differs between machines";
        fs::create_symlink("/etc/hostname", dir.path / version / "local.py");
    }
    const auto own = optim::read_stdlib_text({(dir.path / "python3.11").string()});
    const auto other = optim::read_stdlib_text({(dir.path / "python3.12").string()});
    REQUIRE(own);
    REQUIRE(other);
    CHECK(own->bytes.size() == (300 << 10) + 4);
    CHECK(own->name == "Python 3.11's standard library");
    CHECK(other->name == "Python 3.12's standard library");
    CHECK(own->files == 2);
    // A folder with next to nothing is passed over.
    const auto next = optim::read_stdlib_text({dir.path.string(), (dir.path / "python3.12").string()});
    REQUIRE(next);
    CHECK(next->name == other->name);
}

TEST_CASE("windows of different shards are disjoint, and validation never overlaps training") {
    const scratch dir;
    const auto path = dir.file("t.txt", std::string(200'000, 'x'));
    optim::data_config data;
    data.kind = "text";
    data.shards = 8;
    data.validation = 0.1;
    data.eval_batches = 7;
    const std::uint64_t context = 32, batch = 4;
    const auto batches = [&](std::uint64_t shard) {
        auto b = optim::text_batches::make(optim::open_token_data(data, path).value(), data, context, 256, batch);
        REQUIRE(b);
        b->assign(shard, 5, 0);
        return std::move(*b);
    };
    // At equal positions no token is read by two peers.
    for (std::uint64_t position = 0; position < 2000; position += 97) {
        std::vector<int> reader(200'000, -1);
        for (int shard = 0; shard < 8; ++shard) {
            const auto b = batches(static_cast<std::uint64_t>(shard));
            for (std::uint64_t row = 0; row < batch; ++row) {
                const auto start = b.window_start(position, row);
                REQUIRE(start + context + 1 <= b.training_tokens());
                for (auto t = start; t < start + context + 1; ++t) {
                    REQUIRE((reader[t] == -1 || reader[t] == shard));
                    reader[t] = shard;
                }
            }
        }
    }
    // In time every peer sees (nearly) all of the training split.
    const auto b = batches(3);
    std::vector<bool> seen(200'000);
    for (std::uint64_t position = 0; position < 20'000; ++position)
        for (std::uint64_t row = 0; row < batch; ++row) {
            const auto start = b.window_start(position, row);
            for (auto t = start; t < start + context + 1; ++t) seen[t] = true;
        }
    const auto covered = std::count(seen.begin(), seen.end(), true);
    CHECK(static_cast<double>(covered) > 0.97 * static_cast<double>(b.training_tokens()));
    // Validation: behind the training split, inside the file, spread over it.
    std::set<std::uint64_t> starts;
    for (std::uint64_t i = 0; i < 7; ++i)
        for (std::uint64_t row = 0; row < batch; ++row) {
            const auto start = b.validation_start(i, row);
            CHECK(start >= b.training_tokens());
            CHECK(start + context + 1 <= 200'000);
            starts.insert(start);
        }
    CHECK(starts.size() == 28);
    CHECK(*starts.begin() == b.training_tokens());
    CHECK(*starts.rbegin() == 200'000 - context - 1);
}

TEST_CASE("a peer's batches depend on seed, shard and position alone") {
    const scratch dir;
    std::string text;
    for (int i = 0; i < 60'000; ++i) text.push_back(static_cast<char>(i * 7 % 251));
    const auto path = dir.file("t.txt", text);
    optim::data_config data;
    data.kind = "text";
    const auto open = [&] {
        return optim::text_batches::make(optim::open_token_data(data, path).value(), data, 16, 256, 3).value();
    };
    auto a = open(), b = open();
    a.assign(2, 9, 0);
    std::vector<std::int64_t> x(48), y(48), x2(48), y2(48);
    for (int i = 0; i < 5; ++i) a.next(x, y);
    b.assign(2, 9, 4);
    b.next(x2, y2);
    CHECK(x == x2);
    CHECK(y == y2);
    CHECK(a.position() == 5);
    // Targets are the inputs, one token later.
    for (std::size_t row = 0; row < 3; ++row)
        for (std::size_t i = 0; i + 1 < 16; ++i) CHECK(y[row * 16 + i] == x[row * 16 + i + 1]);
    for (const auto& [shard, seed] : {std::pair{3, 9}, std::pair{2, 10}}) {
        b.assign(static_cast<std::uint64_t>(shard), static_cast<std::uint64_t>(seed), 4);
        b.next(x2, y2);
        CHECK(x != x2);
    }
    // Held-out batches are the same whatever was assigned.
    a.validation(1, x, y);
    b.validation(1, x2, y2);
    CHECK(x == x2);
}

TEST_CASE("data that does not fit the model is refused before training") {
    const scratch dir;
    optim::data_config data;
    data.kind = "text";
    const auto make = [&](std::size_t size, std::uint64_t context, std::uint64_t vocab) {
        auto source = optim::open_token_data(data, dir.file("t.txt", std::string(size, 'z')));
        REQUIRE(source);
        return optim::text_batches::make(std::move(*source), data, context, vocab, 2);
    };
    CHECK(make(16 * 9 + 40, 8, 256));
    CHECK(code_of(make(16 * 9 - 10, 8, 256)) == core::errc::config);
    CHECK(code_of(make(10, 8, 256)) == core::errc::config);
    CHECK(code_of(make(1, 8, 256)) == core::errc::config);
    CHECK(code_of(make(100'000, 8, 100)) == core::errc::config);
    CHECK(make(100'000, 8, 'z' + 1));
}

TEST_CASE("the shared MNIST images") {
    const char* named = std::getenv("LONGHAUL_SHARED");
    const fs::path shared = named != nullptr ? fs::path(named) : fs::path(longhaul::tests::source_dir()) / "../shared";
    if (!fs::exists(shared / "data/mnist10k-images-idx3-ubyte.gz")) {
        WARN("skipped: no shared/data/mnist10k-images-idx3-ubyte.gz (set LONGHAUL_SHARED)");
        return;
    }
    optim::data_config data;
    data.kind = "mnist";
    auto set = optim::open_image_data(data, (shared / "data").string());
    REQUIRE(set);
    CHECK(set->count == 10'000);
    CHECK(set->rows == 28);
    CHECK(set->columns == 28);
    CHECK(set->largest_label() == 9);
    auto batches = optim::image_batches::make(std::move(*set), data, 8);
    REQUIRE(batches);
    CHECK(batches->training_images() == 9'500);
    batches->assign(1, 1, 0);
    std::vector<float> pixels(8 * 784);
    std::vector<std::int64_t> labels(8);
    double sum = 0;
    for (int i = 0; i < 50; ++i) {
        batches->next(pixels, labels);
        for (const float p : pixels) sum += static_cast<double>(p);
    }
    CHECK(sum / (50 * 8 * 784) == Approx(0).margin(0.1));
}
