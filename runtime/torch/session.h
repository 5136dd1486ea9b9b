// An executable whose inputs, results and state are at::Tensors: what the
// Python class and heddle-run drive. Invariant: every tensor that leaves a
// Session is a copy; nothing outside aliases the arenas.

#ifndef HEDDLE_RUNTIME_TORCH_SESSION_H_
#define HEDDLE_RUNTIME_TORCH_SESSION_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/exec/collective_handler.h"
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

// Which rank a session is and how it meets the others.
struct Rank {
  exec::Place place;
  // Needed where the plan has collectives.
  std::shared_ptr<exec::Communicators> communicators;
  // Threads that one operator may use; 0: as the caller's thread is set.
  int threads = 0;
  // Which of the machine's GPUs, for a plan on CUDA.
  int device = 0;
  // Given every handler, says what is to run in its place: how tests delay
  // steps. None: the handlers themselves.
  std::function<std::shared_ptr<exec::StepHandler>(
      std::shared_ptr<exec::StepHandler>)>
      wrap;
};

// The elements of a sharded entry's tensor that a rank holds: the first one and
// how many, counted in the tensor's storage, and where they lie in its shard.
struct Part {
  int64_t first = 0;
  int64_t count = 0;
  int64_t in_shard = 0;
};
Part PartOf(const plan::StateEntry& entry, int64_t coordinate);

class Session {
 public:
  ~Session();
  // FailedPrecondition if the plan is for another torch or for a device that
  // this process does not have.
  static absl::StatusOr<std::unique_ptr<Session>> Load(plan::Plan plan,
                                                       uint64_t seed,
                                                       Rank rank = {});
  // Another plan on this session's state and device, with arenas of its own for
  // everything else. InvalidArgument if the plans' state layouts differ. The
  // two may be destroyed in any order, and run one at a time.
  absl::StatusOr<std::unique_ptr<Session>> LoadSharing(plan::Plan plan,
                                                       uint64_t seed,
                                                       Rank rank = {}) const;

  // Copies into / out of the state arena, always from or to a whole tensor: of
  // a sharded one SetState takes this rank's part and GetState gives it among
  // zeros. NotFound names the nearest known entry; InvalidArgument gives both
  // dtypes or shapes.
  [[nodiscard]] absl::Status SetState(const std::string& kind,
                                      const std::string& name,
                                      const at::Tensor& tensor);
  absl::StatusOr<at::Tensor> GetState(const std::string& kind,
                                      const std::string& name);
  // Puts this rank's part of a sharded tensor into `whole`, which GetState of
  // another rank gave.
  void GetShard(const plan::StateEntry& entry, const at::Tensor& whole);
  // Completes `whole`, which GetState gave, with the parts of the ranks of
  // other processes: each calls this.
  [[nodiscard]] absl::Status GatherShards(const plan::StateEntry& entry,
                                          const at::Tensor& whole,
                                          comm::Communicator& communicator);
  void SetScalar(const std::string& name, double value) {
    executable_->SetScalar(name, value);
  }

  // Runs a section. Inputs by name, exactly those that the section's steps
  // read; results keyed "loss", "gradient:NAME", "output:NAME",
  // "new_value:NAME". On a GPU it returns when all is enqueued, and the results
  // are there for whatever the caller's stream does next.
  absl::StatusOr<TensorMap> Run(const std::string& section,
                                const TensorMap& inputs);
  // The parts of Run, for ranks that run at once: only Execute needs them all.
  [[nodiscard]] absl::Status BindInputs(const std::string& section,
                                        const TensorMap& inputs);
  [[nodiscard]] absl::Status Execute(const std::string& section);
  absl::StatusOr<TensorMap> Results(const std::string& section);
  // As Execute, operator by operator; `seconds` has what each of them took,
  // launching included.
  [[nodiscard]] absl::Status ExecuteTimed(const std::string& section,
                                          std::vector<double>* seconds);
  // What one call of a collective takes, on memory of the plan's device. Every
  // rank of the communicator calls this.
  absl::StatusOr<double> TimeCollective(comm::Communicator& communicator,
                                        const comm::Collective& collective);
  absl::StatusOr<std::vector<TracedStep>> RunTraced(const std::string& section,
                                                    const TensorMap& inputs);

  const plan::Plan& plan() const { return executable_->plan(); }
  // JSON: [{kind, names, dtype, shape, sharded, bytes (of this rank),
  // trainable, persistent, initial, role}].
  std::string StateNames() const;
  // JSON: arenas, lower bounds, workspace, counters, work per section, the
  // configuration that made the plan.
  std::string Stats() const;
  // Matrices that this rank orthogonalises in an update.
  int64_t Orthogonalised() const;
  uint64_t input_bytes() const { return executable_->memory().input_bytes(); }
  uint64_t scratch_bytes() const {
    return executable_->memory().scratch_bytes();
  }
  std::string DeviceName() const { return device_->name(); }
  uint64_t ArenaBytes() const {
    return plan().state_bytes + plan().constant_bytes +
           executable_->memory().input_bytes() +
           executable_->memory().scratch_bytes();
  }
  // What is reserved beside the arenas: "workspaces", "products"; and
  // "process", whatever else the device counts, by this process or another.
  std::map<std::string, int64_t> MemoryBeside() const;
  // Arenas and the workspace's high-water mark.
  uint64_t MemoryBytes() const;
  const Counters& counters() const { return shared_->counters; }

 private:
  Session() = default;
  // State that does not begin with zeros.
  [[nodiscard]] absl::Status FillInitial();
  // On a device with streams: what the caller enqueues next comes after the
  // plan's work so far, or the other way round. The host waits for neither.
  absl::Status CallerFollowsPlan();
  absl::Status PlanFollowsCaller();
  static absl::StatusOr<std::unique_ptr<Session>> LoadBeside(
      const Session* other, plan::Plan plan, uint64_t seed, Rank rank);
  const at::Tensor& Tensor(uint32_t value) {
    return shared_->tensors(executable_->plan(), executable_->memory())
        .at(value);
  }

  std::shared_ptr<device::Device> device_;
  std::unique_ptr<device::Event> handover_;
  // By section, the input buffers that a run must be given.
  std::map<std::string, std::set<uint32_t>> inputs_read_;
  // Host time that the last run of each section took to enqueue.
  std::map<std::string, double> enqueue_ms_;
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<exec::Executable> executable_;
};

// The entry, or NotFound that names the nearest known one.
absl::StatusOr<const plan::StateEntry*> FindState(const plan::Plan& plan,
                                                  const std::string& kind,
                                                  const std::string& name);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_SESSION_H_
