#include "runtime/comm/nccl/nccl_communicator.h"

#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/comm/host_communicator.h"

namespace heddle::comm::nccl {
namespace {

// Collectives in flight before Issue itself looks which have ended: bounds the
// number of marks between two calls of Poll.
constexpr size_t kInFlight = 256;

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(Group group, std::shared_ptr<NcclApi> api,
                   NcclApi::Comm comm, int device_index,
                   trace::FlightRecorder* recorder)
      : Communicator(std::move(group)),
        api_(std::move(api)),
        comm_(comm),
        device_index_(device_index),
        recorder_(recorder) {
    if (recorder_ != nullptr)
      recorder_->AddGroup(this->group().name, this->group().ranks);
  }
  ~NcclCommunicator() override {
    std::lock_guard<std::mutex> lock(state_mutex_);
    if (!ended_) api_->CommDestroy(comm_);
  }

  using Communicator::Issue;
  absl::Status Issue(absl::Span<const Collective> collectives,
                     device::Stream* stream) override;
  void Abort(const absl::Status& why) override;
  // Asks NCCL as well: a stream whose collective failed runs on, so who has
  // waited for the stream learns of it here.
  absl::Status status() override {
    TryPoll();
    return Known();
  }
  // The watchdog's thread, whose questions would otherwise wake the first GPU.
  void Poll() override {
    thread_local int bound = -1;
    if (bound != device_index_ && api_->SetDevice(device_index_) == 0)
      bound = device_index_;
    TryPoll();
  }
  absl::Status BeginGraph(const std::string& what, const Origin& origin,
                          device::Stream& stream) override;
  absl::Status EndGraph(device::Stream& stream) override;

 private:
  struct InFlight {
    uint64_t ticket = 0;
    std::unique_ptr<Mark> begin;
    std::unique_ptr<Mark> end;
    bool started = false;
  };

  absl::Status Explain(int code, const char* what) const {
    return absl::UnavailableError(absl::StrCat("NCCL ", what, " on group ",
                                               group().name, ": ",
                                               api_->ErrorText(code, comm_)));
  }
  absl::Status Known() const {
    std::lock_guard<std::mutex> lock(state_mutex_);
    return status_;
  }
  // False if the communicator has failed.
  bool Healthy();
  // Makes `why` the status unless there is one; returns the status.
  absl::Status Break(const absl::Status& why) {
    std::lock_guard<std::mutex> lock(state_mutex_);
    if (status_.ok()) status_ = why;
    return status_;
  }
  void PollLocked();
  absl::Status Enqueue(absl::Span<const Collective> collectives,
                       device::Stream& stream);
  int Call(const Collective& c, device::Stream& stream);
  int Slots(const Collective& c, device::Stream& stream);
  int Swap(const Collective& c, device::Stream& stream);
  absl::StatusOr<std::unique_ptr<Mark>> TakeMark();
  // Must not wait for an Issue that NCCL keeps from returning.
  void TryPoll() {
    std::unique_lock<std::mutex> lock(issue_mutex_, std::try_to_lock);
    if (lock.owns_lock()) PollLocked();
  }
  // The two halves of a record's life in a stream.
  absl::Status Begin(trace::Record record, device::Stream& stream,
                     InFlight& flight);
  absl::Status End(absl::Status status, device::Stream& stream,
                   InFlight flight);

