/// The two functions that liblonghaul_torch.so exports (optim/torch_module.hpp).

#include "optim/torch/trainer.hpp"
#include "optim/torch_module.hpp"

#define LONGHAUL_EXPORT extern "C" __attribute__((visibility("default")))

LONGHAUL_EXPORT const char* longhaul_torch_version() { return LONGHAUL_TRAINER_VERSION; }

LONGHAUL_EXPORT void longhaul_torch_trainer(const longhaul::optim::trainer_options& options,
                                            longhaul::core::result<std::unique_ptr<longhaul::optim::trainer>>& out) {
    out = longhaul::optim::make_libtorch_trainer(options);
}
