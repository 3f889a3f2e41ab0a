#include "peers/safetensors.hpp"

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "core/entropy.hpp"
#include "tests/source_dir.hpp"
#include "tests/temp_folder.hpp"
#include "tests/test.hpp"

using namespace longhaul::core;
using namespace longhaul::peers;

namespace {

tensor_manifest two_tensors() {
    return *tensor_manifest::make({{"z.weight", {2, 3}, tensor_role::parameter},
                                   {"a.bias", {}, tensor_role::parameter},
                                   {"norm.\"mean\"", {3}, tensor_role::buffer}});
}

flat_buffer some_values(std::size_t n) {
    seeded_entropy e(5);
    flat_buffer out(n);
    for (auto& v : out) v = static_cast<float>(e.unit());
    return out;
}

byte_vector file_of(const tensor_manifest& m, const flat_buffer& values,
                    std::map<std::string, std::string> metadata = {}) {
    auto out = *safetensors_header(m, std::move(metadata));
    const auto body = bytes_of(values);
    out.insert(out.end(), body.begin(), body.end());
    return out;
}

/// A file with this header text and `data_bytes` zero bytes behind it.
byte_vector file_with(const std::string& header, std::size_t data_bytes) {
    byte_writer w;
    w.u64(header.size()).raw(as_bytes(header)).raw(byte_vector(data_bytes));
    return w.take();
}

error refusal(const std::string& header, std::size_t data_bytes) {
    const auto r = parse_safetensors(file_with(header, data_bytes));
    INFO(header);
    REQUIRE_FALSE(r);
    return r.error();
}

std::string python() { return longhaul::tests::source_dir() + "/.venv/bin/python"; }

/// Whether PyPI's safetensors can be run here.
bool python_has_safetensors() {
    return std::filesystem::exists(python()) &&
           std::system((python() + " -c 'import numpy, safetensors.numpy' > /dev/null 2>&1").c_str()) == 0;
}

}  // namespace

TEST_CASE("a safetensors file is what the format says, byte for byte") {
    const auto m = *tensor_manifest::make({{"w", {2}}});
    const auto file = file_of(m, {1.0F, -2.0F}, {{"format", "pt"}});
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
    const auto padded = (header.size() + 7) / 8 * 8;
    REQUIRE(file.size() == 8 + padded + 8);
    CHECK(*byte_reader(file).u64() == padded);
    CHECK(as_text(const_bytes(file).subspan(8, padded)) == header + std::string(padded - header.size(), ' '));
    CHECK(to_hex(const_bytes(file).last(8)) == "0000803f000000c0");
}

TEST_CASE("names, shapes, roles, metadata and bits come back") {
    const auto m = two_tensors();
    auto values = some_values(10);
    values[3] = -0.0F;
    values[4] = std::numeric_limits<float>::denorm_min();
    const auto file = file_of(m, values, {{"k", "v"}});
    CHECK(file.size() % 8 == 0);
    const auto view = parse_safetensors(file);
    REQUIRE(view);
    CHECK(view->manifest == m);
    CHECK(view->metadata == std::map<std::string, std::string>{{"k", "v"}, {"longhaul.roles", "ppb"}});
    const auto back = view->values();
    for (std::size_t i = 0; i < 10; ++i)
        CHECK(std::bit_cast<std::uint32_t>(back[i]) == std::bit_cast<std::uint32_t>(values[i]));
    CHECK(file_of(m, values, {{"k", "v"}}) == file);

    const auto empty = file_of(*tensor_manifest::make({}), {});
    REQUIRE(parse_safetensors(empty));
    CHECK(parse_safetensors(empty)->values().empty());
}

TEST_CASE("every truncation and extension is refused") {
    const auto file = file_of(two_tensors(), some_values(10));
    for (std::size_t cut = 0; cut < file.size(); ++cut) CHECK_FALSE(parse_safetensors(const_bytes(file).first(cut)));
    auto longer = file;
    longer.push_back(std::byte{0});
    CHECK(parse_safetensors(longer).error().code == errc::malformed);
}

