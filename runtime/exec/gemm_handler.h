// Gemm steps: matrix products written at planned addresses, in a wider type
// than their operands'. The engine behind the interface multiplies: plain loops
// on the host (the reference), cuBLASLt on a GPU.
// Invariant: Run enqueues and allocates nothing; the same problem is multiplied
// by the same algorithm every time, so that a graph and a run without one agree
// bit for bit.

#ifndef HEDDLE_RUNTIME_EXEC_GEMM_HANDLER_H_
#define HEDDLE_RUNTIME_EXEC_GEMM_HANDLER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/exec/handler.h"
#include "runtime/plan/gemm.h"

namespace heddle::exec {

// A Gemm with addresses of its first elements.
struct GemmProblem {
  plan::Gemm shape;
  const char* a = nullptr;
  const char* b = nullptr;
  char* out = nullptr;
};

class PreparedGemm {
 public:
  virtual ~PreparedGemm() = default;
  [[nodiscard]] virtual absl::Status Run(device::Stream* stream) = 0;
};

class GemmEngine {
 public:
  virtual ~GemmEngine() = default;
  // `stream` is the plan's: steps of one stream may share scratch memory.
  virtual absl::StatusOr<std::unique_ptr<PreparedGemm>> Prepare(
      const GemmProblem& problem, uint16_t stream) = 0;
  // Memory that the engine keeps for itself.
  virtual uint64_t reserved_bytes() const { return 0; }
};

std::unique_ptr<GemmEngine> CreateHostGemmEngine();

std::shared_ptr<StepHandler> CreateGemmHandler(
    std::unique_ptr<GemmEngine> engine);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_GEMM_HANDLER_H_
