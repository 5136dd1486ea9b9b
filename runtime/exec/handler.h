// How a step kind is carried out. A handler turns a plan's step into a prepared
// step once; the prepared step runs as often as its section does. Invariant:
// Execute makes no decision that Prepare could have made; whatever it reads or
// writes lies in Memory or in the handler's own reserved workspace.

#ifndef HEDDLE_RUNTIME_EXEC_HANDLER_H_
#define HEDDLE_RUNTIME_EXEC_HANDLER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/exec/memory.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

// What is the same for every step of one run of a section.
struct RunContext {
  const std::map<std::string, double>* scalars = nullptr;
  uint64_t seed = 0;
  // Optimizer step and number of the micro-batch in it: random steps of a
  // training plan draw from (seed, step, micro, rng_id).
  int64_t step = 0;
  int64_t micro = 0;
  // True while the run is recorded into a graph: what steps enqueue does not
  // run yet, and its addresses must stay valid as long as the graph.
  bool capturing = false;
};

// The value of a Runtime argument; FailedPrecondition names the scalar that the
// caller did not set.
absl::StatusOr<double> RuntimeScalar(const RunContext& context,
                                     const std::string& name);

class PreparedStep {
 public:
  virtual ~PreparedStep() = default;
  // Runs the step on `stream`: on the CPU on the calling thread, on CUDA by
  // enqueueing.
  [[nodiscard]] virtual absl::Status Execute(const RunContext& context,
                                             device::Stream* stream) = 0;
};

class StepHandler {
 public:
  virtual ~StepHandler() = default;
  // Resolves everything that does not depend on data. `plan` and `memory`
  // outlive the prepared step.
  virtual absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section& section,
      const plan::Step& step, const Memory& memory) = 0;
  // Called before and after each run of a section, on the caller's thread.
  [[nodiscard]] virtual absl::Status BeginRun(const plan::Section&,
                                              const RunContext&) {
    return absl::OkStatus();
  }
  [[nodiscard]] virtual absl::Status EndRun(const plan::Section&) {
    return absl::OkStatus();
  }
  // Called around each launch of a section's graph on `stream`.
  [[nodiscard]] virtual absl::Status BeginLaunch(const plan::Section&,
                                                 device::Stream&) {
    return absl::OkStatus();
  }
  [[nodiscard]] virtual absl::Status EndLaunch(const plan::Section&,
                                               device::Stream&) {
    return absl::OkStatus();
  }
  // Changes whenever memory of the handler's own that prepared steps use moves:
  // a graph captured before holds the old addresses.
  virtual uint64_t MemoryVersion() const { return 0; }
  // Device memory that the handler keeps for itself, beside arenas and the
  // workspace.
  virtual uint64_t ReservedBytes() const { return 0; }
};

using HandlerTable = std::map<plan::StepKind, std::shared_ptr<StepHandler>>;

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_HANDLER_H_
