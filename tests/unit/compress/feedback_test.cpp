#include "compress/feedback.hpp"

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "compress/kernels.hpp"
#include "compress/topk.hpp"
#include "core/entropy.hpp"
#include "tests/source_dir.hpp"
#include "tests/unit/compress/support.hpp"

using namespace longhaul::core;
using namespace longhaul::compress;
using namespace longhaul::compress::testing;

namespace {

/// A matrix, a vector that goes dense, and a matrix that does not fill a run.
tensor_manifest small_model() { return *tensor_manifest::make({{"w", {100, 90}}, {"bias", {700}}, {"v", {70, 61}}}); }

double sum(std::span<const float> v) {
    double s = 0;
    for (const float x : v) s += static_cast<double>(x);
    return s;
}

/// p goes where the local parameters `values` are, and what a payload leaves of it to `left`.
payload_source source_of(std::span<const float> anchor, std::span<const float> residual, float beta,
                         std::span<float> values, std::span<float> left) {
    return {anchor, residual, beta, values, left};
}

}  // namespace

TEST_CASE("a feedback is found by name, and what cannot work names the nearest that can") {
    const auto& coarse = **find_codec("topk-64/4096");
    const auto& fine = **find_codec("int8");
    CHECK_FALSE(find_feedback("none", {0.9, 0.9}, fine)->keeps_residual);
    CHECK(find_feedback("none", {0.9, 0.9}, fine)->beta == 1);
    CHECK(find_feedback("ef", {0.5, 0.9}, coarse)->keeps_residual);
    CHECK(find_feedback("ef", {0.5, 0.9}, fine)->beta == 0.5F);
    const auto message = [](const auto& r) {
        REQUIRE_FALSE(r);
        CHECK(r.error().code == errc::config);
        return r.error().message;
    };
    CHECK(message(find_feedback("fe", {1, 0.9}, fine)) ==
          "unknown feedback \"fe\"; there are none, ef, dgc, ef21, econtrol; did you mean \"ef\"?");
    CHECK(message(find_feedback("none", {1, 0.9}, coarse)).find("exchange.feedback = \"ef\"") != std::string::npos);
    for (const double bad : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()})
        CHECK(message(find_feedback("ef", {bad, 0.9}, coarse)).find("exchange.beta") != std::string::npos);
    CHECK(find_feedback("dgc", {0.5, 0.8}, coarse)->momentum == 0.8F);
    CHECK(find_feedback("dgc", {0.5, 0.8}, coarse)->beta == 1);
    CHECK(message(find_feedback("dgc", {0.5, 0.8}, fine)).find("topk-4/64") != std::string::npos);
    for (const double bad : {0.0, 1.0, -1.0, std::numeric_limits<double>::quiet_NaN()})
        CHECK(message(find_feedback("dgc", {0.5, bad}, coarse)).find("exchange.momentum") != std::string::npos);
}

TEST_CASE("EF21 and EControl follow the outer optimizer's heavy ball, and are refused without one") {
    const auto& coarse = **find_codec("topk-4/64");
    const feedback_wishes with{0.95, 0.9, 0.25, 0.875}, without{0.95, 0.9, 0.25, 0};
    for (const auto* name : {"ef21", "econtrol"}) {
        const auto refused = find_feedback(name, without, coarse);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("outer.momentum = 0.99") != std::string::npos);
        const auto rule = find_feedback(name, with, coarse);
        REQUIRE(rule);
        CHECK(rule->keeps_residual);
        CHECK(rule->beta == 1);
        CHECK(rule->repeats == 0.875F);
    }
    CHECK(find_feedback("ef21", with, coarse)->forgets);
    CHECK(find_feedback("ef21", with, coarse)->gain == 0);
    CHECK_FALSE(find_feedback("econtrol", with, coarse)->forgets);
    CHECK(find_feedback("econtrol", with, coarse)->gain == 0.25F);
    CHECK(find_feedback("ef", with, coarse)->repeats == 0);
    for (const double bad : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
        const auto refused = find_feedback("econtrol", {0.95, 0.9, bad, 0.875}, coarse);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("exchange.gain") != std::string::npos);
    }
}

