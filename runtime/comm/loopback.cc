#include "runtime/comm/loopback.h"

#include <condition_variable>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/comm/host_communicator.h"
#include "runtime/comm/reduce.h"

namespace heddle::comm {

class LoopbackGroup {
 public:
  explicit LoopbackGroup(std::vector<int> ranks)
      : ranks_(std::move(ranks)), calls_(ranks_.size()) {}

  const std::vector<int>& ranks() const { return ranks_; }

  // False if the position has been taken before.
  bool Take(int position) {
    std::lock_guard<std::mutex> lock(mutex_);
    return taken_.insert(position).second;
  }
  void Leave(int position);
  void Abort(const absl::Status& why);
  bool Aborted();
  absl::Status Run(int position, absl::Span<const Collective> collectives);

 private:
  struct Call {
    bool present = false;
    absl::Span<const Collective> collectives;
  };

  absl::Status Compare() const;
  int Absent() const;
  absl::Status Work(int position) const;
  absl::Status WorkOne(int position, size_t index) const;

  const std::vector<int> ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> taken_;
  std::vector<int> left_;  // in the order of leaving
  // Written under the mutex until all have come, then read without it by all
  // until the last one is done.
  std::vector<Call> calls_;
  size_t present_ = 0;
  size_t done_ = 0;
  // Odd while the calls are carried out, even while ranks gather.
  uint64_t phase_ = 0;
  absl::Status agreement_;
  absl::Status failure_;
  absl::Status aborted_;
};

namespace {

class LoopbackCommunicator : public HostCommunicator {
 public:
  LoopbackCommunicator(Group group, trace::FlightRecorder* recorder,
                       std::shared_ptr<LoopbackGroup> meeting)
      : HostCommunicator(std::move(group), recorder),
        meeting_(std::move(meeting)) {}
  ~LoopbackCommunicator() override { meeting_->Leave(group().position); }

  void Abort(const absl::Status& why) override {
    Break(why);
    meeting_->Abort(why);
  }

 protected:
  absl::Status RunBlocking(absl::Span<const Collective> collectives) override {
    return meeting_->Run(group().position, collectives);
  }
  bool Aborted() const override { return meeting_->Aborted(); }

 private:
  const std::shared_ptr<LoopbackGroup> meeting_;
};

const char* At(const void* base, int64_t element, plan::DType dtype) {
  return static_cast<const char*>(base) + element * plan::ElementSize(dtype);
}

void Copy(const void* from, int64_t from_element, void* to, int64_t to_element,
          int64_t count, plan::DType dtype) {
  const char* source = At(from, from_element, dtype);
  char* target = const_cast<char*>(At(to, to_element, dtype));
  if (count > 0 && source != target)
    std::memcpy(target, source, count * plan::ElementSize(dtype));
}

}  // namespace

// The rest of the group would wait for ever: they get an error instead.
void LoopbackGroup::Leave(int position) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    left_.push_back(position);
  }
  changed_.notify_all();
}

void LoopbackGroup::Abort(const absl::Status& why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_.ok()) aborted_ = why;
  }
  changed_.notify_all();
}

bool LoopbackGroup::Aborted() {
  std::lock_guard<std::mutex> lock(mutex_);
  return !aborted_.ok();
}

// The first rank that left without taking part in this call, or -1. Others that
// leave after it do so because of it.
int LoopbackGroup::Absent() const {
  for (int position : left_) {
    if (!calls_[position].present) return ranks_[position];
  }
  return -1;
}

absl::Status LoopbackGroup::Run(int position,
                                absl::Span<const Collective> collectives) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!aborted_.ok()) return aborted_;
  if (calls_[position].present)
    return absl::FailedPreconditionError(absl::StrCat(
        "rank ", ranks_[position],
        " is in two collectives of one communicator at once; issue them from "
        "one stream"));
  calls_[position] = {true, collectives};
  const uint64_t working = phase_ + 1;
  if (++present_ == ranks_.size()) {
    agreement_ = Compare();
    failure_ = absl::OkStatus();
    ++phase_;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] {
    return phase_ == working || !aborted_.ok() || Absent() >= 0;
  });
  if (phase_ != working) {
    calls_[position] = {};
    --present_;
    if (!aborted_.ok()) return aborted_;
    return absl::AbortedError(
        absl::StrCat("rank ", Absent(), " has left the run"));
  }
  // From here on others read this rank's memory, and copies end by themselves:
  // an abort has to wait.
  absl::Status status = agreement_;
  if (status.ok()) {
    lock.unlock();
    status = Work(position);
    lock.lock();
    if (!status.ok()) failure_ = status;
  }
  if (++done_ == ranks_.size()) {
    for (Call& call : calls_) call = {};
    present_ = 0;
    done_ = 0;
    ++phase_;
    // A bad count on one rank spoils the call for all.
    if (agreement_.ok()) agreement_ = failure_;
    changed_.notify_all();
  }
  // The next round cannot begin before this rank returns, so neither phase_ nor
  // agreement_ moves on.
  changed_.wait(lock, [&] { return phase_ == working + 1; });
  return agreement_;
}

