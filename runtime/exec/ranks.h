// The ranks of a plan that this process runs: all of them, a thread each, or
// one among those of other processes. Invariant: Run returns when every rank
// here is done, or when the ranks have a verdict: a rank that fails or stalls
// in work that meets ends the others within the deadline. What would break it:
// work that waits for another rank by any other means than a collective.

#ifndef HEDDLE_RUNTIME_EXEC_RANKS_H_
#define HEDDLE_RUNTIME_EXEC_RANKS_H_

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/loopback.h"
#include "runtime/comm/store.h"
#include "runtime/comm/world.h"

namespace heddle::exec {

class RankGroup {
 public:
  // Keeps alive what it uses: a thread that stalls may still be in it when the
  // group is gone.
  using Work = std::function<absl::Status(int rank)>;

  // All ranks of this process. One rank runs on the caller's thread; several
  // have a thread each, which lives as long as the group.
  static std::shared_ptr<RankGroup> OfThreads(int size,
                                              comm::WorldOptions options);
  // The one rank that is this process.
  static std::shared_ptr<RankGroup> OfProcess(
      std::shared_ptr<comm::World> world);
  ~RankGroup();

  int size() const { return size_; }
  // The ranks here are first() to first() + local() - 1.
  int first() const { return first_; }
  int local() const { return local_; }
  // A rank of this process among the others: how its communicators are made.
  // Its watchdog starts with the first call.
  absl::StatusOr<std::shared_ptr<comm::World>> World(int rank);

  // Runs `work` for all ranks here at once and returns when it has ended on
  // each: OK, or the first failure with its rank. `meet` says that the work has
  // collectives: a failure then ends those of all ranks, every rank gets the
  // verdict, and the group is good for nothing more. The floating-point
  // environment (rounding, denormals) is the caller's.
  [[nodiscard]] absl::Status Run(const Work& work, bool meet);

  // OK, or the verdict that ended the group.
  absl::Status broken() const { return broken_; }
  // True if a thread was left behind in work that does not end; it may still
  // write what the work refers to.
  bool stalled() const { return stalled_; }

 private:
  class Threads;
  // What a thread that is left behind goes on using.
  struct Meeting {
    explicit Meeting(int size)
        : loopback(size), store(comm::CreateProcessStore()), worlds(size) {}
    comm::LoopbackWorld loopback;
    std::shared_ptr<comm::Store> store;
    std::mutex mutex;
    std::vector<std::shared_ptr<comm::World>> worlds;
  };

  RankGroup(int size, int first, int local, comm::WorldOptions options);
  absl::Status RunThreads(const Work& work, bool meet);
  absl::Duration Patience() const;

  const int size_;
  const int first_;
  const int local_;
  const comm::WorldOptions options_;
  const std::shared_ptr<Meeting> meeting_;
  absl::Status broken_;
  bool stalled_ = false;
  std::unique_ptr<Threads> threads_;
};

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_RANKS_H_
