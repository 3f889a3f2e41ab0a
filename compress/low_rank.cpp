#include "compress/low_rank.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "compress/bf16.hpp"
#include "compress/kernels.hpp"
#include "core/counter_random.hpp"

namespace longhaul::compress {

namespace {

constexpr std::size_t rank = 4;
/// Values above are refused: products of them stay finite.
constexpr float largest_value = 0x1p100F;
/// Of P, whose columns have length one; bf16 may round up.
constexpr float largest_basis = 1.0F;
/// Of Q: the sum of `rank` products is finite.
constexpr float largest_share = 0x1p124F;

using row_of_factor = std::array<float, rank>;
using factor = std::vector<row_of_factor>;

/// The piece as a matrix.
struct geometry {
    explicit geometry(const piece& p)
        : count(p.count), columns(p.row), skipped(p.skipped), rows((p.skipped + p.count + p.row - 1) / p.row) {}
    bool factored() const { return (rows + columns) * rank * 2 <= count; }
    std::size_t bytes() const { return 2 * (factored() ? (rows + columns) * rank : count); }
    /// Calls visit(row, first column, first element, number) for what there is of each row.
    template <typename Visit>
    void each_row(Visit visit) const {
        for (std::size_t i = 0, at = 0; i < rows; ++i) {
            const auto column = i == 0 ? skipped : 0;
            const auto n = std::min(columns - column, count - at);
            visit(i, column, at, n);
            at += n;
        }
    }
    std::size_t count, columns, skipped, rows;
};

/// M·Q. Four sums side by side, each in the order of the columns: the same everywhere.
factor times(const geometry& g, std::span<const float> m, const factor& q) {
    factor p(g.rows);
    g.each_row([&](std::size_t row, std::size_t column, std::size_t at, std::size_t n) {
        row_of_factor sum{};
        for (std::size_t j = 0; j < n; ++j)
            for (std::size_t k = 0; k < rank; ++k) sum[k] += m[at + j] * q[column + j][k];
        p[row] = sum;
    });
    return p;
}

/// MᵀP.
factor transposed_times(const geometry& g, std::span<const float> m, const factor& p) {
    factor q(g.columns);
    g.each_row([&](std::size_t row, std::size_t column, std::size_t at, std::size_t n) {
        const auto from = p[row];
        for (std::size_t j = 0; j < n; ++j)
            for (std::size_t k = 0; k < rank; ++k) q[column + j][k] += m[at + j] * from[k];
    });
    return q;
}

/// Makes the columns orthonormal (modified Gram–Schmidt, twice, in double); one that hangs on those before it is zero.
void orthonormalise(factor& p) {
    const auto dot = [&p](std::size_t a, std::size_t b) {
        double s = 0;
        for (const auto& row : p) s += static_cast<double>(row[a]) * static_cast<double>(row[b]);
        return s;
    };
    for (std::size_t k = 0; k < rank; ++k) {
        const double before = std::sqrt(dot(k, k));
        for (int time = 0; time < 2; ++time) {
            for (std::size_t other = 0; other < k; ++other) {
                const double share = dot(other, k);
                for (auto& row : p)
                    row[k] = static_cast<float>(static_cast<double>(row[k]) - share * static_cast<double>(row[other]));
            }
            const double length = std::sqrt(dot(k, k));
            const bool independent = length > (time == 0 ? 1e-6 * before : 0.5);
            for (auto& row : p) row[k] = independent ? static_cast<float>(static_cast<double>(row[k]) / length) : 0.0F;
        }
    }
}

void store_factor(const factor& f, std::byte* to) {
    for (const auto& row : f)
        for (const float v : row) {
            store_bf16(v, to);
            to += 2;
        }
}
factor load_factor(const std::byte* from, std::size_t rows) {
    factor f(rows);
    for (auto& row : f)
        for (float& v : row) {
            v = from_bf16(load_bf16(from));
            from += 2;
        }
    return f;
}
bool within(const factor& f, float limit) {
    return std::ranges::all_of(f, [limit](const auto& row) {
        return std::ranges::all_of(row, [limit](float v) { return std::abs(v) <= limit; });
    });
}

class low_rank_codec final : public codec {
public:
    low_rank_codec()
        : codec("lowrank-4", 12, {18, 1.5}), dense_(best_kernels().bf16), take_away_(best_kernels().take_away) {}
    bool wants_feedback() const override { return true; }
    bool goes_on() const override { return true; }

protected:
    std::size_t piece_bytes(const piece& p) const override { return geometry(p).bytes(); }
    bool encode_piece(const piece& p, std::span<const float> values, const encode_hints& how, std::byte* out,
                      remainder* rest) const override {
        const geometry g(p);
        if (!g.factored()) {
            if (!dense_.encode(values.data(), values.size(), nullptr, wire(out))) return false;
        } else {
            if (!std::ranges::all_of(values, [](float v) { return std::abs(v) <= largest_value; })) return false;
            // Its columns get length one, so that neither huge nor tiny values leave what f32 can say.
            auto start = how.before == nullptr ? better_guess(g, values) : last_share(g, how.before);
            orthonormalise(start);
            auto basis = times(g, values, start);
            orthonormalise(basis);
            store_factor(basis, out);
            // Of the basis as it is received: what its rounding takes away is in the remainder.
            const auto share = transposed_times(g, values, load_factor(out, g.rows));
            if (!within(share, largest_share)) return false;
            store_factor(share, out + g.rows * rank * 2);
        }
        if (rest != nullptr) {
            decode_piece(p, out, rest->left);
            rest->sent += take_away_(values.data(), values.size(), rest->left.data());
        }
        return true;
    }
    bool check_piece(const piece& p, const std::byte* in) const override {
        const geometry g(p);
        if (!g.factored()) return dense_.check(wire(in), p.count);
        return within(load_factor(in, g.rows), largest_basis) &&
               within(load_factor(in + g.rows * rank * 2, g.columns), largest_share);
    }
    void decode_piece(const piece& p, const std::byte* in, std::span<float> out) const override {
        const geometry g(p);
        if (!g.factored()) return dense_.decode(wire(in), p.count, out.data());
        each_value(g, in, [out](std::size_t i, float v) { out[i] = v; });
    }
    void add_piece(const piece& p, const std::byte* in, float by, std::span<float> sum) const override {
        const geometry g(p);
        if (!g.factored()) return dense_.add(wire(in), p.count, by, sum.data());
        each_value(g, in, [sum, by](std::size_t i, float v) { sum[i] += by * v; });
    }

private:
    static unsigned char* wire(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
    static const unsigned char* wire(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }

    /// Q after one step from a random one, the same everywhere.
    static factor better_guess(const geometry& g, std::span<const float> values) {
        factor q(g.columns);
        for (std::size_t j = 0; j < g.columns; ++j)
            for (std::size_t k = 0; k < rank; ++k) q[j][k] = core::random_normal(g.columns, j * rank + k);
        auto p = times(g, values, q);
        orthonormalise(p);
        return transposed_times(g, values, p);
    }
    static factor last_share(const geometry& g, const std::byte* before) {
        return load_factor(before + g.rows * rank * 2, g.columns);
    }
    template <typename Take>
    static void each_value(const geometry& g, const std::byte* in, Take take) {
        const auto basis = load_factor(in, g.rows), share = load_factor(in + g.rows * rank * 2, g.columns);
        g.each_row([&](std::size_t row, std::size_t column, std::size_t at, std::size_t n) {
            const auto left = basis[row];
            for (std::size_t j = 0; j < n; ++j) {
                const auto& right = share[column + j];
                take(at + j, (left[0] * right[0] + left[1] * right[1]) + (left[2] * right[2] + left[3] * right[3]));
            }
        });
    }

    piece_kernels dense_;
    double (*take_away_)(const float*, std::size_t, float*);
};

}  // namespace

const codec& low_rank_4_codec() {
    static const low_rank_codec instance;
    return instance;
}

}  // namespace longhaul::compress
