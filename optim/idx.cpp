#include "optim/idx.hpp"

#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/hash.hpp"
#include "optim/mapped_file.hpp"

namespace longhaul::optim {
namespace fs = std::filesystem;
namespace {

struct closer {
    void operator()(gzFile_s* f) const { ::gzclose(f); }
};
using file = std::unique_ptr<gzFile_s, closer>;

/// Up to `limit` bytes; fewer only at the end of the file. nullopt when the compressed data is damaged or cut.
std::optional<std::vector<std::uint8_t>> read_up_to(gzFile_s* f, std::uint64_t limit) {
    std::vector<std::uint8_t> out;
    while (out.size() < limit) {
        // Grows with what arrives, not with what a header announced.
        const auto old = out.size();
        const auto piece = std::min<std::uint64_t>(limit - old, 1 << 20);
        out.resize(old + piece);
        const int n = ::gzread(f, out.data() + old, static_cast<unsigned>(piece));
        int error = Z_OK;
        ::gzerror(f, &error);
        if (n < 0 || (error != Z_OK && error != Z_STREAM_END)) return std::nullopt;
        out.resize(old + static_cast<std::size_t>(n));
        if (static_cast<std::uint64_t>(n) < piece) break;
    }
    return out;
}

std::uint64_t big_endian(const std::uint8_t* p) {
    return (std::uint64_t{p[0]} << 24) | (std::uint64_t{p[1]} << 16) | (std::uint64_t{p[2]} << 8) | p[3];
}

struct idx_file {
    std::vector<std::uint8_t> header, body;
    std::uint64_t dimension(std::size_t i) const { return big_endian(header.data() + 4 + 4 * i); }
};

/// A file of bytes with `rank` dimensions.
core::result<idx_file> read_idx_file(const std::string& path, std::uint8_t rank) {
    const file f(::gzopen(path.c_str(), "rb"));
    if (!f) return core::fail(core::errc::config, "cannot read the data file {}; name your copy with --data", path);
    idx_file out;
    const std::size_t header = 4 + 4 * std::size_t{rank};
    auto head = read_up_to(f.get(), header);
    if (!head || head->size() != header || big_endian(head->data()) != (0x0800U | rank))
        return core::fail(core::errc::malformed, "{} is not an idx file of bytes in {} dimensions", path, rank);
    out.header = std::move(*head);
    std::uint64_t size = 1;
    for (std::size_t i = 0; i < rank; ++i) {
        const auto n = out.dimension(i);
        if (n == 0 || size > max_image_bytes / n)
            return core::fail(core::errc::malformed,
                              "{} announces a dimension of {}: nothing, or over the limit of {} bytes", path, n,
                              max_image_bytes);
        size *= n;
    }
    // One byte more than announced, to see that nothing follows.
    auto body = read_up_to(f.get(), size + 1);
    if (!body) return core::fail(core::errc::malformed, "{} is damaged or cut (gzip)", path);
    if (body->size() != size)
        return core::fail(core::errc::malformed, "{} announces {} bytes and has {}; copy it again", path, size,
                          body->size() > size ? "more" : std::to_string(body->size()));
    out.body = std::move(*body);
    return out;
}

}  // namespace

std::uint8_t image_set::largest_label() const {
    return labels.empty() ? std::uint8_t{0} : *std::max_element(labels.begin(), labels.end());
}

core::result<image_set> read_idx(const std::string& images_path, const std::string& labels_path) {
    LONGHAUL_TRY_ASSIGN(auto images, read_idx_file(images_path, 3));
    LONGHAUL_TRY_ASSIGN(auto labels, read_idx_file(labels_path, 1));
    if (images.dimension(0) != labels.dimension(0))
        return core::fail(core::errc::malformed, "{} has {} images but {} has {} labels", images_path,
                          images.dimension(0), labels_path, labels.dimension(0));
    image_set set;
    set.count = images.dimension(0);
    set.rows = static_cast<std::uint32_t>(images.dimension(1));
    set.columns = static_cast<std::uint32_t>(images.dimension(2));
    core::hasher hasher;
    for (const auto* part : {&images.header, &images.body, &labels.header, &labels.body})
        hasher.update(std::as_bytes(std::span<const std::uint8_t>(*part)));
    set.hash = hasher.finish();
    set.pixels = std::move(images.body);
    set.labels = std::move(labels.body);
    set.description = describe_data(fmt::format("the images {}", data_file_name(images_path)),
                                    fmt::format("{} of {} x {}", set.count, set.columns, set.rows), set.hash);
    return set;
}

core::result<image_set> read_mnist_folder(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error))
        names.push_back(i->path().filename().string());
    // By name, "train-…" before all others.
    std::sort(names.begin(), names.end(), [](const auto& a, const auto& b) {
        return std::pair(!a.starts_with("train"), a) < std::pair(!b.starts_with("train"), b);
    });
    for (const auto& images : names) {
        const auto at = images.find("images-idx3");
        if (at == std::string::npos) continue;
        const auto wanted = images.substr(0, at) + "labels-idx1";
        for (const auto& labels : names)
            if (labels.starts_with(wanted))
                return read_idx((fs::path(folder) / images).string(), (fs::path(folder) / labels).string());
    }
    return core::fail(core::errc::config,
                      "no pair of files …images-idx3-ubyte and …labels-idx1-ubyte (or .gz) in the folder '{}'; name it "
                      "with --data",
                      folder);
}

}  // namespace longhaul::optim
