// An executable whose inputs, results and state are at::Tensors: what the
// Python class and heddle-run drive. Invariant: every tensor that leaves a
// Session is a copy; nothing outside aliases the arenas.

#ifndef HEDDLE_RUNTIME_TORCH_SESSION_H_
#define HEDDLE_RUNTIME_TORCH_SESSION_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/exec/executable.h"
#include "runtime/torch/handlers.h"

namespace heddle::torch_runtime {

using TensorMap = std::map<std::string, at::Tensor>;

// One step of a traced run: its index, "module path (file:line)", and copies of
// its results.
struct TracedStep {
  int64_t index = 0;
  std::string name;
  std::string location;
  std::vector<at::Tensor> results;
};

class Session {
 public:
  ~Session();
  // FailedPrecondition if the plan is for another torch or for a device that
  // this process does not have.
  static absl::StatusOr<std::unique_ptr<Session>> Load(plan::Plan plan,
                                                       uint64_t seed);

  // Copies into / out of the state arena. NotFound names the nearest known
  // entry; InvalidArgument gives both dtypes or shapes.
  [[nodiscard]] absl::Status SetState(const std::string& kind,
                                      const std::string& name,
                                      const at::Tensor& tensor);
  absl::StatusOr<at::Tensor> GetState(const std::string& kind,
                                      const std::string& name);
  void SetScalar(const std::string& name, double value) {
    executable_->SetScalar(name, value);
  }

  // Runs a section. Inputs by name, exactly those that the section's steps
  // read; results keyed "loss", "gradient:NAME", "output:NAME",
  // "new_value:NAME". On a GPU it returns when all is enqueued, and the results
  // are there for whatever the caller's stream does next.
  absl::StatusOr<TensorMap> Run(const std::string& section,
                                const TensorMap& inputs);
  absl::StatusOr<std::vector<TracedStep>> RunTraced(const std::string& section,
                                                    const TensorMap& inputs);

  const plan::Plan& plan() const { return executable_->plan(); }
  // JSON: [{kind, names, dtype, shape, trainable, persistent, role}].
  std::string StateNames() const;
  // JSON: arenas, lower bounds, workspace, counters, work per section, the
  // configuration that made the plan.
  std::string Stats() const;
  const Counters& counters() const { return shared_->counters; }

 private:
  Session() = default;
  // On a device with streams: what the caller enqueues next comes after the
  // plan's work so far, or the other way round. The host waits for neither.
  absl::Status CallerFollowsPlan();
  absl::Status PlanFollowsCaller();
  absl::Status BindInputs(const std::string& section, const TensorMap& inputs);
  const at::Tensor& Tensor(uint32_t value) {
    return shared_->tensors(executable_->plan(), executable_->memory())
        .at(value);
  }

  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Event> handover_;
  // By section, the input buffers that a run must be given.
  std::map<std::string, std::set<uint32_t>> inputs_read_;
  // Host time that the last run of each section took to enqueue.
  std::map<std::string, double> enqueue_ms_;
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<exec::Executable> executable_;
};

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_SESSION_H_
