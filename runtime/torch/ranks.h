// All ranks of a plan in this process, a session and a thread each: what the
// Python class and heddle-run drive, for one rank as for many. Invariant: state
// goes in and comes out as whole tensors, whatever the ranks hold of them.

#ifndef HEDDLE_RUNTIME_TORCH_RANKS_H_
#define HEDDLE_RUNTIME_TORCH_RANKS_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/exec/ranks.h"
#include "runtime/torch/session.h"

namespace heddle::torch_runtime {

class Ranks {
 public:
  // As many ranks as the plan's mesh has. Each operator of a rank may use the
  // caller's number of threads divided by the ranks, at least one: results
  // depend on that number as they do in eager code, and on nothing else.
  // Unimplemented for axes other than "dp", and for several ranks on a GPU.
  static absl::StatusOr<std::unique_ptr<Ranks>> Load(plan::Plan plan,
                                                     uint64_t seed);

  // Another plan on the ranks' state, with threads and communicators of its
  // own. InvalidArgument if the plans' state layouts or numbers of ranks
  // differ. The two may be destroyed in any order, and run one at a time.
  absl::StatusOr<std::unique_ptr<Ranks>> LoadSharing(plan::Plan plan,
                                                     uint64_t seed) const;

  int size() const { return static_cast<int>(sessions_.size()); }
  Session& session(int rank) { return *sessions_[rank]; }
  const plan::Plan& plan() const { return sessions_[0]->plan(); }

  // Gives every rank its part of the tensor, or all of it.
  [[nodiscard]] absl::Status SetState(const std::string& kind,
                                      const std::string& name,
                                      const at::Tensor& tensor);
  // Put together from all ranks' parts, or the first rank's copy.
  absl::StatusOr<at::Tensor> GetState(const std::string& kind,
                                      const std::string& name);
  // Every rank's own copy; InvalidArgument for a sharded tensor.
  absl::StatusOr<std::vector<at::Tensor>> GetStateOfRanks(
      const std::string& kind, const std::string& name);
  void SetScalar(const std::string& name, double value);

  // Runs a section on all ranks at once. `inputs` has one entry a rank, or none
  // for a section that reads none. InvalidArgument before anything runs if an
  // input does not fit; a rank that fails ends the others and is named.
  absl::StatusOr<std::vector<TensorMap>> Run(
      const std::string& section, const std::vector<TensorMap>& inputs);

  // Session::Stats of the first rank, and "ranks": how many; "per_rank": bytes
  // of every rank's arenas and workspace; "collectives": calls and bytes on the
  // wire by kind and rank so far.
  std::string Stats() const;

 private:
  Ranks() = default;
  static absl::StatusOr<std::unique_ptr<Ranks>> LoadBeside(const Ranks* other,
                                                           plan::Plan plan,
                                                           uint64_t seed);

  std::unique_ptr<exec::RankGroup> group_;
  std::vector<std::shared_ptr<exec::Communicators>> communicators_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_RANKS_H_