TEST_CASE("every variant compensates and takes away to the same bits, as the formulas say") {
    const auto variants = runnable_kernels();
    seeded_entropy random(3);
    for (int round = 0; round < 60; ++round) {
        const std::size_t n = 1 + random.below(700);
        const auto anchor = some_values(n, random.u64()), residual = some_values(n, random.u64());
        const auto local = some_values(n, random.u64());
        for (const bool with : {false, true}) {
            flat_buffer first;
            std::array<double, 4> first_sums{};
            double first_sent = 0;
            for (std::size_t k = 0; k < variants.count; ++k) {
                auto p = local;
                std::array<double, 4> sums{};
                flat_buffer twice = residual;
                variants.items[k]->compensate(anchor.data(), with ? twice.data() : nullptr, 0.9F, n, p.data(),
                                              twice.data(), sums.data());
                REQUIRE(twice == p);
                flat_buffer rest = residual;
                const double sent = variants.items[k]->take_away(p.data(), n, rest.data());
                if (k == 0) {
                    first = p;
                    first_sums = sums;
                    first_sent = sent;
                    for (std::size_t i = 0; i < n; ++i) {
                        const float kept = 0.9F * residual[i];
                        REQUIRE(p[i] == (with ? anchor[i] - local[i] + kept : anchor[i] - local[i]));
                        REQUIRE(rest[i] == p[i] - residual[i]);
                    }
                    const double rounding = sums[3] * 0x1p-20;
                    CHECK(sums[2] == Approx(sum(p)).margin(rounding));
                    CHECK(sums[1] == Approx(with ? sum(residual) : 0.0).margin(rounding));
                    CHECK(sent == Approx(sum(residual)).margin(rounding));
                }
                REQUIRE(p == first);
                REQUIRE(sums == first_sums);
                REQUIRE(sent == first_sent);
            }
        }
    }
}

TEST_CASE("what is left is what was compensated minus what the payload decodes to, bit by bit, for every codec") {
    const auto m = small_model();
    const auto n = m.elements();
    for (const auto& name : codec_names()) {
        INFO(name);
        const auto& c = **find_codec(name);
        const auto anchor = some_values(n, 1), residual = some_values(n, 2);
        auto values = some_values(n, 3);
        flat_buffer left(n, 7.0F);
        const auto s = source_of(anchor, residual, 0.75F, values, left);
        mass_sums sums;
        double sent = 0;
        // Ranges of any size, the last one first.
        for (const auto& [first, count] :
             {std::pair{9000U, static_cast<unsigned>(n) - 9000U}, {0U, 5000U}, {5000U, 4000U}}) {
            const range r(m, first, count);
            byte_vector wire(c.range_bytes(r));
            REQUIRE(encode(s, c, r, {}, wire, sums));
            flat_buffer out(count);
            REQUIRE(c.decode(r, wire, out));
            for (std::size_t i = 0; i < count; ++i) REQUIRE(left[first + i] == values[first + i] - out[i]);
            sent += sum(out);
            byte_vector alone(wire.size());
            REQUIRE(c.encode(r, std::span(values).subspan(first, count), {}, alone));
            REQUIRE(alone == wire);
        }
        CHECK(sums.sent == Approx(sent).margin(1e-9));
        // Σ in = Σ sent + Σ residual + Σ lost, to the rounding of f32.
        const double lost = sums.residual * 0.25;
        const double rounding = sums.size * 0x1p-20;
        CHECK(std::abs(sums.produced + sums.residual - lost - sums.compensated) < rounding);
        CHECK(std::abs(sums.compensated - sums.sent - sum(left)) < rounding);
    }
}

