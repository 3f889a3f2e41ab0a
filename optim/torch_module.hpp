#pragma once
/// The agreement between the program and liblonghaul_torch.so, which is loaded by name. Both are built from one tree
/// by one compiler, so C++ types may cross; the version says whether that is true.

#include <memory>

#include "optim/trainer.hpp"

namespace longhaul::optim {

/// The function that the module exports: the hash of the headers that both sides were compiled from.
inline constexpr const char* torch_version_symbol = "longhaul_torch_version";
using torch_version_function = const char* (*)();

/// The function that makes a trainer.
inline constexpr const char* torch_factory_symbol = "longhaul_torch_trainer";
using torch_factory_function = void (*)(const trainer_options& options, core::result<std::unique_ptr<trainer>>& out);

}  // namespace longhaul::optim
