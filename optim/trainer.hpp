#pragma once
/// What turns an anchor into a pseudo-gradient: a model, its data and its inner optimizer.
/// Implementations: the analytic quadratic (simulation), LibTorch (optim/torch/, a loadable module), later a user's
/// own PyTorch loop. Called from one worker thread at a time, never from the I/O thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/clock.hpp"
#include "core/tensor.hpp"
#include "optim/config.hpp"

namespace longhaul::optim {

/// One inner step: where it stands in the run and its learning rate.
struct step_context {
    std::uint64_t position = 0;  ///< inner step of the run, from the committed count
    double lr = 0;
};
struct step_report {
    double loss = 0;           ///< training loss of this batch
    std::uint64_t tokens = 0;  ///< tokens or samples consumed
};

/// What a trainer needs to know of the node that it trains for.
struct trainer_options {
    model_config model;
    data_config data;
    inner_config inner;
    std::string data_path;        ///< this node's copy; empty: data.path, or the embedded default
    std::string device = "auto";  ///< auto | cpu | cuda:N
    int threads = 1;              ///< for the trainer's own maths
    /// Asked with the model's layout before anything of its size is allocated; its error ends the making. May be empty.
    std::function<core::result<void>(const core::tensor_manifest&)> fits;
};

/// How many buffers of the model's size a trainer of this kind of model keeps: parameters, gradients and the inner
/// optimizer's two; the quadratic its curvature, centre and optimum as well. Activations come on top.
constexpr std::uint64_t trainer_buffers(std::string_view model_kind) { return model_kind == "quadratic" ? 8 : 4; }

class trainer {
public:
    virtual ~trainer() = default;
    /// Layout of the model. Constant.
    virtual const core::tensor_manifest& manifest() const = 0;
    /// Hash of the data that this trainer reads; compared with the manifest's.
    virtual core::digest data_hash() const = 0;
    /// That data in words: "Python 3.11's standard library (168 files, 4.0 MiB; hash 1f2e3d4c)".
    virtual std::string data_description() const = 0;
    /// Which part of the training data this peer reads, and the order of its batches. Stable for a peer when others
    /// come and go, and no two peers have the same pair. `position` continues the stream after a restart.
    virtual void assign(std::uint64_t shard, std::uint64_t seed, std::uint64_t position) = 0;
    /// Copies the model's parameters to `out` (manifest().elements() floats).
    virtual void read(std::span<float> out) const = 0;
    /// Sets the model's parameters. The inner optimizer's state stays.
    virtual void write(std::span<const float> values) = 0;
    /// One inner step. errc::limit when the loss is not finite.
    virtual core::result<step_report> step(const step_context& at) = 0;
    /// Mean held-out loss; the same batches every time and on every peer.
    virtual core::result<double> evaluate() = 0;
    /// Inner optimizer state to zero (a joiner or returner starts so).
    virtual void reset_inner_state() = 0;
    /// Inner optimizer state and data position as bytes, for this node's own checkpoint.
    virtual core::result<core::byte_vector> save_inner_state() const = 0;
    /// errc::malformed leaves the state unchanged.
    virtual core::result<void> load_inner_state(core::const_bytes saved) = 0;
    /// Virtual time of one step in simulation.
    virtual core::duration modelled_step_time() const { return std::chrono::milliseconds(10); }
    /// One line for `doctor` and logs: "libtorch 2.11.0, cpu, 1 thread".
    virtual std::string description() const = 0;
};

/// Makes a trainer from a run's configuration; errors are sentences (missing data file, unknown model, no CUDA device).
using trainer_factory = std::function<core::result<std::unique_ptr<trainer>>(const trainer_options&)>;

/// The analytic quadratic (optim/quadratic.hpp): model.width dimensions (a matrix of 64 columns from 4,096 on, if they
/// fill it), data.shards shards, gradient noise of standard
/// deviation 1/√batch; needs no data, and gives the same bits under every compiler. `step_time` is its modelled inner
/// step. errc::config for sizes below 1.
core::result<std::unique_ptr<trainer>> make_quadratic_trainer(const trainer_options& options,
                                                              core::duration step_time = std::chrono::milliseconds(10));

/// Loads the LibTorch module (liblonghaul_torch.so beside the executable, or LONGHAUL_TORCH_MODULE) on first use and
/// makes a trainer with it. errc::unsupported, with what to install or build, where there is none.
core::result<std::unique_ptr<trainer>> make_torch_trainer(const trainer_options& options);

}  // namespace longhaul::optim