TEST_CASE("hostile headers are refused") {
    const std::string w = R"("w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    REQUIRE(parse_safetensors(file_with("{" + w + "}", 8)));
    CHECK(refusal("", 0).code == errc::malformed);
    CHECK(refusal("[]", 0).code == errc::malformed);
    CHECK(refusal(" {}", 0).code == errc::malformed);
    CHECK(refusal("{", 0).code == errc::malformed);
    CHECK(refusal("{}", 8).message == "the safetensors file has 8 bytes of data, its tensors 0");
    CHECK(refusal("{" + w + "," + w + "}", 8).code == errc::malformed);
    CHECK(refusal(R"({"w":[]})", 0).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4).message ==
          "tensor \"w\" is not F32, and nothing else is read");
    // Outside of the data, a gap, an overlap, a wrong size, the wrong way round, beyond 64 bits.
    CHECK(refusal("{" + w + "}", 4).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 16).message ==
          "tensor \"w\" lies at bytes 8 to 16, and must lie at 0 to 8");
    CHECK(refusal("{" + w + R"(,"v":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8).code == errc::malformed);
    CHECK(refusal("{" + w + R"(,"v":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}})", 8).code ==
          errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0).code == errc::malformed);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0).code ==
          errc::limit);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4).code == errc::limit);
    CHECK(refusal(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", 8).code == errc::malformed);
    CHECK(refusal(R"({"w\u0007":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8).code == errc::malformed);
    CHECK(refusal("{\"" + std::string(100'000, 'x') + R"(":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)
              .message.size() < 100);
    CHECK(refusal(R"({"__metadata__":{"a":1}})", 0).code == errc::malformed);
    CHECK(refusal(R"({"__metadata__":[]})", 0).code == errc::malformed);
    CHECK(refusal(R"({"__metadata__":{"longhaul.roles":"pp"},)" + w + "}", 8).code == errc::malformed);
    CHECK(refusal(R"({"__metadata__":{"longhaul.roles":"x"},)" + w + "}", 8).code == errc::malformed);
    // A length that only claims to be a header.
    byte_writer huge;
    huge.u64(std::numeric_limits<std::uint64_t>::max()).raw(as_bytes("{}"));
    CHECK(parse_safetensors(huge.bytes()).error().code == errc::limit);
    byte_writer long_header;
    long_header.u64(100).raw(as_bytes("{}"));
    CHECK(parse_safetensors(long_header.bytes()).error().code == errc::malformed);
}

TEST_CASE("flipped bits never give another model silently, and never crash") {
    const auto m = two_tensors();
    const auto values = some_values(10);
    const auto file = file_of(m, values);
    const auto header_end = file.size() - 40;
    for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
        auto flipped = file;
        flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        const auto view = parse_safetensors(flipped);
        // The format has no checksum (state.json has one): a flip in a name, a role or a value parses, and differs.
        if (!view) continue;
        const bool same = view->manifest == m && view->values() == values;
        INFO(bit);
        CHECK((!same || bit / 8 < header_end));
        CHECK(view->manifest.elements() == 10);
    }
}

TEST_CASE("PyPI's safetensors reads what is written here, and is read here") {
    if (!python_has_safetensors()) {
        WARN("skipped: .venv/bin/python with numpy and safetensors is not here; scripts/setup installs it");
        return;
    }
    longhaul::tests::temp_folder folder;
    const auto m = two_tensors();
    const auto values = some_values(10);
    const auto file = file_of(m, values, {{"format", "pt"}});
    folder.write("ours.safetensors", std::string(as_text(file)));
    folder.write("check.py", R"(
import sys, numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
f = safe_open(sys.argv[1] + "/ours.safetensors", framework="numpy")
assert f.metadata() == {"format": "pt", "longhaul.roles": "ppb"}, f.metadata()
tensors = {name: f.get_tensor(name) for name in f.keys()}
assert {n: t.shape for n, t in tensors.items()} == {"z.weight": (2, 3), "a.bias": (), 'norm."mean"': (3,)}
assert all(t.dtype == np.float32 for t in tensors.values())
flat = np.concatenate([tensors[n].reshape(-1) for n in ("z.weight", "a.bias", 'norm."mean"')])
flat.tofile(sys.argv[1] + "/flat.bin")
tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([7, 8])}
save_file(tensors, sys.argv[1] + "/theirs.safetensors", metadata={"who": "python"})
)");
    REQUIRE(std::system((python() + " " + folder.path("check.py") + " " + folder.path()).c_str()) == 0);
    CHECK(folder.read("flat.bin") == as_text(bytes_of(values)));

    const auto theirs = folder.read("theirs.safetensors");
    const auto view = parse_safetensors(as_bytes(theirs));
    REQUIRE(view);
    CHECK(view->metadata == std::map<std::string, std::string>{{"who", "python"}});
    REQUIRE(view->manifest.size() == 2);
    const auto flat = view->values();
    for (std::size_t i = 0; i < 2; ++i) {
        const auto& spec = view->manifest.specs()[i];
        const auto part = view->manifest.part(std::span<const float>(flat), i);
        if (spec.name == "b") {
            CHECK(spec.shape == std::vector<std::int64_t>{2, 3});
            CHECK(flat_buffer(part.begin(), part.end()) == flat_buffer{0, 1, 2, 3, 4, 5});
        } else {
            CHECK(spec.name == "a");
            CHECK(flat_buffer(part.begin(), part.end()) == flat_buffer{7, 8});
        }
    }
}