  const std::shared_ptr<NcclApi> api_;
  const NcclApi::Comm comm_;
  const int device_index_;
  trace::FlightRecorder* const recorder_;
  mutable std::mutex state_mutex_;
  absl::Status status_;
  bool ended_ = false;  // comm_ has been given back
  // Held while NCCL is called, and for what is below; taken first.
  std::mutex issue_mutex_;
  std::deque<InFlight> in_flight_;
  InFlight graph_;  // between BeginGraph and EndGraph
  std::vector<std::unique_ptr<Mark>> free_marks_;
};

const char* At(const void* base, int64_t bytes) {
  return static_cast<const char*>(base) + bytes;
}

char* At(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

absl::StatusOr<std::unique_ptr<Mark>> NcclCommunicator::TakeMark() {
  if (free_marks_.empty()) return api_->CreateMark();
  std::unique_ptr<Mark> mark = std::move(free_marks_.back());
  free_marks_.pop_back();
  return mark;
}

bool NcclCommunicator::Healthy() {
  std::lock_guard<std::mutex> lock(state_mutex_);
  if (ended_ || !status_.ok()) return false;
  int error = 0;
  const int code = api_->AsyncError(comm_, &error);
  if (code == 0 && error == 0) return true;
  status_ = Explain(code != 0 ? code : error, "reports an error");
  if (!in_flight_.empty())
    recorder_->Failed(in_flight_.front().ticket,
                      std::string(status_.message()));
  return false;
}

void NcclCommunicator::PollLocked() {
  // In stream order: one that has not ended hides those behind it.
  while (!in_flight_.empty()) {
    InFlight& first = in_flight_.front();
    if (!first.started && first.begin->Passed()) {
      first.started = true;
      recorder_->Started(first.ticket);
    }
    // The marks first: an error that made the stream go on is then seen.
    if (!first.started || !first.end->Passed() || !Healthy()) break;
    recorder_->Finished(first.ticket);
    free_marks_.push_back(std::move(first.begin));
    free_marks_.push_back(std::move(first.end));
    in_flight_.pop_front();
  }
  (void)Healthy();
}

absl::Status NcclCommunicator::Issue(absl::Span<const Collective> collectives,
                                     device::Stream* stream) {
  if (absl::Status s = ValidateAll(collectives, group()); !s.ok()) return s;
  if (stream == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat("group ", group().name,
                     " runs over NCCL, which needs a "
                     "stream"));
  std::lock_guard<std::mutex> lock(issue_mutex_);
  if (absl::Status s = Known(); !s.ok()) return s;
  if (recorder_ == nullptr || api_->Capturing(*stream)) {
    const absl::Status s = Enqueue(collectives, *stream);
    return s.ok() ? s : Break(s);
  }
  InFlight flight;
  absl::Status status = Begin(RecordOf(collectives, group()), *stream, flight);
  if (status.ok()) status = Enqueue(collectives, *stream);
  return End(status, *stream, std::move(flight));
}

absl::Status NcclCommunicator::Begin(trace::Record record,
                                     device::Stream& stream, InFlight& flight) {
  if (in_flight_.size() >= kInFlight) PollLocked();
  for (std::unique_ptr<Mark>* mark : {&flight.begin, &flight.end}) {
    absl::StatusOr<std::unique_ptr<Mark>> taken = TakeMark();
    if (!taken.ok()) return taken.status();
    *mark = *std::move(taken);
  }
  flight.ticket = recorder_->Enqueued(std::move(record));
  const int code = flight.begin->Record(stream);
  return code == 0 ? absl::OkStatus() : Explain(code, "cannot mark the stream");
}

absl::Status NcclCommunicator::End(absl::Status status, device::Stream& stream,
                                   InFlight flight) {
  if (status.ok()) {
    const int code = flight.end->Record(stream);
    if (code != 0) status = Explain(code, "cannot mark the stream");
  }
  if (!status.ok()) {
    if (flight.ticket != 0)
      recorder_->Failed(flight.ticket, std::string(status.message()));
    return Break(status);
  }
  in_flight_.push_back(std::move(flight));
  return absl::OkStatus();
}

absl::Status NcclCommunicator::BeginGraph(const std::string& what,
                                          const Origin& origin,
                                          device::Stream& stream) {
  if (recorder_ == nullptr) return absl::OkStatus();
  std::lock_guard<std::mutex> lock(issue_mutex_);
  if (absl::Status s = Known(); !s.ok()) return s;
  trace::Record record;
  record.group = group().name;
  record.signature = what;
  record.op = origin.op;
  record.module = origin.module;
  record.source = origin.source;
  graph_ = InFlight();
  const absl::Status status = Begin(std::move(record), stream, graph_);
  return status.ok() ? status : Break(status);
}

absl::Status NcclCommunicator::EndGraph(device::Stream& stream) {
  if (recorder_ == nullptr) return absl::OkStatus();
  std::lock_guard<std::mutex> lock(issue_mutex_);
  return End(absl::OkStatus(), stream, std::move(graph_));
}

absl::Status NcclCommunicator::Enqueue(absl::Span<const Collective> collectives,
                                       device::Stream& stream) {
  int code = api_->GroupStart();
  if (code != 0) return Explain(code, "group start");
  absl::Status status;
  for (const Collective& c : collectives) {
    code = Call(c, stream);
    if (code == 0) continue;
    status = Explain(code, KindName(c.kind));
    break;
  }
  code = api_->GroupEnd();
  if (status.ok() && code != 0)
    status = Explain(code, KindName(collectives[0].kind));
  return status;
}

int NcclCommunicator::Call(const Collective& c, device::Stream& stream) {
  const int64_t bytes = c.count * plan::ElementSize(c.dtype);
  if (!c.counts.empty()) return Slots(c, stream);
  if (c.kind == Kind::kAllToAll) return Swap(c, stream);
  if (bytes == 0) return 0;
  switch (c.kind) {
    case Kind::kAllGather:
      return api_->AllGather(c.input, c.output, bytes, comm_, stream);
    case Kind::kBroadcast:
      return api_->Broadcast(c.input, c.output, bytes, c.root, comm_, stream);
    case Kind::kReduceScatter:
      return api_->ReduceScatter(c.input, c.output, c.count, c.dtype,
                                 c.reduction, comm_, stream);
    case Kind::kAllReduce:
      return api_->AllReduce(c.input, c.output, c.count, c.dtype, c.reduction,
                             comm_, stream);
    case Kind::kReduce:
      return api_->Reduce(c.input, c.output, c.count, c.dtype, c.reduction,
                          c.root, comm_, stream);
    case Kind::kAllToAll:
      break;
  }
  return 0;
}

// NCCL's gather and scatter know one size only: uneven ones are a broadcast or
// a reduction for each position.
int NcclCommunicator::Slots(const Collective& c, device::Stream& stream) {
  const int64_t element = plan::ElementSize(c.dtype);
  for (int q = 0; q < group().size(); ++q) {
    const int64_t count = SlotCount(c, q);
    const int64_t offset = SlotOffset(c, q) * element;
    if (count == 0) continue;
    const bool own = q == group().position;
    const int code =
        c.kind == Kind::kAllGather
            ? api_->Broadcast(own ? c.input : nullptr, At(c.output, offset),
                              count * element, q, comm_, stream)
            : api_->Reduce(At(c.input, offset), own ? c.output : nullptr, count,
                           c.dtype, c.reduction, q, comm_, stream);
    if (code != 0) return code;
  }
  return 0;
}

// With device counts whole slots travel, so that no size depends on data; the
// counts travel beside them.
int NcclCommunicator::Swap(const Collective& c, device::Stream& stream) {
  const int64_t element = plan::ElementSize(c.dtype);
  const auto move = [&](const void* from, int64_t sent, void* to,
                        int64_t received, int peer) {
    int code = 0;
    if (sent > 0) code = api_->Send(from, sent, peer, comm_, stream);
    if (code == 0 && received > 0)
      code = api_->Recv(to, received, peer, comm_, stream);
    return code;
  };
  for (int q = 0; q < group().size(); ++q) {
    int code = move(
        At(c.input, SendOffset(c, q) * element), SendCount(c, q) * element,
        At(c.output, RecvOffset(c, q) * element), RecvCount(c, q) * element, q);
    if (code == 0 && c.device_send_counts != nullptr)
      code = move(c.device_send_counts + q, sizeof(int64_t),
                  c.device_recv_counts + q, sizeof(int64_t), q);
    if (code != 0) return code;
  }
  return 0;
}

void NcclCommunicator::Abort(const absl::Status& why) {
  std::lock_guard<std::mutex> lock(state_mutex_);
  if (status_.ok()) status_ = why;
  if (ended_) return;
  ended_ = true;
  api_->CommAbort(comm_);
}

class NcclBackend : public Backend {
 public:
  NcclBackend(std::shared_ptr<NcclApi> api, std::shared_ptr<Store> store,
              int device_index, absl::Duration timeout,
              trace::FlightRecorder* recorder)
      : api_(std::move(api)),
        store_(std::move(store)),
        device_index_(device_index),
        timeout_(timeout),
        recorder_(recorder) {}
  const char* name() const override { return "nccl"; }

  absl::StatusOr<std::unique_ptr<Communicator>> Connect(
      const Group& group) override {
    const auto failed = [&](int code, const char* what) {
      return absl::UnavailableError(absl::StrCat(
          "rank ", group.rank(), " cannot connect to group ", group.name,
          ": NCCL ", what, ": ", api_->ErrorText(code, nullptr)));
    };
    if (const int code = api_->SetDevice(device_index_); code != 0)
      return failed(code, "device");
    UniqueId id;
    const std::string key = absl::StrCat("nccl/", group.name);
    // The size travels with the id: NCCL would wait for ever for ranks that
    // another rank does not count.
    const std::string size = absl::StrCat(group.size(), ":");
    if (group.position == 0) {
      if (const int code = api_->GetUniqueId(&id); code != 0)
        return failed(code, "id");
      if (absl::Status s =
              store_->Set(key, size + std::string(id.bytes, sizeof id.bytes));
          !s.ok())
        return s;
    } else {
      absl::StatusOr<std::string> text = store_->Get(key, timeout_);
      if (!text.ok()) return text.status();
      if (text->size() != size.size() + sizeof id.bytes ||
          text->compare(0, size.size(), size) != 0)
        return absl::FailedPreconditionError(absl::StrCat(
            "group ", group.name, " has ", group.size(), " ranks on rank ",
            group.rank(), " and ", text->substr(0, text->find(':')),
            " on rank ", group.ranks[0]));
      std::memcpy(id.bytes, text->data() + size.size(), sizeof id.bytes);
    }
    NcclApi::Comm comm = nullptr;
    if (const int code =
            api_->CommInit(&comm, group.size(), id, group.position);
        code != 0)
      return failed(code, "init");
    return std::unique_ptr<Communicator>(
        new NcclCommunicator(group, api_, comm, device_index_, recorder_));
  }

 private:
  const std::shared_ptr<NcclApi> api_;
  const std::shared_ptr<Store> store_;
  const int device_index_;
  const absl::Duration timeout_;
  trace::FlightRecorder* const recorder_;
};

}  // namespace

std::unique_ptr<Backend> CreateNcclBackend(std::shared_ptr<NcclApi> api,
                                           std::shared_ptr<Store> store,
                                           int device_index,
                                           absl::Duration timeout,
                                           trace::FlightRecorder* recorder) {
  return std::make_unique<NcclBackend>(std::move(api), std::move(store),
                                       device_index, timeout, recorder);
}

}  // namespace heddle::comm::nccl
