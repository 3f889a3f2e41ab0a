#include "optim/quadratic.hpp"

#include <algorithm>
#include <cmath>

#include "core/counter_random.hpp"
#include "core/hash.hpp"
#include "optim/inner.hpp"
#include "optim/trainer.hpp"

namespace longhaul::optim {
namespace {

// Sub-streams of the problem's seed.
constexpr std::uint64_t curvature_stream = 1, common_stream = 2, start_stream = 3, noise_stream = 4,
                        shard_stream = 1000;

class quadratic_trainer final : public trainer {
public:
    quadratic_trainer(const trainer_options& options, core::tensor_manifest manifest, core::duration step_time)
        : problem_(static_cast<std::uint64_t>(options.model.seed), manifest.elements(),
                   static_cast<std::uint64_t>(options.data.shards)),
          manifest_(std::move(manifest)),
          optimizer_(manifest_, options.inner),
          batch_(static_cast<std::uint64_t>(options.inner.batch)),
          noise_(1.0 / std::sqrt(static_cast<double>(batch_))),
          step_time_(step_time) {
        for (auto* all : {&x_, &gradient_, &curvature_, &centre_}) all->resize(problem_.dimension());
        for (std::uint64_t j = 0; j < problem_.dimension(); ++j) {
            x_[j] = problem_.start(j);
            curvature_[j] = problem_.curvature(j);
        }
        assign(0, 0, 0);
    }

    const core::tensor_manifest& manifest() const override { return manifest_; }
    core::digest data_hash() const override {
        core::byte_writer w;
        w.raw(core::as_bytes("quadratic")).u64(problem_.dimension()).u64(problem_.shards());
        return core::hash(w.bytes());
    }
    std::string data_description() const override { return "the analytic quadratic"; }
    void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) override {
        shard_ = shard % problem_.shards();
        for (std::uint64_t j = 0; j < centre_.size(); ++j) centre_[j] = problem_.centre(shard_, j);
        seed_ = seed;
        position_ = position;
    }
    void read(std::span<float> out) const override {
        LONGHAUL_ENSURE(out.size() == x_.size(), "the manifest's length");
        std::copy(x_.begin(), x_.end(), out.begin());
    }
    void write(std::span<const float> values) override {
        LONGHAUL_ENSURE(values.size() == x_.size(), "the manifest's length");
        x_.assign(values.begin(), values.end());
    }
    core::result<step_report> step(const step_context& at) override {
        const auto key =
            core::combine_key(core::combine_key(core::combine_key(seed_, noise_stream), shard_), position_);
        double loss = 0;
        for (std::uint64_t j = 0; j < x_.size(); ++j) {
            const double d = static_cast<double>(x_[j]) - static_cast<double>(centre_[j]);
            const auto curvature = static_cast<double>(curvature_[j]);
            loss += 0.5 * curvature * d * d;
            gradient_[j] =
                static_cast<float>(curvature * d + noise_ * static_cast<double>(core::random_normal(key, j)));
        }
        if (!std::isfinite(loss))
            return core::fail(core::errc::limit, "the loss at step {} is not finite: lower inner.lr ({})", at.position,
                              at.lr);
        optimizer_.step(at.lr, x_, gradient_);
        ++position_;
        step_report report;
        report.loss = loss;
        report.tokens = batch_;
        return report;
    }
    core::result<double> evaluate() override { return problem_.loss(x_); }
    void reset_inner_state() override { optimizer_.reset(); }
    core::result<core::byte_vector> save_inner_state() const override {
        core::byte_writer w;
        w.u64(position_);
        optimizer_.save(w);
        return w.take();
    }
    core::result<void> load_inner_state(core::const_bytes saved) override {
        core::byte_reader in(saved);
        LONGHAUL_TRY_ASSIGN(const auto position, in.u64());
        // Into a copy, so that trailing bytes leave the state as it was.
        auto loaded = optimizer_;
        LONGHAUL_TRY(loaded.load(in));
        LONGHAUL_TRY(in.end());
        optimizer_ = std::move(loaded);
        position_ = position;
        return core::ok();
    }
    core::duration modelled_step_time() const override { return step_time_; }
    std::string description() const override { return fmt::format("quadratic of {} dimensions", x_.size()); }

private:
    quadratic_problem problem_;
    core::tensor_manifest manifest_;
    inner_optimizer optimizer_;
    std::uint64_t batch_;
    double noise_;
    core::duration step_time_;
    std::vector<float> x_, gradient_, curvature_, centre_;
    std::uint64_t shard_ = 0, seed_ = 0, position_ = 0;
};

}  // namespace

