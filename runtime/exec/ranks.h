// The ranks of a plan as threads of this process. Invariant: Run returns when
// every rank is done, and a rank that fails ends the others: none is left
// waiting in a collective. What would break it: work that waits for another
// rank by any other means than a collective.

#ifndef HEDDLE_RUNTIME_EXEC_RANKS_H_
#define HEDDLE_RUNTIME_EXEC_RANKS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/loopback.h"

namespace heddle::exec {

class RankGroup {
 public:
  using Work = std::function<absl::Status(int rank)>;

  // One rank runs on the caller's thread; several have a thread each, which
  // lives as long as the group.
  explicit RankGroup(int size);
  ~RankGroup();

  int size() const { return size_; }
  // How the rank connects to the others.
  comm::Backend& backend(int rank) { return *backends_[rank]; }

  // Runs `work` for all ranks at once and returns when it has ended on each:
  // OK, or the first failure with its rank. `meet` says that the work has
  // collectives: a failure then ends those of all ranks, and the group is good
  // for nothing more. The floating-point environment (rounding, denormals) is
  // the caller's.
  [[nodiscard]] absl::Status Run(const Work& work, bool meet);

 private:
  class Threads;

  const int size_;
  comm::LoopbackWorld world_;
  std::vector<std::unique_ptr<comm::Backend>> backends_;
  absl::Status broken_;
  std::unique_ptr<Threads> threads_;
};

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_RANKS_H_
