#include "tests/conformance/fake_nccl.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heddle::comm::conformance {
namespace {

constexpr int kUnhandledSystemError = 2;
constexpr int kInvalidUsage = 5;

struct Message {
  const void* address;
  size_t bytes;
  int peer;
};

class FakeComm {
 public:
  FakeComm(std::unique_ptr<Communicator> meeting)
      : meeting_(std::move(meeting)) {}

  int size() const { return meeting_->group().size(); }
  int position() const { return meeting_->group().position; }

  // One group of calls, on the stream's thread. Sends and receives go through
  // tables of addresses that the ranks show each other.
  void Run(const std::vector<Collective>& collectives,
           const std::vector<Message>& sends,
           const std::vector<Message>& receives, bool hang) {
    if (hang) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return aborted_; });
      return;
    }
    for (const Collective& c : collectives) {
      if (!Check(meeting_->Issue(c, nullptr))) return;
    }
    if (sends.empty() && receives.empty()) return;
    const std::vector<Message>* own = &sends;
    std::vector<const std::vector<Message>*> tables(size());
    if (!Check(meeting_->Issue(
            comm::AllGather(&own, tables.data(), 1, plan::DType::kI64),
            nullptr)))
      return;
    std::map<int, size_t> next;
    for (const Message& to : receives) {
      size_t& i = next[to.peer];
      const std::vector<Message>& from = *tables[to.peer];
      while (i < from.size() && from[i].peer != position()) ++i;
      if (i == from.size() || from[i].bytes != to.bytes) {
        error_ = kInvalidUsage;
        break;
      }
      std::memcpy(const_cast<void*>(to.address), from[i].address, to.bytes);
      ++i;
    }
    int64_t in = 0, out = 0;
    Check(meeting_->Issue(comm::AllReduce(&in, &out, 1, plan::DType::kI64),
                          nullptr));
  }
  void Abort() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      aborted_ = true;
    }
    changed_.notify_all();
    meeting_->Abort(absl::CancelledError("the communicator was aborted"));
  }
  int error() const { return error_; }
  void set_error(int error) { error_ = error; }

 private:
  bool Check(const absl::Status& status) {
    if (!status.ok()) error_ = kUnhandledSystemError;
    return status.ok();
  }

  const std::unique_ptr<Communicator> meeting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;
  std::atomic<int> error_{0};
};

class FakeMark : public nccl::Mark {
 public:
  int Record(device::Stream& stream) override {
    *passed_ = false;
    stream.Enqueue([passed = passed_] { *passed = true; });
    return 0;
  }
  bool Passed() override { return *passed_; }

 private:
  // The stream may get to it after the mark is gone.
  const std::shared_ptr<std::atomic<bool>> passed_ =
      std::make_shared<std::atomic<bool>>(true);
};

class FakeNcclLibrary : public FakeNccl {
 public:
  explicit FakeNcclLibrary(std::shared_ptr<FakeNcclWorld> world)
      : world_(std::move(world)) {}

