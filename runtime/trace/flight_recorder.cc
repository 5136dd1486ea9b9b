#include "runtime/trace/flight_recorder.h"

#include <utility>

namespace heddle::trace {
namespace {

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool Ended(State state) {
  return state == State::kFinished || state == State::kFailed;
}

}  // namespace

Dump Recent(Dump dump, size_t count) {
  std::vector<Record> kept;
  for (size_t i = 0; i < dump.records.size(); ++i) {
    Record& record = dump.records[i];
    if (record.state != State::kFinished || i + count >= dump.records.size())
      kept.push_back(std::move(record));
  }
  dump.records = std::move(kept);
  return dump;
}

FlightRecorder::FlightRecorder(int rank, int world, size_t capacity)
    : capacity_(capacity) {
  dump_.rank = rank;
  dump_.world = world;
}

void FlightRecorder::AddGroup(const std::string& name,
                              const std::vector<int>& ranks) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (GroupRecord* group = FindGroup(name); group != nullptr)
    group->ranks = ranks;
  else
    dump_.groups.push_back({name, ranks});
}

uint64_t FlightRecorder::Enqueued(Record record) {
  std::lock_guard<std::mutex> lock(mutex_);
  GroupRecord* group = FindGroup(record.group);
  if (group == nullptr) {
    dump_.groups.push_back({record.group, {}});
    group = &dump_.groups.back();
  }
  record.sequence = ++group->issued;
  record.state = State::kEnqueued;
  record.enqueued_ns = Now();
  records_.push_back(std::move(record));
  ++pending_;
  last_progress_ = Clock::now();
  while (records_.size() > capacity_ && Ended(records_.front().state)) {
    records_.pop_front();
    ++first_;
  }
  return first_ + records_.size() - 1;
}

void FlightRecorder::Started(uint64_t ticket) {
  std::lock_guard<std::mutex> lock(mutex_);
  Record* record = Find(ticket);
  if (record == nullptr || record->state != State::kEnqueued) return;
  record->state = State::kStarted;
  record->started_ns = Now();
  ++FindGroup(record->group)->started;
  last_progress_ = Clock::now();
}

void FlightRecorder::Finished(uint64_t ticket) {
  End(ticket, State::kFinished, "");
}

void FlightRecorder::Failed(uint64_t ticket, const std::string& error) {
  End(ticket, State::kFailed, error);
}

void FlightRecorder::End(uint64_t ticket, State state,
                         const std::string& error) {
  std::lock_guard<std::mutex> lock(mutex_);
  Record* record = Find(ticket);
  if (record == nullptr || Ended(record->state)) return;
  GroupRecord* group = FindGroup(record->group);
  if (state == State::kFinished && record->state == State::kEnqueued)
    ++group->started;
  record->state = state;
  record->error = error;
  record->finished_ns = Now();
  --pending_;
  if (state == State::kFinished)
    ++group->finished;
  else
    failed_ = true;
  last_progress_ = Clock::now();
}

void FlightRecorder::SetBackend(const std::string& backend) {
  std::lock_guard<std::mutex> lock(mutex_);
  dump_.backend = backend;
}

void FlightRecorder::SetFailure(const std::string& failure) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (dump_.failure.empty()) dump_.failure = failure;
}

void FlightRecorder::SetLeft() {
  std::lock_guard<std::mutex> lock(mutex_);
  dump_.left = true;
}

bool FlightRecorder::pending() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pending_ > 0;
}

bool FlightRecorder::failed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failed_;
}

FlightRecorder::Clock::time_point FlightRecorder::last_progress() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_progress_;
}

Dump FlightRecorder::Snapshot() const {
  std::lock_guard<std::mutex> lock(mutex_);
  Dump dump = dump_;
  dump.written_ns = Now();
  dump.records.assign(records_.begin(), records_.end());
  return dump;
}

Record* FlightRecorder::Find(uint64_t ticket) {
  if (ticket < first_ || ticket >= first_ + records_.size()) return nullptr;
  return &records_[ticket - first_];
}

GroupRecord* FlightRecorder::FindGroup(const std::string& name) {
  for (GroupRecord& group : dump_.groups) {
    if (group.name == name) return &group;
  }
  return nullptr;
}

}  // namespace heddle::trace
