#pragma once
/// MNIST's idx files (http://yann.lecun.com/exdb/mnist/): labelled grey images, plain or gzip-compressed.

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.hpp"

namespace longhaul::optim {

/// Images in file order, one byte a pixel, and their labels.
struct image_set {
    std::uint64_t count = 0;
    std::uint32_t rows = 0, columns = 0;
    std::vector<std::uint8_t> pixels;  ///< count × rows × columns
    std::vector<std::uint8_t> labels;  ///< count
    core::digest hash;                 ///< of both files' uncompressed content
    std::string description;
    std::uint8_t largest_label() const;
};

/// No idx file may announce more; the pixels of all images together.
inline constexpr std::uint64_t max_image_bytes = std::uint64_t{1} << 30;

/// Reads one file of images and one of labels. errc::malformed when a header is not idx, announces more than the limit
/// or other than what follows, or the two do not match; nothing is allocated beyond what was read.
core::result<image_set> read_idx(const std::string& images_path, const std::string& labels_path);

/// The pair in `folder`: names that contain "images-idx3" and "labels-idx1" with equal beginnings; "train" is
/// preferred. errc::config when there is none.
core::result<image_set> read_mnist_folder(const std::string& folder);

}  // namespace longhaul::optim
