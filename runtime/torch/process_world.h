// This process as one rank among those that a launcher started: torchrun's
// variables -> one World over gloo, and NCCL for what lies on a GPU. Invariant:
// one for the life of the process, however many plans it loads, so that all
// ranks agree on the order of what they say to each other. It is never
// destroyed; a process that ends well calls Leave.

#ifndef HEDDLE_RUNTIME_TORCH_PROCESS_WORLD_H_
#define HEDDLE_RUNTIME_TORCH_PROCESS_WORLD_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/rank_environment.h"
#include "runtime/comm/world.h"
#include "runtime/torch/store_rendezvous.h"

namespace heddle::torch_runtime {

class ProcessWorld {
 public:
  // Whether a launcher has set the variables of a rank.
  static bool HasLauncher();
  // The launcher's variables, which are all there.
  static absl::StatusOr<comm::RankEnvironment> Environment();
  // Meets the other ranks the first time; later calls give the same, whatever
  // their options. From then on a failure of any rank ends this process with
  // code 2 and the verdict on stderr.
  static absl::StatusOr<ProcessWorld*> Get(comm::WorldOptions options);
  // The one that Get made, or nullptr.
  static ProcessWorld* Existing();
  // Leaves in good order, if there is anything to leave.
  static void Leave();

  const comm::RankEnvironment& environment() const { return environment_; }
  const std::shared_ptr<comm::World>& world() const { return world_; }

  // Every rank's tensor, by rank: all of one shape and dtype, on the CPU.
  absl::StatusOr<std::vector<at::Tensor>> Gather(const at::Tensor& tensor,
                                                 const std::string& what);
  // Where the ranks' tensors on the CPU meet.
  absl::StatusOr<comm::Communicator*> Host();
  // NCCL on this process's GPU, made with the first call: no CUDA before it.
  absl::StatusOr<comm::Backend*> Device();
  // Where parts of state on the plan's device meet.
  absl::StatusOr<comm::Communicator*> State(const std::string& target);

 private:
  ProcessWorld() = default;
  absl::StatusOr<comm::Communicator*> Connect(const char* name,
                                              comm::Backend* backend);

  comm::RankEnvironment environment_;
  Meeting meeting_;
  std::shared_ptr<comm::World> world_;
  std::mutex mutex_;
  comm::Backend* device_ = nullptr;
  comm::Communicator* host_ = nullptr;
};

// NCCL under the watchdog of a world of one rank that meets nobody else.
absl::StatusOr<comm::Backend*> AddNccl(comm::World& world);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_PROCESS_WORLD_H_