TEST_CASE("mass is conserved exactly where the arithmetic is") {
    // Small whole numbers, powers of two as scales: nothing is rounded, so every element balances to the bit.
    const std::size_t n = 4096;
    const auto m = matrix_of(n);
    const auto& c = **find_codec("topk-64/4096");
    seeded_entropy random(6);
    flat_buffer residual, in(n, 0.0F), sent(n, 0.0F), lost(n, 0.0F);
    for (int round = 0; round < 8; ++round) {
        flat_buffer anchor(n), values(n, 0.0F), left(n);
        // 64 elements stand out and have one magnitude: the codec's two means are exact.
        for (auto& a : anchor) a = static_cast<float>(random.below(3)) - 1.0F;
        for (int k = 0; k < 64; ++k) anchor[random.below(n)] = 4096.0F;
        for (std::size_t i = 0; i < n; ++i) in[i] += anchor[i];
        const auto s = source_of(anchor, residual, 0.5F, values, left);
        mass_sums sums;
        byte_vector wire(c.range_bytes(range(m)));
        REQUIRE(encode(s, c, range(m), {}, wire, sums));
        const auto out = decoded(c, m, wire);
        for (std::size_t i = 0; i < n; ++i) {
            if (!residual.empty()) lost[i] += 0.5F * residual[i];
            sent[i] += out[i];
            REQUIRE(in[i] == sent[i] + left[i] + lost[i]);
        }
        residual = left;
    }
}

TEST_CASE("with feedback everything is sent in the end: the sum of payloads follows the sum of pseudo-gradients") {
    const std::size_t n = 8192;
    const auto m = matrix_of(n);
    for (const auto* name : {"topk-64/4096", "topk-4/64", "sign1", "sign2"}) {
        INFO(name);
        const auto& c = **find_codec(name);
        const auto constant = some_values(n, 9);
        flat_buffer residual, sent(n, 0.0F), once;
        const int rounds = 400;
        for (int round = 0; round < rounds; ++round) {
            flat_buffer values(n, 0.0F), left(n);
            const auto s = source_of(constant, residual, 1.0F, values, left);
            mass_sums sums;
            byte_vector wire(c.range_bytes(range(m)));
            REQUIRE(encode(s, c, range(m), {}, wire, sums));
            const auto out = decoded(c, m, wire);
            if (round == 0) once = out;
            for (std::size_t i = 0; i < n; ++i) sent[i] += out[i] / static_cast<float>(rounds);
            residual = left;
        }
        CHECK(error2(sent, constant) < 0.05 * norm2(constant));
        CHECK(error2(sent, constant) < 0.2 * error2(once, constant));
    }
}

TEST_CASE("deep gradient compression: momentum before the codec, and what was sent stands still") {
    // Whole numbers that f32 holds exactly, and a codec that gives back what it keeps: a constant matrix has one mean.
    const auto m = matrix_of(8192);
    const range whole(m);
    const auto& c = **find_codec("topk-64/4096");
    const flat_buffer anchor(8192, 0.0F);
    flat_buffer velocity(8192, 0.0F), residual(8192, 0.0F);
    // The released code's loop (synxlin/deep-gradient-compression), in doubles.
    std::vector<double> u(8192, 0.0), v(8192, 0.0);
    byte_vector wire(c.range_bytes(whole));
    double produced = 0, sent = 0;
    for (int round = 0; round < 12; ++round) {
        flat_buffer p(8192), left(8192), decoded_values(8192);
        for (std::size_t i = 0; i < p.size(); ++i) p[i] = -static_cast<float>(1 + (i * 7 + i / 64) % 5);  // Δ = −local
        const auto gradient = p;
        payload_source s{anchor, residual, 1, p, left, velocity, 0.5F};
        mass_sums sums;
        REQUIRE(encode(s, c, whole, {}, wire, sums));
        REQUIRE(c.decode(whole, wire, decoded_values));
        mask_sent(velocity, p, left);
        for (std::size_t i = 0; i < u.size(); ++i) {
            u[i] = 0.5 * u[i] - static_cast<double>(gradient[i]);
            v[i] += u[i];
            REQUIRE(static_cast<double>(p[i]) == Approx(v[i]));
            const bool kept = decoded_values[i] != 0;
            v[i] -= static_cast<double>(decoded_values[i]);
            if (kept) u[i] = 0;
            REQUIRE(static_cast<double>(left[i]) == Approx(v[i]).margin(1e-5));
            REQUIRE(static_cast<double>(velocity[i]) == Approx(u[i]));
        }
        produced += sums.produced;
        sent += sums.sent;
        residual = left;
        // I13: all that momentum made was sent or is held.
        REQUIRE(produced == Approx(sent + sum(residual)).epsilon(1e-9));
    }
    CHECK(sent != 0);
}

