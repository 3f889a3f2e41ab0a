#pragma once
/// f32 values without loss in fewer bytes, for what is not a payload: states and aggregates on their way to a newcomer.
/// The four bytes of each value go to four planes, because neighbours share their exponents and, where a sum is sparse,
/// their zeros; each plane travels as it is, or through zstd where that pays.
///
///   u8 way      0: the values' bytes follow as they are; 1: four planes follow, of the lowest bytes first
///   4 × u32     (way 1) bytes of each plane; as many as there are values: it is not compressed
///   planes      (way 1) one after another

#include "core/bytes.hpp"
#include "core/result.hpp"

namespace longhaul::compress {

/// `pack` adds at most so many bytes to what it is given.
inline constexpr std::uint64_t packed_overhead = 1;

/// `values`: little-endian f32, of any size that u32 holds (what is no multiple of four stays as it is). CPU work,
/// about 0.4 GB/s a core.
core::byte_vector pack(core::const_bytes values);

/// What was packed into `values`, whose size is known. errc::malformed: that is not it, and `values` is as before. CPU
/// work, about 1.2 GB/s a core.
core::result<void> unpack(core::const_bytes packed, core::mutable_bytes values);

}  // namespace longhaul::compress