// Whether the ranks' statements belong together.
absl::Status LoopbackGroup::Compare() const {
  const absl::Span<const Collective> first = calls_[0].collectives;
  for (size_t q = 1; q < calls_.size(); ++q) {
    const absl::Span<const Collective> other = calls_[q].collectives;
    if (other.size() != first.size())
      return absl::InvalidArgumentError(absl::StrCat(
          "rank ", ranks_[0], " issues ", first.size(),
          " collectives in one call and rank ", ranks_[q], " ", other.size()));
    for (size_t i = 0; i < first.size(); ++i) {
      const std::string a = Signature(first[i]);
      const std::string b = Signature(other[i]);
      if (a != b)
        return absl::InvalidArgumentError(
            absl::StrCat("rank ", ranks_[0], " issues ", a, " and rank ",
                         ranks_[q], " ", b));
    }
  }
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i].kind != Kind::kAllToAll) continue;
    for (size_t r = 0; r < calls_.size(); ++r) {
      for (size_t q = 0; q < calls_.size(); ++q) {
        const int64_t sent =
            SendCount(calls_[q].collectives[i], static_cast<int>(r));
        const int64_t expected =
            RecvCount(calls_[r].collectives[i], static_cast<int>(q));
        if (sent != expected)
          return absl::InvalidArgumentError(absl::StrCat(
              "all_to_all: rank ", ranks_[q], " sends ", sent,
              " elements to rank ", ranks_[r], ", which expects ", expected));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status LoopbackGroup::Work(int position) const {
  absl::Status status;
  for (size_t i = 0; i < calls_[position].collectives.size(); ++i) {
    if (absl::Status s = WorkOne(position, i); !s.ok() && status.ok())
      status = s;
  }
  return status;
}

absl::Status LoopbackGroup::WorkOne(int position, size_t index) const {
  const Collective& own = calls_[position].collectives[index];
  const int size = static_cast<int>(ranks_.size());
  const auto of = [&](int q) -> const Collective& {
    return calls_[q].collectives[index];
  };
  switch (own.kind) {
    case Kind::kAllGather:
      for (int q = 0; q < size; ++q)
        Copy(of(q).input, 0, own.output, SlotOffset(own, q), SlotCount(own, q),
             own.dtype);
      return absl::OkStatus();
    case Kind::kBroadcast:
      Copy(of(own.root).input, 0, own.output, 0, own.count, own.dtype);
      return absl::OkStatus();
    case Kind::kAllToAll:
      for (int q = 0; q < size; ++q) {
        int64_t count = RecvCount(own, q);
        if (own.device_recv_counts != nullptr) {
          count = of(q).device_send_counts[position];
          if (count < 0 || count > own.count)
            return absl::InvalidArgumentError(
                absl::StrCat("all_to_all: rank ", ranks_[q], " sends ", count,
                             " elements to rank ", ranks_[position],
                             "; a slot holds ", own.count));
          own.device_recv_counts[q] = count;
        }
        Copy(of(q).input, SendOffset(of(q), position), own.output,
             RecvOffset(own, q), count, own.dtype);
      }
      return absl::OkStatus();
    case Kind::kReduceScatter:
    case Kind::kAllReduce:
    case Kind::kReduce:
      break;
  }
  std::vector<const void*> inputs(size);
  std::vector<void*> outputs;
  int64_t begin = own.count * position / size;
  int64_t end = own.count * (position + 1) / size;
  for (int q = 0; q < size; ++q) {
    inputs[q] = of(q).input;
    if (own.kind == Kind::kAllReduce) outputs.push_back(of(q).output);
  }
  if (own.kind == Kind::kReduce) outputs.push_back(of(own.root).output);
  if (own.kind == Kind::kReduceScatter) {
    begin = 0;
    end = SlotCount(own, position);
    for (const void*& input : inputs)
      input = At(input, SlotOffset(own, position), own.dtype);
    outputs.push_back(own.output);
  }
  ReduceRange(own.dtype, own.reduction, inputs, absl::MakeConstSpan(outputs),
              begin, end);
  return absl::OkStatus();
}

class LoopbackBackend : public Backend {
 public:
  LoopbackBackend(LoopbackWorld* world, int rank,
                  trace::FlightRecorder* recorder)
      : world_(world), rank_(rank), recorder_(recorder) {}
  const char* name() const override { return "loopback"; }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      const Group& group) override {
    if (group.rank() != rank_)
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank_, " connects as rank ", group.rank(),
                       " of group ", group.name));
    absl::StatusOr<std::shared_ptr<LoopbackGroup>> meeting =
        world_->Join(group);
    if (!meeting.ok()) return meeting.status();
    return std::unique_ptr<Communicator>(
        new LoopbackCommunicator(group, recorder_, *std::move(meeting)));
  }

 private:
  LoopbackWorld* const world_;
  const int rank_;
  trace::FlightRecorder* const recorder_;
};

std::unique_ptr<Backend> LoopbackWorld::RankBackend(
    int rank, trace::FlightRecorder* recorder) {
  return std::make_unique<LoopbackBackend>(this, rank, recorder);
}

void LoopbackWorld::Abort(const absl::Status& why) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [name, group] : groups_) group->Abort(why);
}

absl::StatusOr<std::shared_ptr<LoopbackGroup>> LoopbackWorld::Join(
    const Group& group) {
  for (int rank : group.ranks) {
    if (rank < 0 || rank >= size_)
      return absl::InvalidArgumentError(absl::StrCat("group ", group.name,
                                                     " names rank ", rank,
                                                     " in a world of ", size_));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<LoopbackGroup>& meeting = groups_[group.name];
  if (meeting == nullptr)
    meeting = std::make_shared<LoopbackGroup>(group.ranks);
  if (meeting->ranks() != group.ranks)
    return absl::InvalidArgumentError(absl::StrCat(
        "group ", group.name, " is [", absl::StrJoin(group.ranks, ","),
        "] for rank ", group.rank(), " and [",
        absl::StrJoin(meeting->ranks(), ","), "] for another"));
  if (!meeting->Take(group.position))
    return absl::AlreadyExistsError(absl::StrCat("rank ", group.rank(),
                                                 " has connected to group ",
                                                 group.name, " before"));
  return meeting;
}

}  // namespace heddle::comm