quadratic_problem::quadratic_problem(std::uint64_t seed, std::uint64_t dimension, std::uint64_t shards)
    : seed_(seed), dimension_(dimension), shards_(shards), mean_(dimension) {
    const auto n = static_cast<double>(shards);
    for (std::uint64_t j = 0; j < dimension; ++j) {
        double sum = 0;
        for (std::uint64_t i = 0; i < shards; ++i) sum += static_cast<double>(centre(i, j));
        mean_[j] = sum / n;
        double squares = 0;
        for (std::uint64_t i = 0; i < shards; ++i) {
            const double d = static_cast<double>(centre(i, j)) - mean_[j];
            squares += d * d;
        }
        least_loss_ += 0.5 * static_cast<double>(curvature(j)) * squares / n;
    }
}

float quadratic_problem::curvature(std::uint64_t j) const {
    const auto k = core::random_below(core::combine_key(seed_, curvature_stream), j, 901);
    return static_cast<float>(100 + k) / 1000.0F;
}

float quadratic_problem::centre(std::uint64_t shard, std::uint64_t j) const {
    return core::random_normal(core::combine_key(seed_, common_stream), j) +
           0.5F * core::random_normal(core::combine_key(seed_, shard_stream + shard), j);
}

float quadratic_problem::start(std::uint64_t j) const {
    return 3.0F * core::random_normal(core::combine_key(seed_, start_stream), j);
}

double quadratic_problem::loss(std::span<const float> x) const {
    double sum = 0;
    for (std::uint64_t j = 0; j < dimension_; ++j) {
        const double d = static_cast<double>(x[j]) - mean_[j];
        sum += 0.5 * static_cast<double>(curvature(j)) * d * d;
    }
    return sum + least_loss_;
}

double quadratic_problem::shard_loss(std::uint64_t shard, std::span<const float> x) const {
    double sum = 0;
    for (std::uint64_t j = 0; j < dimension_; ++j) {
        const double d = static_cast<double>(x[j]) - static_cast<double>(centre(shard, j));
        sum += 0.5 * static_cast<double>(curvature(j)) * d * d;
    }
    return sum;
}

core::result<std::unique_ptr<trainer>> make_quadratic_trainer(const trainer_options& options,
                                                              core::duration step_time) {
    if (options.model.width < 1 || options.data.shards < 1 || options.inner.batch < 1)
        return core::fail(core::errc::config, "model.width, data.shards and inner.batch must be at least 1");
    core::tensor_spec x;
    x.name = "x";
    // Codecs compress matrices alone: a large problem is one, so that they can be tried without a network to train.
    constexpr std::int64_t columns = 64;
    const bool matrix = options.model.width >= columns * columns && options.model.width % columns == 0;
    x.shape = matrix ? std::vector<std::int64_t>{options.model.width / columns, columns}
                     : std::vector<std::int64_t>{options.model.width};
    std::vector<core::tensor_spec> specs{x};
    LONGHAUL_TRY_ASSIGN(auto manifest, core::tensor_manifest::make(std::move(specs)));
    if (options.fits) LONGHAUL_TRY(options.fits(manifest));
    return std::make_unique<quadratic_trainer>(options, std::move(manifest), step_time);
}

}  // namespace longhaul::optim
