// One rank among others: its communicators, and what happens when some rank
// dies, stalls or throws. A thread of its own watches the rank's collectives;
// when one makes no progress, or any rank says that it cannot go on, every
// rank posts its flight record, all reach one verdict, write their dumps, and
// end every pending collective with it.
//
// Invariant: every other rank ends within `deadline` of the last progress, with
// the same message. What would break it: ranks with different deadlines, or a
// rank that holds the store's server and dies (see store_host).

#ifndef HEDDLE_RUNTIME_COMM_WORLD_H_
#define HEDDLE_RUNTIME_COMM_WORLD_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/rank_environment.h"
#include "runtime/comm/store.h"
#include "runtime/trace/flight_recorder.h"
#include "runtime/trace/verdict.h"

namespace heddle::comm {

struct WorldOptions {
  absl::Duration deadline = absl::Seconds(60);
  // Collectives that the flight recorder keeps.
  size_t records = 1024;
  // Where dumps go when a run fails; empty for none.
  std::string dump_directory;
  // The rank whose process holds the store's server, or -1 if that is somebody
  // else (torchrun's agent, the process of all ranks).
  int store_host = -1;
  // Called once, on the watchdog's thread, when the verdict is known and the
  // dump is written. Ranks that are processes give ExitProcess.
  std::function<void(const absl::Status&)> on_failure;
  // Called when this rank says that it cannot go on, before there is a verdict.
  std::function<void()> on_raise;
  // The watchdog keeps saying in the store that this process lives, for ranks
  // that wait for something other than a collective (Await).
  bool announce = false;
};

// HEDDLE_DEADLINE (seconds) and HEDDLE_DUMPS (a directory) where `options` says
// nothing else: a deadline of zero, an empty directory. InvalidArgument names
// the variable.
[[nodiscard]] absl::Status FillFromEnvironment(const Environment& get,
                                               WorldOptions* options);

// Prints the message to stderr and ends the process with exit code 2.
void ExitProcess(const absl::Status& why);

// What all ranks must have in common before the first collective: the plan's
// text, the world, the configuration.
struct Identity {
  std::string text;  // lines
};

class World {
 public:
  using MakeBackend = std::function<absl::StatusOr<std::unique_ptr<Backend>>(
      trace::FlightRecorder* recorder)>;

  static absl::StatusOr<std::unique_ptr<World>> Create(
      int rank, int size, std::shared_ptr<Store> store,
      const MakeBackend& make_backend, WorldOptions options);
  // Leaves in good order: waits for nobody unless it holds the store.
  ~World();

  int rank() const { return rank_; }
  int size() const { return size_; }
  trace::FlightRecorder& recorder() { return recorder_; }

  // Every rank of the group calls this, for its groups in one global order. The
  // world owns the communicator; who asks for a name again gets the same one.
  // `backend`: one of AddBackend's, or null for the world's own.
  [[nodiscard]] absl::StatusOr<Communicator*> Connect(
      std::string name, std::vector<int> ranks, Backend* backend = nullptr);
  // Another transport under the same watchdog.
  [[nodiscard]] absl::StatusOr<Backend*> AddBackend(
      const MakeBackend& make_backend);

  // Compares `identity` with every other rank's. FailedPrecondition, the same
  // on all, names the first rank that differs from rank 0 and the line.
  [[nodiscard]] absl::Status Agree(const Identity& identity);

  // This rank cannot go on. If it is the first to say so, `why` becomes the
  // cause that all ranks report; returns the verdict. Also the way to turn an
  // error of a collective into the verdict.
  [[nodiscard]] absl::Status Fail(const absl::Status& why);

  // A value for every other rank, under a key that is used once.
  [[nodiscard]] absl::Status Publish(const std::string& key,
                                     const std::string& value);
  // The value that rank `from` publishes. Waits for as long as that rank's
  // process gives signs of life (`announce`): what it does may take its time.
  [[nodiscard]] absl::StatusOr<std::string> Await(const std::string& key,
                                                  int from);

  // Makes the watchdog look at once: another rank of this process has failed.
  void Wake();
  // Says that this rank has ended in good order, and keeps the store that it
  // may hold until the others have. The destructor does so too; a process that
  // never destroys its world calls it before it exits.
  void Leave();

  // OK, or the verdict.
  [[nodiscard]] absl::Status status() const;
  // What the verdict is made of; kNothing before there is one.
  trace::Verdict verdict() const;

 private:
  World(int rank, int size, std::shared_ptr<Store> store, WorldOptions options);
  void Watch();
  bool Stalled() const;
  void Raise(const std::string& reason);
  void Conclude();
  // Gives this rank's flight record to the others; a copy of it to `posted`.
  absl::Status PostDump(trace::Dump* posted = nullptr);
  std::map<int, trace::Dump> CollectDumps(bool& store_gone);
  void AwaitOthers(const std::map<int, trace::Dump>& dumps);

  const int rank_;
  const int size_;
  const std::shared_ptr<Store> store_;
  const WorldOptions options_;
  const absl::Duration grace_;
  const absl::Duration tick_;
  trace::FlightRecorder recorder_;
  std::vector<std::unique_ptr<Backend>> backends_;
  int agreements_ = 0;
  uint64_t signs_of_life_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
  bool stopping_ = false;
  bool raised_ = false;
  bool woken_ = false;
  bool left_ = false;
  bool concluded_ = false;
  absl::Status status_;
  trace::Verdict verdict_;
  std::thread watchdog_;
};

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_WORLD_H_
