// Puts what ATen allocates where the plan wants it.
// One allocator wraps libtorch's CPU allocator, another its CUDA allocator
// (planned_cuda.h). Outside a Scope they forward. Inside one (thread-local, one
// step) it either records what the step allocates (the step's first run) or
// hands the allocation that became a result the planned address and everything
// else a piece of a reserved workspace. Invariant: a planned address is handed
// out at most once per Scope, and only for a request that fits into the planned
// bytes. What would break it: another library replacing the CPU allocator
// afterwards with a higher priority; Install notices at every load.

#ifndef HEDDLE_RUNTIME_TORCH_PLANNED_ALLOCATOR_H_
#define HEDDLE_RUNTIME_TORCH_PLANNED_ALLOCATOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"

namespace heddle::torch_runtime {

// Where one result of a step goes: the `ordinal`-th allocation of exactly
// `size` bytes inside the step.
struct Placement {
  size_t size = 0;
  uint32_t ordinal = 0;
  char* address = nullptr;
};

// What a step's first run taught: how to place its results and how much
// workspace the rest takes.
struct Learned {
  bool done = false;
  std::vector<Placement> placements;
  size_t workspace_bytes = 0;
  // That is one block, of the same size every time.
  bool exact = false;
};

// Counts over the executable's life. All but the warm-up ones must stay 0.
struct Counters {
  std::atomic<uint64_t> outside_workspace{
      0};  // allocator calls inside a step that neither plan nor workspace
           // could serve
  std::atomic<uint64_t> unplanned_copies{
      0};  // results that were not born at their place after the first run
  std::atomic<uint64_t> escaped{
      0};  // workspace blocks still alive at the end of their step
  std::atomic<uint64_t> warmup_steps{0};  // steps run once under the recorder
  std::atomic<uint64_t> warmup_copied_bytes{0};
  std::atomic<uint64_t> workspace_high_water{0};
  std::atomic<uint64_t> steps{0};
};

// Where a scope's memory comes from: the wrapped allocator of one device type.
class Source {
 public:
  virtual ~Source() = default;
  // Memory as the wrapped allocator gives it; throws as it does.
  virtual void* Take(size_t bytes) = 0;
  virtual void GiveBack(void* address) = 0;
};

// The CPU's; valid after InstallPlannedAllocator.
Source& CpuSource();

// A first-fit allocator over one reserved block; one per stream.
class Workspace {
 public:
  explicit Workspace(Source& source) : source_(source) {}
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Makes at least `bytes` available; only while nothing of it is in use.
  [[nodiscard]] absl::Status Reserve(size_t bytes);
  // nullptr if there is no room.
  void* Allocate(size_t bytes);
  // False if the address is not of this workspace.
  bool Free(void* address);
  size_t live_blocks();
  size_t capacity() const { return capacity_; }
  size_t high_water() const { return high_water_; }
  // How often Reserve has changed the addresses.
  uint64_t moves() const { return moves_; }

 private:
  Source& source_;
  std::mutex mutex_;
  char* base_ = nullptr;
  size_t capacity_ = 0;
  size_t high_water_ = 0;
  std::atomic<uint64_t> moves_{0};
  std::map<size_t, size_t> free_;            // offset -> bytes
  std::unordered_map<size_t, size_t> used_;  // offset -> bytes
};

// Where a result of a recorded step will go, if the step allocates it as it is.
struct Expected {
  size_t size = 0;
  char* address = nullptr;
};

// What one allocation of a recorded step was.
struct Recorded {
  void* address = nullptr;
  size_t size = 0;
};

class Scope {
 public:
  // Records. The first allocation of an expected result's size is tried at its
  // planned address, so that learning takes no second copy of large results. A
  // wrong guess does no harm: the address is the result's own, and the result
  // is copied there in the end.
  Scope(Source& source, std::vector<Expected> expected, Counters* counters);
  // Places and takes the rest from `workspace`.
  Scope(Source& source, const Learned& learned, Workspace* workspace,
        Counters* counters);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  const std::vector<Recorded>& recorded() const { return recorded_; }
  // The placement rule for the last allocation at `address`; index into
  // recorded(), or -1 if the step did not allocate it.
  int Find(const void* address) const;
  // Peak of what was alive at once, without the allocations in `placed`
  // (indices into recorded()).
  size_t PeakWithout(const std::vector<int>& placed) const;

  // Used by the allocator.
  void* Allocate(size_t bytes, bool* planned);
  void OnFree(void* address);
  // The same for a worker thread of the step's own parallel loop: never a
  // result. nullptr if no scope of `source` is open or its workspace is full.
  static void* AllocateOnWorker(Source& source, size_t bytes);
  // This thread's scope if it is one of `source`, else nullptr.
  static Scope* Current(const Source& source);

 private:
  void Open();

  Source& source_;
  bool recording_;
  std::vector<Expected> expected_;
  const Learned* learned_ = nullptr;
  Workspace* workspace_ = nullptr;
  Counters* counters_;
  Scope* outer_;
  std::vector<Recorded> recorded_;
  std::vector<int>
      events_;  // index + 1 for an allocation, -(index + 1) for its end
  std::unordered_map<void*, int> live_;
  size_t worker_bytes_ =
      0;  // all that workers took in a recorded step, as if alive at once
  std::unordered_map<size_t, uint32_t>
      seen_;  // size -> allocations of that size so far
};

// Returns a workspace's block to it; false if the address is of none.
bool FreeInWorkspaces(void* address);

// Puts the wrapper in front of libtorch's CPU allocator, once per process.
// FailedPrecondition if something else took the place.
[[nodiscard]] absl::Status InstallPlannedAllocator();

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_PLANNED_ALLOCATOR_H_
