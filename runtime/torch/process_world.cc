#include "runtime/torch/process_world.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/comm/nccl/nccl_communicator.h"
#include "runtime/torch/gloo_communicator.h"
#include "runtime/torch/planned_cuda.h"

namespace heddle::torch_runtime {
namespace {

const char* Variable(const char* name) { return std::getenv(name); }

std::mutex& Mutex() {
  static std::mutex& mutex = *new std::mutex();
  return mutex;
}

ProcessWorld*& Instance() {
  static ProcessWorld* instance = nullptr;
  return instance;
}

// Processes do not start at once: one imports its modules from a slow disk, one
// has more to read. The deadline counts from when all are there.
constexpr absl::Duration kStart = absl::Minutes(5);

absl::Status AwaitStart(const comm::RankEnvironment& environment,
                        comm::Store& store, absl::Duration patience) {
  if (absl::Status status =
          store.Set(absl::StrCat("here/", environment.rank), "1");
      !status.ok())
    return status;
  const absl::Time end = absl::Now() + patience;
  for (int q = 0; q < environment.world_size; ++q) {
    const auto here = store.Get(absl::StrCat("here/", q), end - absl::Now());
    if (!here.ok())
      return absl::DeadlineExceededError(absl::StrCat(
          "rank ", q, " of ", environment.world_size, " has not come within ",
          absl::FormatDuration(patience), " (", here.status().message(), ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<comm::Backend*> AddNcclBackend(
    comm::World& world, std::shared_ptr<comm::Store> store, int device_index) {
  // Brings LibTorch's NCCL into the process.
  if (auto source = InstallPlannedCudaAllocator(); !source.ok())
    return source.status();
  absl::StatusOr<std::shared_ptr<comm::nccl::NcclApi>> api =
      comm::nccl::LoadNccl({});
  if (!api.ok()) return api.status();
  return world.AddBackend(
      [&](trace::FlightRecorder* recorder)
          -> absl::StatusOr<std::unique_ptr<comm::Backend>> {
        return comm::nccl::CreateNcclBackend(*api, store, device_index,
                                             absl::Seconds(60), recorder);
      });
}

}  // namespace

absl::StatusOr<comm::Backend*> AddNccl(comm::World& world) {
  return AddNcclBackend(world, comm::CreateProcessStore(), 0);
}

bool ProcessWorld::HasLauncher() { return comm::HasRankEnvironment(Variable); }

absl::StatusOr<comm::RankEnvironment> ProcessWorld::Environment() {
  return comm::ReadRankEnvironment(Variable);
}

ProcessWorld* ProcessWorld::Existing() {
  std::lock_guard<std::mutex> lock(Mutex());
  return Instance();
}

absl::StatusOr<ProcessWorld*> ProcessWorld::Get(comm::WorldOptions options) {
  std::lock_guard<std::mutex> lock(Mutex());
  if (Instance() != nullptr) return Instance();
  absl::StatusOr<comm::RankEnvironment> environment = Environment();
  if (!environment.ok()) return environment.status();
  if (absl::Status status = comm::FillFromEnvironment(Variable, &options);
      !status.ok())
    return status;
  auto process = std::unique_ptr<ProcessWorld>(new ProcessWorld());
  process->environment_ = *environment;
  const absl::Duration patience = std::max(options.deadline, kStart);
  absl::StatusOr<Meeting> meeting = Rendezvous(*environment, patience);
  if (!meeting.ok()) return meeting.status();
  process->meeting_ = *std::move(meeting);
  if (absl::Status status =
          AwaitStart(*environment, *process->meeting_.control, patience);
      !status.ok())
    return status;
  options.store_host = process->meeting_.store_host;
  options.announce = true;
  options.on_failure = comm::ExitProcess;
  // gloo's own patience must not end before the watchdog's.
  const absl::Duration longer = 2 * options.deadline + absl::Seconds(60);
  absl::StatusOr<std::unique_ptr<comm::World>> world = comm::World::Create(
      environment->rank, environment->world_size, process->meeting_.control,
      [&](trace::FlightRecorder* recorder)
          -> absl::StatusOr<std::unique_ptr<comm::Backend>> {
        return CreateGlooBackend(process->meeting_.transport, longer, recorder);
      },
      options);
  if (!world.ok()) return world.status();
  process->world_ = *std::move(world);
  Instance() = process.release();
  return Instance();
}

void ProcessWorld::Leave() {
  if (ProcessWorld* process = Existing(); process != nullptr)
    process->world_->Leave();
}

absl::StatusOr<comm::Communicator*> ProcessWorld::Connect(
    const char* name, comm::Backend* backend) {
  std::vector<int> all(world_->size());
  std::iota(all.begin(), all.end(), 0);
  return world_->Connect(name, all, backend);
}

absl::StatusOr<comm::Communicator*> ProcessWorld::Host() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (host_ != nullptr) return host_;
  absl::StatusOr<comm::Communicator*> host = Connect("host", nullptr);
  if (!host.ok()) return world_->Fail(host.status());
  host_ = *host;
  return host_;
}

absl::StatusOr<comm::Backend*> ProcessWorld::Device() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (device_ != nullptr) return device_;
  absl::StatusOr<comm::Backend*> device =
      AddNcclBackend(*world_, meeting_.control, environment_.local_rank);
  if (!device.ok()) return device.status();
  device_ = *device;
  return device_;
}

absl::StatusOr<comm::Communicator*> ProcessWorld::State(
    const std::string& target) {
  if (target == "cpu") return Host();
  absl::StatusOr<comm::Backend*> device = Device();
  if (!device.ok()) return device.status();
  absl::StatusOr<comm::Communicator*> state = Connect("state", *device);
  if (!state.ok()) return world_->Fail(state.status());
  return *state;
}

absl::StatusOr<std::vector<at::Tensor>> ProcessWorld::Gather(
    const at::Tensor& tensor, const std::string& what) {
  if (!tensor.is_cpu())
    return absl::InvalidArgumentError(
        "gather takes tensors on the CPU; copy it there first");
  absl::StatusOr<comm::Communicator*> host = Host();
  if (!host.ok()) return host.status();
  const at::Tensor own = tensor.contiguous();
  std::vector<int64_t> sizes = own.sizes().vec();
  sizes.insert(sizes.begin(), world_->size());
  at::Tensor all = at::empty(sizes, own.options());
  const comm::Origin origin{what, "", ""};
  comm::Collective gather =
      comm::AllGather(own.const_data_ptr(), all.mutable_data_ptr(),
                      static_cast<int64_t>(own.nbytes()), plan::DType::kU8);
  gather.origin = &origin;
  if (absl::Status status = (*host)->Issue(gather, nullptr); !status.ok())
    return world_->Fail(status);
  return all.unbind(0);
}

}  // namespace heddle::torch_runtime
