// The program of kernels/newton_schulz.h on the CPU through ATen's matrix
// products: the reference there is plain loops, which large matrices are too
// slow in.

#ifndef HEDDLE_RUNTIME_TORCH_NEWTON_SCHULZ_BLAS_H_
#define HEDDLE_RUNTIME_TORCH_NEWTON_SCHULZ_BLAS_H_

#include "absl/status/status.h"
#include "kernels/registry.h"

namespace heddle::torch_runtime {

// What the kernel `newton_schulz` computes, on host memory. Sums are BLAS's, so
// results differ from the reference's by rounding; temporaries are ATen's, to
// be run under a Scope.
absl::Status NewtonSchulzByBlas(const kernels::Call& call);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_NEWTON_SCHULZ_BLAS_H_
