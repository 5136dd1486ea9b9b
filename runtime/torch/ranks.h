// The ranks of a plan: what the Python class and heddle-run drive, for one rank
// as for many. Without a launcher all of them are threads of this process;
// under torchrun this process is one of them. Invariant: state goes in and
// comes out as whole tensors, whatever the ranks hold of them. What would break
// it: processes that do not make the same calls in the same order.

#ifndef HEDDLE_RUNTIME_TORCH_RANKS_H_
#define HEDDLE_RUNTIME_TORCH_RANKS_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/exec/ranks.h"
#include "runtime/torch/process_world.h"
#include "runtime/torch/session.h"
#include "runtime/trace/costs.h"

namespace heddle::torch_runtime {

struct RanksOptions {
  uint64_t seed = 0;
  // What a rank may take without progress while others wait, and where flight
  // records of a failure go. Zero and empty: as HEDDLE_DEADLINE and
  // HEDDLE_DUMPS say, else 60 s and nowhere.
  absl::Duration deadline;
  std::string dumps;
};

class Ranks {
 public:
  // As many ranks as the plan's mesh has. Of ranks that are threads each
  // operator may use the caller's number of threads divided by the ranks, at
  // least one: results depend on that number as they do in eager code, and on
  // nothing else. All ranks compare plan, world and options before the first
  // collective: FailedPrecondition, on each of them, names the first that
  // differs and the line. Unimplemented for axes other than "dp", and for
  // several ranks of one process on GPUs.
  static absl::StatusOr<std::unique_ptr<Ranks>> Load(plan::Plan plan,
                                                     RanksOptions options);

  // Another plan on the ranks' state, with the same threads and communicators
  // unless a failure has ended them. InvalidArgument if the plans' state
  // layouts or numbers of ranks differ; FailedPrecondition if a thread that
  // stalled may still write the state. The two may be destroyed in any order,
  // and run one at a time.
  absl::StatusOr<std::unique_ptr<Ranks>> LoadSharing(plan::Plan plan,
                                                     uint64_t seed) const;

  int size() const { return group_->size(); }
  // The ranks of this process: from first() on, as many as there are sessions.
  int first() const { return group_->first(); }
  int local() const { return static_cast<int>(sessions_.size()); }
  // Null where all ranks are here.
  ProcessWorld* process() const { return process_; }
  Session& session(int index) { return *sessions_[index]; }
  const plan::Plan& plan() const { return sessions_[0]->plan(); }

  // Gives every rank its part of the tensor, or all of it.
  [[nodiscard]] absl::Status SetState(const std::string& kind,
                                      const std::string& name,
                                      const at::Tensor& tensor);
  // Put together from all ranks' parts, or the first rank's copy. Of a sharded
  // tensor every process asks, in one order.
  absl::StatusOr<at::Tensor> GetState(const std::string& kind,
                                      const std::string& name);
  // Every rank's own copy, for which every process asks; InvalidArgument for a
  // sharded tensor.
  absl::StatusOr<std::vector<at::Tensor>> GetStateOfRanks(
      const std::string& kind, const std::string& name);
  void SetScalar(const std::string& name, double value);

  // Runs a section on all ranks at once. `inputs` has one entry for each rank
  // of this process, or none for a section that reads none; so have the
  // results. InvalidArgument before anything runs if an input does not fit; a
  // rank that fails ends the others, and all get one verdict. With `seconds`
  // operator by operator: it has what each took on the first rank here.
  absl::StatusOr<std::vector<TensorMap>> Run(
      const std::string& section, const std::vector<TensorMap>& inputs,
      std::vector<double>* seconds = nullptr);

  // Every kind of collective along every axis of more than one rank, timed at a
  // few sizes on the transport that the plan's collectives use. Every process
  // calls this; the first rank's times are meant to be everyone's.
  absl::StatusOr<std::vector<trace::CollectiveCost>> MeasureCollectives();

  // Session::Stats of the first rank here, and "ranks": how many; "first_rank"
  // and "per_rank": bytes of the arenas and workspace of the ranks here;
  // "collectives": their calls and bytes on the wire by kind and rank so far.
  std::string Stats() const;

 private:
  Ranks() = default;
  static absl::StatusOr<std::unique_ptr<Ranks>> LoadBeside(
      const Ranks* other, plan::Plan plan, RanksOptions options);
  // This process's GPU, which every call makes the calling thread's.
  std::optional<c10::Device> Gpu() const;
  [[nodiscard]] absl::Status Connect(const Ranks* other,
                                     const plan::Plan& plan);
  [[nodiscard]] absl::Status Agree(const plan::Plan& plan);
  // The one that the plan's collectives go through; null for the world's own.
  absl::StatusOr<comm::Backend*> Transport(const std::string& target);

  RanksOptions options_;
  ProcessWorld* process_ = nullptr;
  std::shared_ptr<exec::RankGroup> group_;
  std::vector<std::shared_ptr<exec::Communicators>> communicators_;
  std::vector<std::shared_ptr<Session>> sessions_;
};

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_RANKS_H_
