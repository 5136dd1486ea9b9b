// The last collectives of one rank: what was issued, how far it got, where in
// the model it comes from. Invariant: a collective that has not ended is never
// dropped, however many came after it; of those that have, the newest
// `capacity` stay. Thread-safe; nothing here blocks on another rank.

#ifndef HEDDLE_RUNTIME_TRACE_FLIGHT_RECORDER_H_
#define HEDDLE_RUNTIME_TRACE_FLIGHT_RECORDER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace heddle::trace {

// Enqueued: given to a stream. Started: this rank takes part. Failed: ended by
// an error of the transport or by an abort.
enum class State : int8_t { kEnqueued, kStarted, kFinished, kFailed };

struct Record {
  std::string group;
  int64_t sequence = 0;  // within the group, from 1
  // What all ranks must agree on, e.g. "all_gather bf16 4096".
  std::string signature;
  int64_t bytes = 0;
  std::string op;
  std::string module;
  std::string source;
  State state = State::kEnqueued;
  std::string error;
  // Nanoseconds since 1970; 0 for what has not happened.
  int64_t enqueued_ns = 0;
  int64_t started_ns = 0;
  int64_t finished_ns = 0;
};

struct GroupRecord {
  std::string name;
  std::vector<int> ranks;
  int64_t issued = 0;    // sequence number of the last one, 0 before the first
  int64_t started = 0;   // how many this rank has begun to take part in
  int64_t finished = 0;  // how many have ended well
};

// What one rank knows: the content of a dump.
struct Dump {
  int rank = 0;
  int world = 1;
  std::string backend;
  int64_t written_ns = 0;
  // Why this rank itself cannot go on, apart from its collectives; else empty.
  std::string failure;
  // What the ranks concluded together, if they did.
  std::string verdict;
  // The rank ended its run in good order.
  bool left = false;
  std::vector<GroupRecord> groups;
  std::vector<Record> records;
};

// The dump with only the newest `count` of its finished records.
Dump Recent(Dump dump, size_t count);

class FlightRecorder {
 public:
  using Clock = std::chrono::steady_clock;

  FlightRecorder(int rank, int world, size_t capacity = 1024);

  void AddGroup(const std::string& name, const std::vector<int>& ranks);

  // A collective begins: its sequence number is given here. Returns its ticket.
  uint64_t Enqueued(Record record);
  void Started(uint64_t ticket);
  void Finished(uint64_t ticket);
  void Failed(uint64_t ticket, const std::string& error);

  void SetBackend(const std::string& backend);
  void SetFailure(const std::string& failure);
  void SetLeft();

  // True while a collective has neither finished nor failed.
  bool pending() const;
  bool failed() const;
  // When a collective was last issued, started or finished.
  Clock::time_point last_progress() const;

  Dump Snapshot() const;

 private:
  Record* Find(uint64_t ticket);
  GroupRecord* FindGroup(const std::string& name);
  void End(uint64_t ticket, State state, const std::string& error);

  const size_t capacity_;
  mutable std::mutex mutex_;
  Dump dump_;                   // records apart
  std::deque<Record> records_;  // ticket first_ + i
  uint64_t first_ = 1;
  int64_t pending_ = 0;
  bool failed_ = false;
  Clock::time_point last_progress_ = Clock::now();
};

}  // namespace heddle::trace

#endif  // HEDDLE_RUNTIME_TRACE_FLIGHT_RECORDER_H_
