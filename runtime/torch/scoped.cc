// What every LibTorch step runs inside.

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/torch/handlers.h"
#include "runtime/torch/planned_cuda.h"

namespace heddle::torch_runtime {

TensorTable& Shared::tensors(const plan::Plan& plan,
                             const exec::Memory& memory) {
  if (tensors_ == nullptr)
    tensors_ = std::make_unique<TensorTable>(plan, memory, device);
  return *tensors_;
}

Workspace& Shared::workspace(const device::Stream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<Workspace>& workspace = workspaces_[stream];
  if (workspace == nullptr) workspace = std::make_unique<Workspace>(source);
  return *workspace;
}

namespace {

// Gives the calling thread's operators this many threads. at::set_num_threads
// also makes the number that of threads that start later; a thread that ends at
// once puts that back.
void UseThreads(int threads) {
  thread_local int used = 0;
  if (threads == 0 || threads == used) return;
  static std::mutex& mutex = *new std::mutex();
  std::lock_guard<std::mutex> lock(mutex);
  int otherwise = 0;
  std::thread([&] { otherwise = at::get_num_threads(); }).join();
  at::set_num_threads(threads);
  std::thread([&] { at::set_num_threads(otherwise); }).join();
  used = threads;
}

}  // namespace
void Shared::NeedWorkspace(const device::Stream* stream, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  size_t& needed = needed_[stream];
  needed = std::max(needed, bytes);
}

absl::Status Shared::ReserveWorkspaces() {
  std::map<const device::Stream*, size_t> needed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    needed.swap(needed_);
  }
  for (const auto& [stream, bytes] : needed) {
    // The block belongs to the stream whose steps use it: given back, it is
    // used again in that stream's order.
    OnStream on_stream(*this, stream);
    if (absl::Status status = workspace(stream).Reserve(bytes); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

uint64_t Shared::workspace_bytes() {
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [stream, workspace] : workspaces_)
    bytes += workspace->capacity();
  return bytes;
}

uint64_t Shared::memory_version() {
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t version = 0;
  for (const auto& [stream, workspace] : workspaces_)
    version += workspace->moves();
  return version;
}

OnStream::OnStream(const Shared& shared, const device::Stream* stream) {
  if (shared.device.is_cuda())
    guard_.emplace(AtenStream(const_cast<device::Stream*>(stream)->native(),
                              shared.device.index()));
}

absl::Status RunScoped(
    Shared& shared, Learned& learned, const device::Stream* stream,
    const std::function<absl::Status(Scope& scope, bool first)>& body,
    const std::vector<Expected>& expected) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  // The casts of an autocast region were recorded as steps: an autocast that
  // happens to be on around the run must not add its own.
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  shared.counters.steps += 1;
  UseThreads(shared.threads);
  try {
    OnStream on_stream(shared, stream);
    if (!learned.done) {
      Scope scope(shared.source, expected, &shared.counters);
      absl::Status status = body(scope, true);
      if (!status.ok()) return status;
      learned.done = true;
      shared.counters.warmup_steps += 1;
      // A quarter on top for what depends on data and for what first fit leaves
      // unused.
      const size_t margin = learned.exact ? 0 : learned.workspace_bytes / 4;
      shared.NeedWorkspace(stream, learned.workspace_bytes + margin);
      return absl::OkStatus();
    }
    const uint64_t outside = shared.counters.outside_workspace;
    Scope scope(shared.source, learned, &shared.workspace(stream),
                &shared.counters);
    absl::Status status = body(scope, false);
    // Such memory goes back to its allocator, and a graph would go on using it.
    if (status.ok() && shared.capturing &&
        shared.counters.outside_workspace != outside)
      return absl::FailedPreconditionError(
          "it allocates memory that is neither planned nor workspace");
    return status;
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

uint64_t RandomSeed(uint64_t seed, int64_t step, int64_t micro,
                    int32_t rng_id) {
  // splitmix64 over the four numbers: neighbouring steps get unrelated
  // generator states.
  uint64_t state = seed;
  for (uint64_t word :
       {static_cast<uint64_t>(step), static_cast<uint64_t>(micro),
        static_cast<uint64_t>(rng_id)}) {
    state += 0x9e3779b97f4a7c15ull + word;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebull;
    state ^= state >> 31;
  }
  return state;
}

}  // namespace heddle::torch_runtime
