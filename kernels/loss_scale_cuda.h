// The plain-data border between the launch of loss_scale and its CUDA code.

#ifndef HEDDLE_KERNELS_LOSS_SCALE_CUDA_H_
#define HEDDLE_KERNELS_LOSS_SCALE_CUDA_H_

#include "kernels/loss_scale.h"

namespace heddle::kernels {

// nullptr, or why the launch failed.
const char* LaunchLossScale(const LossScale& arguments, void* stream);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_LOSS_SCALE_CUDA_H_
