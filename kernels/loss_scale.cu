// loss_scale on the GPU: one thread, so that nothing waits for the host.

#include <cuda_runtime.h>

#include "kernels/launch.cuh"
#include "kernels/loss_scale_cuda.h"

namespace heddle::kernels {
namespace {

__global__ void LossScaleKernel(const LossScale s) {
  if (s.wide) {
    UpdateLossScale<double>(s);
  } else {
    UpdateLossScale<float>(s);
  }
}

}  // namespace

const char* LaunchLossScale(const LossScale& arguments, void* stream) {
  LossScaleKernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(arguments);
  return LastError();
}

}  // namespace heddle::kernels
