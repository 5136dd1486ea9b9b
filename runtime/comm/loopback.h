// Ranks as threads of one process: collectives through shared memory. A call
// meets the others of its group, each rank does its share (an even slice of a
// reduction, its own output of a copy), and nobody returns before all are done.
// Invariant: no rank reads or writes another's memory after the call of that
// other rank has returned, aborted or not. Any arrival order is fine; ranks
// that issue different collectives all get an error that names both.

#ifndef HEDDLE_RUNTIME_COMM_LOOPBACK_H_
#define HEDDLE_RUNTIME_COMM_LOOPBACK_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/trace/flight_recorder.h"

namespace heddle::comm {

// The meeting place of one group; defined in loopback.cc.
class LoopbackGroup;

// What the ranks of one process share. Outlives nothing: communicators keep
// their meeting places alive.
class LoopbackWorld {
 public:
  explicit LoopbackWorld(int size) : size_(size) {}

  int size() const { return size_; }
  // The backend of one rank. The world outlives it; so does `recorder`, which
  // may be null.
  std::unique_ptr<Backend> RankBackend(
      int rank, trace::FlightRecorder* recorder = nullptr);
  // Ends the collectives of every group and rank.
  void Abort(const absl::Status& why);

 private:
  friend class LoopbackBackend;
  absl::StatusOr<std::shared_ptr<LoopbackGroup>> Join(const Group& group);

  const int size_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<LoopbackGroup>> groups_;
};

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_LOOPBACK_H_
