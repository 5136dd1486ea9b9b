// AdamW and its predicate on the GPU: one pass over parameter, gradient and
// both moments; the step is skipped on the device when the gradient norm was
// not finite. One rounding an operation, as the host reference.

#include <cuda_runtime.h>

#include "kernels/adamw_cuda.h"
#include "kernels/elements.cuh"
#include "kernels/launch.cuh"

namespace heddle::kernels {
namespace {

template <typename T>
__global__ void AdamWKernel(AdamWDevice a) {
  if (a.finite != nullptr && *a.finite == 0) return;
  const T factor =
      a.factor == nullptr ? T(1) : Read<T>(a.factor, a.factor_element, 0);
  const T decay = static_cast<T>(a.decay), weight = static_cast<T>(a.weight1),
          beta2 = static_cast<T>(a.beta2), weight2 = static_cast<T>(a.weight2);
  const T eps = static_cast<T>(a.eps), root = static_cast<T>(a.root),
          size = static_cast<T>(a.negative_step),
          divisor = static_cast<T>(a.divisor);
  for (long long i =
           blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
       i < a.count; i += static_cast<long long>(gridDim.x) * blockDim.x) {
    T p = Read<T>(a.param, a.param_element, i);
    T g = Read<T>(a.grad, a.grad_element, i);
    T m = Read<T>(a.exp_avg, a.exp_avg_element, i);
    T v = Read<T>(a.exp_avg_sq, a.exp_avg_sq_element, i);
    if (divisor != T(1)) g = Div(g, divisor);
    if (factor != T(1)) g = Mul(g, factor);
    if (a.has_decay) p = Mul(p, decay);
    const T difference = Add(g, -m);
    m = weight < T(0.5) ? Add(m, Mul(weight, difference))
                        : Add(g, -Mul(difference, Add(T(1), -weight)));
    v = Add(Mul(v, beta2), Mul(Mul(weight2, g), g));
    p = Add(p, Mul(size, Div(m, Add(Div(Root(v), root), eps))));
    Write(a.param, a.param_element, i, p);
    Write(a.exp_avg, a.exp_avg_element, i, m);
    Write(a.exp_avg_sq, a.exp_avg_sq_element, i, v);
  }
}

}  // namespace

const char* LaunchAdamW(const AdamWDevice& arguments, bool f64, void* stream) {
  if (arguments.count == 0) return nullptr;
  constexpr int kThreads = 256;
  const long long wanted = (arguments.count + kThreads - 1) / kThreads;
  const int blocks = static_cast<int>(wanted < 4096 ? wanted : 4096);
  if (f64) {
    AdamWKernel<double>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments);
  } else {
    AdamWKernel<float>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(arguments);
  }
  return LastError();
}

}  // namespace heddle::kernels
