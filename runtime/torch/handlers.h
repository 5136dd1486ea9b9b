// The step handlers that need LibTorch: ATen operators, copies with conversion,
// and the kernels whose CPU arithmetic must be ATen's. Invariant: a step reads
// and writes only its planned values; after its first run every result is born
// at its planned address (counted otherwise).

#ifndef HEDDLE_RUNTIME_TORCH_HANDLERS_H_
#define HEDDLE_RUNTIME_TORCH_HANDLERS_H_

#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>
#include <c10/core/StreamGuard.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/exec/handler.h"
#include "runtime/torch/planned_allocator.h"
#include "runtime/torch/tensors.h"

namespace heddle::torch_runtime {

// What all LibTorch handlers of one executable share. Made before the
// executable, bound to its memory by the first Prepare.
class Shared {
 public:
  Shared(c10::Device device, Source& source) : device(device), source(source) {}

  TensorTable& tensors(const plan::Plan& plan, const exec::Memory& memory);
  // The workspace of a stream; nullptr stands for "the caller's thread".
  Workspace& workspace(const device::Stream* stream);
  // Notes what a step of `stream` will need; ReserveWorkspaces, at the end of a
  // run, makes it available at once, so that workspaces move as rarely as they
  // can.
  void NeedWorkspace(const device::Stream* stream, size_t bytes);
  [[nodiscard]] absl::Status ReserveWorkspaces();
  // Of all workspaces, as reserved.
  uint64_t workspace_bytes();
  // Counts moves of all workspaces.
  uint64_t memory_version();

  const c10::Device device;
  Source& source;
  Counters counters;
  // Threads that one operator may use; 0 leaves that to the thread's settings.
  int threads = 0;
  // True while a run is captured into a graph.
  std::atomic<bool> capturing{false};

 private:
  std::unique_ptr<TensorTable> tensors_;
  std::mutex mutex_;
  std::map<const device::Stream*, std::unique_ptr<Workspace>> workspaces_;
  std::map<const device::Stream*, size_t> needed_;
};

// Makes what is enqueued on this thread go to `stream`; nothing on the CPU.
class OnStream {
 public:
  OnStream(const Shared& shared, const device::Stream* stream);

 private:
  std::optional<c10::StreamGuard> guard_;
};

// Runs `body` below autograd and autocast with every allocation accounted for:
// the first time under the recorder (`finish` then learns placements from the
// scope), later with planned addresses. Exceptions become a Status.
absl::Status RunScoped(
    Shared& shared, Learned& learned, const device::Stream* stream,
    const std::function<absl::Status(Scope& scope, bool first)>& body,
    const std::vector<Expected>& expected = {});

// The three handlers. `seed_random` true (training plans): every random step
// draws from its own generator state.
std::shared_ptr<exec::StepHandler> CreateAtenHandler(
    std::shared_ptr<Shared> shared, bool seed_random);
std::shared_ptr<exec::StepHandler> CreateCopyHandler(
    std::shared_ptr<Shared> shared);
std::shared_ptr<exec::StepHandler> CreateKernelHandler(
    std::shared_ptr<Shared> shared);

// The seed of one random step: a mix of (user seed, step, micro-batch, rng_id).
uint64_t RandomSeed(uint64_t seed, int64_t step, int64_t micro, int32_t rng_id);

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_HANDLERS_H_