TEST_CASE("EF21 and EControl follow their recurrences in NumPy, and balance") {
    std::ifstream file(longhaul::tests::source_dir() + "/tests/golden/feedback.json");
    const auto golden = nlohmann::json::parse(file);
    REQUIRE(golden["cases"].size() == 4);
    const std::size_t n = 4096;
    const auto m = matrix_of(n);
    const range whole(m);
    const auto& c = topk_4_64_codec();
    const auto views = [](std::span<const float> x) {
        std::vector<double> out;
        for (const std::size_t k : {1U, 3U, 5U, 7U}) {
            out.push_back(0);
            for (std::size_t i = 0; i < x.size(); ++i)
                out.back() += static_cast<double>(x[i]) * (static_cast<double>(i * k % 17) - 8);
        }
        return out;
    };
    for (const auto& one : golden["cases"]) {
        const bool forgets = one["name"] == "ef21";
        const auto eta = one["eta"].get<float>(), rho = one["rho"].get<float>();
        INFO(one["name"] << ", eta " << eta << ", rho " << rho);
        flat_buffer said(n, 0.0F), residual(n, 0.0F), receivers(n, 0.0F);
        mass_sums sums;
        double lost = 0;
        for (std::size_t r = 0; r < one["steps"].size(); ++r) {
            const auto& step = one["steps"][r];
            flat_buffer anchor(n), values(n, 0.0F), left(n), payload(n);
            for (std::size_t i = 0; i < n; ++i)
                anchor[i] = (static_cast<float>((i * 7 + i / 64 * 3 + r * 5) % 13) - 6) / 8;
            payload_source s{anchor, residual, 1, values, left};
            s.said = said;
            s.repeats = rho;
            s.gain = eta;
            byte_vector wire(c.range_bytes(whole));
            REQUIRE(encode(s, c, whole, {}, wire, sums));
            REQUIRE(c.decode(whole, wire, payload));
            follow_sent(said, rho, values, left);
            for (std::size_t i = 0; i < n; ++i) receivers[i] = rho * receivers[i] + payload[i];
            if (forgets)
                lost += sum(left);
            else
                residual = left;
            const auto h = views(said), e = views(residual), held = views(receivers);
            double distance = 0;
            for (std::size_t i = 0; i < n; ++i)
                distance += std::pow(static_cast<double>(said[i]) - static_cast<double>(anchor[i]), 2);
            CHECK(std::sqrt(distance) == Approx(step["distance"].get<double>()).epsilon(1e-5));
            for (std::size_t k = 0; k < 4; ++k) {
                CHECK(h[k] == Approx(step["h"][k].get<double>()).margin(1e-3));
                CHECK(e[k] == Approx(step["e"][k].get<double>()).margin(1e-3));
                CHECK(held[k] == Approx(h[k]).margin(1e-3));  // what receivers hold is what the sender thinks
            }
        }
        // I13: what was not said before was sent, is held, or is given up.
        CHECK(std::abs(sums.produced - sums.sent - lost - sum(residual)) <= sums.size * 0x1p-20);
        CHECK(sums.sent != 0);
    }
}
