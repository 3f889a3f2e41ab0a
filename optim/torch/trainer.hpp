#pragma once
/// The LibTorch trainer: a built-in model, its data and its inner optimizer on one device.

#include <memory>

#include "optim/trainer.hpp"

namespace longhaul::optim {

/// errc::config or errc::malformed for configuration and data, errc::unsupported for a device that is not there.
core::result<std::unique_ptr<trainer>> make_libtorch_trainer(const trainer_options& options);

}  // namespace longhaul::optim
