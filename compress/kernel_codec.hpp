#pragma once
/// A codec whose pieces are coded by one family of kernels. For compress/*.cpp alone.

#include "compress/codec.hpp"
#include "compress/kernels.hpp"

namespace longhaul::compress {

struct kernel_codec_traits {
    std::string_view name;
    std::uint16_t wire_id = 0;
    std::size_t (*bytes)(std::size_t count) = nullptr;  ///< of a piece
    piece_kernels kernels::* family = nullptr;
    bool lossless = false;
    bool fits_sums = false;
    bool wants_feedback = false;
};

class kernel_codec final : public codec {
public:
    explicit kernel_codec(const kernel_codec_traits& t, const kernels& from = best_kernels())
        : codec(t.name, t.wire_id), traits_(t), run_(from.*t.family), take_away_(from.take_away) {}
    bool lossless() const override { return traits_.lossless; }
    bool fits_sums() const override { return traits_.fits_sums; }
    bool wants_feedback() const override { return traits_.wants_feedback; }

protected:
    std::size_t piece_bytes(const piece& p) const override { return traits_.bytes(p.count); }
    bool encode_piece(const piece& /*p*/, std::span<const float> values, const encode_hints& how, std::byte* out,
                      remainder* rest) const override {
        auto* wire = reinterpret_cast<unsigned char*>(out);
        if (!run_.encode(values.data(), values.size(), how.key, wire)) return false;
        if (rest != nullptr) {
            run_.decode(wire, values.size(), rest->left.data());
            rest->sent += take_away_(values.data(), values.size(), rest->left.data());
        }
        return true;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        return run_.check(reinterpret_cast<const unsigned char*>(in), p.count);
    }
    void decode_piece(const piece& /*p*/, const std::byte* in, std::span<float> out) const override {
        run_.decode(reinterpret_cast<const unsigned char*>(in), out.size(), out.data());
    }
    void add_piece(const piece& /*p*/, const std::byte* in, float factor, std::span<float> sum) const override {
        run_.add(reinterpret_cast<const unsigned char*>(in), sum.size(), factor, sum.data());
    }

private:
    kernel_codec_traits traits_;
    piece_kernels run_;
    double (*take_away_)(const float*, std::size_t, float*);
};

}  // namespace longhaul::compress
