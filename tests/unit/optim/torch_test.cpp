// The LibTorch trainers through the loadable module, as the daemon uses them.

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/counter_random.hpp"
#include "optim/aggregate.hpp"
#include "optim/outer.hpp"
#include "optim/schedule.hpp"
#include "optim/trainer.hpp"
#include "tests/source_dir.hpp"
#include "tests/test.hpp"

using namespace longhaul;
namespace fs = std::filesystem;

namespace {

/// Points the loader at this build's module; false, with the word that makes ctest report a skip, when there is none.
bool have_module() {
    if (!fs::exists(LONGHAUL_TORCH_MODULE_FILE)) {
        WARN("skipped: built without the LibTorch trainers (LONGHAUL_TORCH=OFF)");
        return false;
    }
    ::setenv("LONGHAUL_TORCH_MODULE", LONGHAUL_TORCH_MODULE_FILE, 1);
    return true;
}

/// The golden files' data (tests/golden/make_torch.py), written to a folder that goes when the test ends.
struct golden_data {
    fs::path folder;
    golden_data() {
        std::string name = (fs::temp_directory_path() / "longhaul-torch-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        folder = name;
        std::string text, pixels, labels;
        for (std::uint64_t i = 0; i < 20'000; ++i)
            text.push_back(static_cast<char>(97 + core::random_below(123, i, 26)));
        std::ofstream(folder / "text.txt", std::ios::binary) << text;
        const std::uint64_t images = 120;
        const auto big = [](std::uint32_t v) {
            std::string s;
            for (int shift = 24; shift >= 0; shift -= 8) s.push_back(static_cast<char>(v >> shift));
            return s;
        };
        for (std::uint64_t i = 0; i < images * 784; ++i)
            pixels.push_back(static_cast<char>(core::random_below(321, i, 256)));
        for (std::uint64_t i = 0; i < images; ++i) labels.push_back(static_cast<char>(core::random_below(322, i, 10)));
        std::ofstream(folder / "t-images-idx3-ubyte", std::ios::binary)
            << big(0x803) << big(images) << big(28) << big(28) << pixels;
        std::ofstream(folder / "t-labels-idx1-ubyte", std::ios::binary) << big(0x801) << big(images) << labels;
    }
    ~golden_data() { fs::remove_all(folder); }
    golden_data(const golden_data&) = delete;

    optim::trainer_options gpt() const {
        optim::trainer_options o;
        o.model.layers = 2;
        o.model.width = 16;
        o.model.heads = 2;
        o.model.context = 8;
        o.data.kind = "text";
        o.data.eval_batches = 3;
        o.inner.batch = 4;
        o.data_path = (folder / "text.txt").string();
        o.device = "cpu";
        return o;
    }
    optim::trainer_options images(const char* kind) const {
        auto o = gpt();
        o.model.kind = kind;
        o.model.width = 8;
        o.data.kind = "mnist";
        o.data.validation = 0.25;
        o.inner.batch = 5;
        o.data_path = folder.string();
        return o;
    }
};

std::unique_ptr<optim::trainer> make(const optim::trainer_options& o) {
    auto t = optim::make_torch_trainer(o);
    if (!t) FAIL(t.error().message);
    return std::move(*t);
}

std::vector<float> parameters(const optim::trainer& t) {
    std::vector<float> x(t.manifest().elements());
    t.read(x);
    return x;
}

/// The golden files' starting weights.
std::vector<float> golden_weights(const core::tensor_manifest& m) {
    std::vector<float> x(m.elements());
    for (std::size_t i = 0; i < m.size(); ++i) {
        const auto& spec = m.specs()[i];
        const float shift = spec.shape.size() == 1 && spec.name.ends_with("weight") ? 1.0F : 0.0F;
        std::uint64_t k = 0;
        for (float& v : m.part(std::span<float>(x), i))
            v = core::random_normal(core::combine_key(77, i), k++) * 0.08F + shift;
    }
    return x;
}

/// The value, or a failure that shows the error's sentence.
template <typename T>
T value(core::result<T> r) {
    if (!r) FAIL(r.error().message);
    return std::move(*r);
}

double ulp(double magnitude) {
    const auto f = static_cast<float>(magnitude);
    return static_cast<double>(std::nextafter(f, INFINITY)) - static_cast<double>(f);
}

}  // namespace

TEST_CASE("models, data order and inner optimizers agree with PyTorch") {
    if (!have_module()) return;
    const golden_data data;
    std::ifstream file(longhaul::tests::source_dir() + "/tests/golden/torch.json");
    const auto golden = nlohmann::json::parse(file);
    REQUIRE(golden["cases"].size() == 4);
    for (const auto& c : golden["cases"]) {
        const auto name = c["name"].get<std::string>();
        CAPTURE(name);
        auto o = name.starts_with("gpt") ? data.gpt() : data.images(name.substr(0, 3).c_str());
        o.inner.optimizer = name.ends_with("adamw") ? "adamw" : "sgd";
        o.inner.momentum = name == "mlp-sgd" ? 0.9 : 0.0;
        const auto t = make(o);
        const auto& m = t->manifest();
        REQUIRE(m.size() == c["tensors"].size());
        for (std::size_t i = 0; i < m.size(); ++i) {
            CHECK(m.specs()[i].name == c["tensors"][i][0].get<std::string>());
            CHECK(m.specs()[i].shape == c["tensors"][i][1].get<std::vector<std::int64_t>>());
        }
        t->assign(3, 11, 0);
        t->write(golden_weights(m));
        CHECK(value(t->evaluate()) == Approx(c["held_out_before"].get<double>()).margin(1e-5));
        std::uint64_t step = 0;
        for (const auto& want : c["losses"]) {
            const auto r = t->step({.position = step++, .lr = c["lr"].get<double>()});
            REQUIRE(r);
            CHECK(r->loss == Approx(want.get<double>()).margin(2e-5));
        }
        CHECK(value(t->evaluate()) == Approx(c["held_out_after"].get<double>()).margin(2e-5));
        const auto after = parameters(*t);
        for (std::size_t i = 0; i < m.size(); ++i) {
            CAPTURE(m.specs()[i].name);
            const auto part = m.part(std::span<const float>(after), i);
            double sum = 0;
            for (const float v : part) sum += static_cast<double>(v);
            const auto& want = c["after"][i];
            // AdamW divides by √v: where a gradient is near zero its sign may differ by rounding, so single values are
            // compared at a hundredth of one step.
            CHECK(sum == Approx(want["sum"].get<double>()).margin(1e-3).epsilon(1e-4));
            for (std::size_t k = 0; k < want["first"].size(); ++k)
                CHECK(static_cast<double>(part[k]) == Approx(want["first"][k].get<double>()).margin(1e-4));
        }
    }
}

TEST_CASE("H = 1 with outer SGD 1.0 and inner SGD is data-parallel SGD within 2 ulp, on a GPT") {
    if (!have_module()) return;
    const golden_data data;
    auto o = data.gpt();
    o.inner.optimizer = "sgd";
    o.inner.grad_clip = 0;
    o.inner.weight_decay = 0;
    const double lr = 0.5;
    std::vector<std::unique_ptr<optim::trainer>> peers;
    for (int i = 0; i < 4; ++i) peers.push_back(make(o));
    const auto manifest = peers[0]->manifest();
    auto theta = golden_weights(manifest);
    const auto n = theta.size();
    std::vector<float> momentum(n, 0.0F), local(n), delta(n);
    for (std::uint64_t step = 0; step < 8; ++step) {
        const std::vector<optim::contribution_weight> weights(4, {32, 1});
        auto sum = optim::aggregator::begin(manifest, weights);
        REQUIRE(sum);
        // The gradients themselves, read off a step from the same place whose rate is so large that θ vanishes in it.
        constexpr double huge = 1 << 30;
        std::vector<double> gradient(n, 0.0), largest(n, 0.0);
        for (std::uint64_t i = 0; i < 4; ++i) {
            peers[i]->assign(i, 1, step);
            peers[i]->write(theta);
            REQUIRE(peers[i]->step({.position = step, .lr = huge}));
            peers[i]->read(local);
            for (std::size_t j = 0; j < n; ++j) {
                const double g = (static_cast<double>(theta[j]) - static_cast<double>(local[j])) / huge;
                gradient[j] += g / 4;
                largest[j] = std::max(largest[j], std::abs(g));
            }
            peers[i]->assign(i, 1, step);
            peers[i]->write(theta);
            REQUIRE(peers[i]->step({.position = step, .lr = lr}));
            peers[i]->read(local);
            for (std::size_t j = 0; j < delta.size(); ++j) delta[j] = theta[j] - local[j];
            REQUIRE(sum->add(i, delta));
        }
        sum->finish(delta);
        auto next = theta;
        optim::outer_step(manifest, false, 1.0F, 0.0F, next, momentum, delta);
        double worst = 0;
        for (std::size_t j = 0; j < n; ++j) {
            const double want = static_cast<double>(theta[j]) - lr * gradient[j];
            const double scale = std::max(std::abs(static_cast<double>(theta[j])), lr * largest[j]);
            worst = std::max(worst, std::abs(static_cast<double>(next[j]) - want) / ulp(scale));
        }
        CHECK(worst <= 2);
        // Four peers on different data did move.
        CHECK(next != theta);
        theta = next;
    }
}

TEST_CASE("training repeats bit for bit, and continues from a saved inner state") {
    if (!have_module()) return;
    const golden_data data;
    for (const char* kind : {"gpt", "mlp", "cnn"}) {
        CAPTURE(kind);
        const auto o = std::string(kind) == "gpt" ? data.gpt() : data.images(kind);
        const auto a = make(o), b = make(o);
        CHECK(parameters(*a) == parameters(*b));
        const double before = value(a->evaluate());
        a->assign(1, 1, 0);
        b->assign(1, 1, 0);
        double loss_a = 0;
        for (std::uint64_t i = 0; i < 30; ++i) {
            loss_a = value(a->step({.position = i, .lr = 5e-3})).loss;
            CHECK(value(b->step({.position = i, .lr = 5e-3})).loss == loss_a);
        }
        // The images' labels are noise; the text's letters are 26 of 256 bytes.
        if (std::string(kind) == "gpt") CHECK(loss_a < before - 1);
        CHECK(parameters(*a) == parameters(*b));

        // A third trainer takes over in the middle.
        const auto saved = a->save_inner_state();
        REQUIRE(saved);
        const auto c = make(o);
        c->assign(1, 1, 0);
        c->write(parameters(*a));
        REQUIRE(c->load_inner_state(*saved));
        for (std::uint64_t i = 30; i < 40; ++i) {
            REQUIRE(a->step({.position = i, .lr = 5e-3}));
            REQUIRE(c->step({.position = i, .lr = 5e-3}));
        }
        CHECK(parameters(*a) == parameters(*c));

        // Hostile bytes change nothing.
        const auto state = c->save_inner_state().value();
        for (const std::size_t cut :
             {std::size_t{0}, std::size_t{1}, std::size_t{9}, std::size_t{24}, saved->size() - 1}) {
            const auto r = c->load_inner_state(core::const_bytes(*saved).first(cut));
            REQUIRE_FALSE(r);
            CHECK(r.error().code == core::errc::malformed);
        }
        auto longer = *saved;
        longer.push_back(std::byte{0});
        CHECK_FALSE(c->load_inner_state(longer));
        auto other = *saved;
        other[17] ^= std::byte{1};  // the number of elements
        CHECK_FALSE(c->load_inner_state(other));
        CHECK(c->save_inner_state().value() == state);

        // A reset is a fresh optimizer at this place.
        c->reset_inner_state();
        const auto fresh = make(o);
        fresh->assign(1, 1, 40);
        fresh->write(parameters(*c));
        REQUIRE(c->step({.position = 40, .lr = 5e-3}));
        REQUIRE(fresh->step({.position = 40, .lr = 5e-3}));
        CHECK(parameters(*c) == parameters(*fresh));
    }
}

TEST_CASE("MLP and CNN learn MNIST") {
    if (!have_module()) return;
    const char* named = std::getenv("LONGHAUL_SHARED");
    const auto shared =
        (named != nullptr ? fs::path(named) : fs::path(longhaul::tests::source_dir()) / "../shared") / "data";
    if (!fs::exists(shared / "mnist10k-images-idx3-ubyte.gz")) {
        WARN("skipped: no shared/data/mnist10k-images-idx3-ubyte.gz (set LONGHAUL_SHARED)");
        return;
    }
    for (const char* kind : {"mlp", "cnn"}) {
        CAPTURE(kind);
        optim::trainer_options o;
        o.model.kind = kind;
        o.model.layers = 1;
        o.model.width = std::string(kind) == "mlp" ? 32 : 8;
        o.data.kind = "mnist";
        o.data_path = shared.string();
        o.data.shards = 4;
        o.inner.batch = 32;
        o.device = "cpu";
        const auto t = make(o);
        CHECK(value(t->evaluate()) == Approx(std::log(10)).margin(0.3));
        t->assign(0, 1, 0);
        for (std::uint64_t i = 0; i < 100; ++i) CHECK(value(t->step({.position = i, .lr = 5e-3})).tokens == 32);
        CHECK(value(t->evaluate()) < 0.9);
    }
}

TEST_CASE("dropout is reproducible by seed, shard and position") {
    if (!have_module()) return;
    const golden_data data;
    auto o = data.gpt();
    o.model.dropout = 0.2;
    const auto a = make(o), b = make(o);
    a->assign(2, 5, 7);
    b->assign(2, 5, 7);
    const double first = value(a->step({.position = 7, .lr = 1e-3})).loss;
    CHECK(value(b->step({.position = 7, .lr = 1e-3})).loss == first);
    CHECK(value(a->evaluate()) == value(b->evaluate()));
}

TEST_CASE("a loss that is not finite is an error, and the batch is not skipped") {
    if (!have_module()) return;
    const golden_data data;
    const auto t = make(data.gpt());
    auto bad = parameters(*t);
    bad[0] = NAN;
    const auto good = parameters(*t);
    t->assign(0, 1, 0);
    t->write(std::vector<float>(good.size(), NAN));
    const auto r = t->step({.position = 0, .lr = 1e-3});
    REQUIRE_FALSE(r);
    CHECK(r.error().code == core::errc::limit);
    CHECK_FALSE(t->evaluate());
    t->write(good);
    const double loss = value(t->step({.position = 0, .lr = 1e-3})).loss;
    const auto fresh = make(data.gpt());
    fresh->assign(0, 1, 0);
    CHECK(value(fresh->step({.position = 0, .lr = 1e-3})).loss == loss);
}

TEST_CASE("wrong configuration, data and devices are sentences") {
    if (!have_module()) return;
    const golden_data data;
    const auto refused = [&](const optim::trainer_options& o, core::errc code, const char* word) {
        const auto r = optim::make_torch_trainer(o);
        REQUIRE_FALSE(r);
        CAPTURE(r.error().message);
        CHECK(r.error().code == code);
        CHECK(r.error().message.find(word) != std::string::npos);
    };
    auto o = data.gpt();
    o.model.heads = 3;
    refused(o, core::errc::config, "model.heads");
    o = data.gpt();
    o.model.vocab = 100;
    refused(o, core::errc::config, "model.vocab");
    o = data.gpt();
    o.model.width = 1'000'000;
    refused(o, core::errc::config, "model.width");
    o = data.gpt();
    o.data_path = "/nonexistent/text.txt";
    refused(o, core::errc::config, "/nonexistent/text.txt");
    o = data.gpt();
    o.device = "gpu";
    refused(o, core::errc::config, "cuda:N");
    o.device = "cuda:99";
    refused(o, core::errc::unsupported, "cuda:99");
    o = data.gpt();
    o.model.kind = "cnn";
    refused(o, core::errc::config, "mnist");
    o.model.kind = "rnn";
    refused(o, core::errc::config, "rnn");
    o = data.gpt();
    CHECK(make(o)->description().find("libtorch 2.") == 0);
}

TEST_CASE("the setting of the demo has the parameters that nanoGPT counts") {
    if (!have_module()) return;
    const golden_data data;
    auto o = data.gpt();
    o.model = {};
    const auto t = make(o);
    CHECK(t->manifest().elements() == 168'384);
    CHECK(t->manifest().specs()[0].name == "transformer.wte.weight");
    CHECK(t->manifest().specs().back().name == "transformer.ln_f.weight");
    // A new model knows nothing: its loss is that of a uniform guess.
    CHECK(value(t->evaluate()) == Approx(std::log(256)).margin(0.1));
}
