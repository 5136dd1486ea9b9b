#include "runtime/torch/gloo_communicator.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/from_blob.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/comm/host_communicator.h"
#include "runtime/comm/reduce.h"

namespace heddle::torch_runtime {
namespace {

using comm::Collective;
using comm::Kind;
using Sizes = std::vector<int64_t>;

int64_t Sum(const Sizes& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

std::string FirstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// Bytes for the transport, kept alive by whoever still uses them. Not
// LibTorch's allocator: a plan's steps hand out its addresses.
class Staging {
 public:
  explicit Staging(int64_t bytes)
      : size_(bytes), memory_(std::make_shared<std::vector<char>>(bytes + 1)) {}
  char* data() { return memory_->data(); }
  at::Tensor Tensor() {
    return at::from_blob(
        memory_->data(), {size_}, [keep = memory_](void*) {},
        at::TensorOptions(at::kByte));
  }

 private:
  int64_t size_;
  std::shared_ptr<std::vector<char>> memory_;
};

void Copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

class GlooCommunicator : public comm::HostCommunicator {
 public:
  GlooCommunicator(comm::Group group, trace::FlightRecorder* recorder,
                   c10::intrusive_ptr<c10d::Backend> transport)
      : HostCommunicator(std::move(group), recorder),
        transport_(std::move(transport)) {}

  void Abort(const absl::Status& why) override {
    Break(why);
    {
      std::lock_guard<std::mutex> lock(end_->mutex);
      if (end_->aborted.ok()) end_->aborted = why;
    }
    end_->changed.notify_all();
  }

 protected:
  bool Aborted() const override {
    std::lock_guard<std::mutex> lock(end_->mutex);
    return !end_->aborted.ok();
  }
  absl::Status RunBlocking(absl::Span<const Collective> collectives) override {
    try {
      for (const Collective& c : collectives) {
        if (absl::Status s = RunOne(c); !s.ok()) return s;
      }
      return absl::OkStatus();
    } catch (const std::exception& e) {
      return absl::UnavailableError(
          absl::StrCat("gloo: ", FirstLine(e.what())));
    }
  }

 private:
  // Shared with the callbacks of pending work, which may outlive this object.
  struct End {
    std::mutex mutex;
    std::condition_variable changed;
    absl::Status aborted;
    // The number of the exchange that ended last.
    uint64_t done = 0;
  };

  absl::Status RunOne(const Collective& c);
  absl::Status Gather(const Collective& c, const Sizes& counts,
                      const void* input, void* output);
  absl::Status Reduce(const Collective& c, const Sizes& counts, char* output);
  absl::Status Swap(const Collective& c);
  // send_bytes[i] bytes of `send`, end to end, go to position i.
  absl::StatusOr<Staging> Exchange(Staging send, Sizes send_bytes,
                                   Sizes recv_bytes);

  int size() const { return group().size(); }

  const c10::intrusive_ptr<c10d::Backend> transport_;
  const std::shared_ptr<End> end_ = std::make_shared<End>();
  uint64_t exchanges_ = 0;
};

absl::StatusOr<Staging> GlooCommunicator::Exchange(Staging send,
                                                   Sizes send_bytes,
                                                   Sizes recv_bytes) {
  Staging received(Sum(recv_bytes));
  at::Tensor input = send.Tensor();
  at::Tensor output = received.Tensor();
  const uint64_t number = ++exchanges_;
  const auto work = [&] {
    // libtorch notes every operation in one recorder of the process and, before
    // it takes the recorder's lock, in a map of it: ranks that are threads must
    // not do that at once.
    static std::mutex& recorder = *new std::mutex();
    std::lock_guard<std::mutex> lock(recorder);
    return transport_->alltoall_base(output, input, recv_bytes, send_bytes);
  }();
  const auto future = work->getFuture();
  future->addCallback([end = end_, number](c10::ivalue::Future&) {
    {
      std::lock_guard<std::mutex> lock(end->mutex);
      end->done = number;
    }
    end->changed.notify_all();
  });
  {
    std::unique_lock<std::mutex> lock(end_->mutex);
    end_->changed.wait(
        lock, [&] { return end_->done >= number || !end_->aborted.ok(); });
    if (end_->done < number) return end_->aborted;
  }
  if (future->hasError())
    return absl::UnavailableError(
        absl::StrCat("gloo: ", FirstLine(future->tryRetrieveErrorMessage())));
  return received;
}

// counts[i] elements from position i, end to end in `output`; every position
// sends its own to all.
absl::Status GlooCommunicator::Gather(const Collective& c, const Sizes& counts,
                                      const void* input, void* output) {
  const int64_t element = plan::ElementSize(c.dtype);
  const int64_t own = counts[group().position] * element;
  Sizes recv = counts;
  for (int64_t& n : recv) n *= element;
  Staging send(own * size());
  for (int q = 0; q < size(); ++q) Copy(send.data() + q * own, input, own);
  absl::StatusOr<Staging> received =
      Exchange(std::move(send), Sizes(size(), own), recv);
  if (!received.ok()) return received.status();
  Copy(output, received->data(), Sum(recv));
  return absl::OkStatus();
}

// Sends slice i (counts[i] elements) of the input to position i and reduces the
// own slices of all, in the order of positions, into `output`.
absl::Status GlooCommunicator::Reduce(const Collective& c, const Sizes& counts,
                                      char* output) {
  const int64_t element = plan::ElementSize(c.dtype);
  const int64_t own = counts[group().position];
  Sizes bytes = counts;
  for (int64_t& n : bytes) n *= element;
  Staging send(Sum(bytes));
  Copy(send.data(), c.input, Sum(bytes));
  absl::StatusOr<Staging> received =
      Exchange(std::move(send), bytes, Sizes(size(), own * element));
  if (!received.ok()) return received.status();
  std::vector<const void*> inputs;
  for (int q = 0; q < size(); ++q)
    inputs.push_back(received->data() + q * own * element);
  void* const outputs[] = {output};
  comm::ReduceRange(c.dtype, c.reduction, inputs, outputs, 0, own);
  return absl::OkStatus();
}

absl::Status GlooCommunicator::Swap(const Collective& c) {
  const int64_t element = plan::ElementSize(c.dtype);
  Sizes sent, received;
  for (int q = 0; q < size(); ++q) {
    sent.push_back(SendCount(c, q));
    received.push_back(RecvCount(c, q));
  }
  if (c.device_send_counts != nullptr) {
    // An impossible count is sent on, so that every rank gets the error.
    sent.assign(c.device_send_counts, c.device_send_counts + size());
    const int64_t bytes = sizeof(int64_t);
    Staging counts(size() * size() * bytes);
    for (int q = 0; q < size(); ++q)
      Copy(counts.data() + q * size() * bytes, sent.data(), size() * bytes);
    absl::StatusOr<Staging> all =
        Exchange(std::move(counts), Sizes(size(), size() * bytes),
                 Sizes(size(), size() * bytes));
    if (!all.ok()) return all.status();
    for (int q = 0; q < size(); ++q) {
      for (int r = 0; r < size(); ++r) {
        int64_t count;
        Copy(&count, all->data() + (q * size() + r) * bytes, bytes);
        if (count < 0 || count > c.count)
          return absl::InvalidArgumentError(
              absl::StrCat("all_to_all: rank ", group().ranks[q], " sends ",
                           count, " elements to rank ", group().ranks[r],
                           "; a slot holds ", c.count));
        if (r == group().position)
          c.device_recv_counts[q] = received[q] = count;
      }
    }
  }
  Sizes send_bytes, recv_bytes;
  for (int q = 0; q < size(); ++q) {
    send_bytes.push_back(sent[q] * element);
    recv_bytes.push_back(received[q] * element);
  }
  Staging send(Sum(send_bytes));
  char* to = send.data();
  for (int q = 0; q < size(); ++q) {
    Copy(to, static_cast<const char*>(c.input) + SendOffset(c, q) * element,
         send_bytes[q]);
    to += send_bytes[q];
  }
  absl::StatusOr<Staging> got =
      Exchange(std::move(send), send_bytes, recv_bytes);
  if (!got.ok()) return got.status();
  const char* from = got->data();
  for (int q = 0; q < size(); ++q) {
    Copy(static_cast<char*>(c.output) + RecvOffset(c, q) * element, from,
         recv_bytes[q]);
    from += recv_bytes[q];
  }
  return absl::OkStatus();
}

absl::Status GlooCommunicator::RunOne(const Collective& c) {
  const int64_t element = plan::ElementSize(c.dtype);
  const int position = group().position;
  char* const output = static_cast<char*>(c.output);
  Sizes slots, slices;
  for (int q = 0; q < size(); ++q) {
    slots.push_back(SlotCount(c, q));
    slices.push_back(c.count * (q + 1) / size() - c.count * q / size());
  }
  switch (c.kind) {
    case Kind::kAllGather:
      return Gather(c, slots, c.input, output);
    case Kind::kReduceScatter:
      return Reduce(c, slots, output);
    case Kind::kAllToAll:
      return Swap(c);
    case Kind::kBroadcast: {
      Sizes counts(size(), 0);
      counts[c.root] = c.count;
      return Gather(c, counts, c.input, output);
    }
    case Kind::kAllReduce:
    case Kind::kReduce:
      break;
  }
  Staging own(slices[position] * element);
  if (absl::Status s = Reduce(c, slices, own.data()); !s.ok()) return s;
  if (c.kind == Kind::kAllReduce) return Gather(c, slices, own.data(), output);
  Sizes send(size(), 0), recv(size(), 0);
  send[c.root] = slices[position] * element;
  if (position == c.root) {
    for (int q = 0; q < size(); ++q) recv[q] = slices[q] * element;
  }
  absl::StatusOr<Staging> whole = Exchange(std::move(own), send, recv);
  if (!whole.ok()) return whole.status();
  if (position == c.root) Copy(output, whole->data(), Sum(recv));
  return absl::OkStatus();
}

class GlooBackend : public comm::Backend {
 public:
  GlooBackend(c10::intrusive_ptr<c10d::Store> store, absl::Duration timeout,
              trace::FlightRecorder* recorder)
      : store_(std::move(store)), timeout_(timeout), recorder_(recorder) {}
  const char* name() const override { return "gloo"; }

  absl::StatusOr<std::unique_ptr<comm::Communicator>> Connect(
      const comm::Group& group) override {
    try {
      auto options = c10d::ProcessGroupGloo::Options::create(
          std::chrono::milliseconds(absl::ToInt64Milliseconds(timeout_)));
      // One thread: collectives of a communicator run in order anyway.
      options->threads = 1;
      const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
      options->devices.push_back(
          interface != nullptr && *interface != '\0'
              ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
              : c10d::ProcessGroupGloo::createDefaultDevice());
      c10::intrusive_ptr<c10d::Backend> transport =
          c10::make_intrusive<c10d::ProcessGroupGloo>(
              c10::make_intrusive<c10d::PrefixStore>(group.name, store_),
              group.position, group.size(), std::move(options));
      return std::unique_ptr<comm::Communicator>(
          new GlooCommunicator(group, recorder_, std::move(transport)));
    } catch (const std::exception& e) {
      return absl::UnavailableError(
          absl::StrCat("rank ", group.rank(), " cannot connect to group ",
                       group.name, " over gloo: ", FirstLine(e.what())));
    }
  }

 private:
  const c10::intrusive_ptr<c10d::Store> store_;
  const absl::Duration timeout_;
  trace::FlightRecorder* const recorder_;
};

}  // namespace

std::unique_ptr<comm::Backend> CreateGlooBackend(
    c10::intrusive_ptr<c10d::Store> store, absl::Duration timeout,
    trace::FlightRecorder* recorder) {
  return std::make_unique<GlooBackend>(std::move(store), timeout, recorder);
}

}  // namespace heddle::torch_runtime