  void Inject(Fault fault) override { fault_ = fault; }
  std::string ErrorText(int code, Comm) override {
    return code == kUnhandledSystemError ? "unhandled system error"
                                         : absl::StrCat("error ", code);
  }
  int GetUniqueId(nccl::UniqueId* id) override {
    static std::atomic<uint64_t> next{1};
    std::memset(id->bytes, 0, sizeof id->bytes);
    const uint64_t number = next++;
    std::memcpy(id->bytes, &number, sizeof number);
    return 0;
  }
  int SetDevice(int) override { return 0; }
  int CommInit(Comm* comm, int size, const nccl::UniqueId& id,
               int rank) override {
    uint64_t number;
    std::memcpy(&number, id.bytes, sizeof number);
    Group group;
    group.name = absl::StrCat("id", number);
    // The fake knows positions only, so its group is that of the positions.
    for (int i = 0; i < size; ++i) group.ranks.push_back(i);
    group.position = rank;
    auto meeting = world_->loopback().RankBackend(rank)->Connect(group);
    if (!meeting.ok()) return kInvalidUsage;
    comms_.push_back(std::make_shared<FakeComm>(*std::move(meeting)));
    *comm = comms_.back().get();
    return 0;
  }
  int CommDestroy(Comm) override { return 0; }
  int CommAbort(Comm comm) override {
    Of(comm).Abort();
    return 0;
  }
  int AsyncError(Comm comm, int* error) override {
    *error = Of(comm).error();
    return 0;
  }
  int GroupStart() override {
    grouped_ = true;
    return 0;
  }
  int GroupEnd() override {
    grouped_ = false;
    const bool fails = fault_ == Fault::kCall && comm_ != nullptr;
    if (!fails) Flush();
    collectives_.clear();
    sends_.clear();
    receives_.clear();
    comm_ = nullptr;
    return fails ? kUnhandledSystemError : 0;
  }
  int AllGather(const void* input, void* output, size_t bytes, Comm comm,
                device::Stream& stream) override {
    return Add(comm::AllGather(input, output, bytes, plan::DType::kU8), comm,
               stream);
  }
  int Broadcast(const void* input, void* output, size_t bytes, int root,
                Comm comm, device::Stream& stream) override {
    return Add(comm::Broadcast(input, output, bytes, plan::DType::kU8, root),
               comm, stream);
  }
  int Send(const void* input, size_t bytes, int peer, Comm comm,
           device::Stream& stream) override {
    sends_.push_back({input, bytes, peer});
    return Touch(comm, stream);
  }
  int Recv(void* output, size_t bytes, int peer, Comm comm,
           device::Stream& stream) override {
    receives_.push_back({output, bytes, peer});
    return Touch(comm, stream);
  }
  int ReduceScatter(const void* input, void* output, size_t count,
                    plan::DType dtype, Reduction reduction, Comm comm,
                    device::Stream& stream) override {
    return Add(comm::ReduceScatter(input, output, count, dtype, reduction),
               comm, stream);
  }
  int AllReduce(const void* input, void* output, size_t count,
                plan::DType dtype, Reduction reduction, Comm comm,
                device::Stream& stream) override {
    return Add(comm::AllReduce(input, output, count, dtype, reduction), comm,
               stream);
  }
  int Reduce(const void* input, void* output, size_t count, plan::DType dtype,
             Reduction reduction, int root, Comm comm,
             device::Stream& stream) override {
    return Add(comm::Reduce(input, output, count, dtype, root, reduction), comm,
               stream);
  }
  bool Capturing(device::Stream&) override { return false; }
  absl::StatusOr<std::unique_ptr<nccl::Mark>> CreateMark() override {
    return std::unique_ptr<nccl::Mark>(new FakeMark());
  }

 private:
  static FakeComm& Of(Comm comm) { return *static_cast<FakeComm*>(comm); }
  int Touch(Comm comm, device::Stream& stream) {
    comm_ = &Of(comm);
    stream_ = &stream;
    return grouped_ ? 0 : kInvalidUsage;
  }
  int Add(Collective c, Comm comm, device::Stream& stream) {
    collectives_.push_back(std::move(c));
    return Touch(comm, stream);
  }
  void Flush() {
    if (comm_ == nullptr) return;
    std::shared_ptr<FakeComm> comm;
    for (const auto& known : comms_) {
      if (known.get() == comm_) comm = known;
    }
    const bool hang = fault_ == Fault::kHang || fault_ == Fault::kAsync;
    if (fault_ == Fault::kAsync) comm->set_error(kUnhandledSystemError);
    stream_->Enqueue([comm, hang, collectives = std::move(collectives_),
                      sends = std::move(sends_),
                      receives = std::move(receives_)] {
      comm->Run(collectives, sends, receives, hang);
    });
  }

  const std::shared_ptr<FakeNcclWorld> world_;
  std::atomic<Fault> fault_{Fault::kNone};
  std::vector<std::shared_ptr<FakeComm>> comms_;
  bool grouped_ = false;
  std::vector<Collective> collectives_;
  std::vector<Message> sends_;
  std::vector<Message> receives_;
  FakeComm* comm_ = nullptr;
  device::Stream* stream_ = nullptr;
};

}  // namespace

std::shared_ptr<FakeNccl> CreateFakeNccl(std::shared_ptr<FakeNcclWorld> world) {
  return std::make_shared<FakeNcclLibrary>(std::move(world));
}

}  // namespace heddle::comm::conformance
