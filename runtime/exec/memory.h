// Addresses of a plan's values: the arenas, allocated once.
// Invariant: an address stays the same as long as the Memory lives. State and
// constants are zero or the plan's own data until the caller sets them. One
// scratch arena serves all sections, so a section's results are gone when the
// next section runs.

#ifndef HEDDLE_RUNTIME_EXEC_MEMORY_H_
#define HEDDLE_RUNTIME_EXEC_MEMORY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

// State of one plan, shared with plans whose layout_hash is equal (shape
// buckets, evaluation).
struct StateArena {
  uint64_t layout_hash = 0;
  uint64_t bytes = 0;
  device::Allocation memory;
};

class Memory {
 public:
  // `state` nullptr: a fresh state arena. InvalidArgument if the given one has
  // another layout. `coordinate`: the rank's along axis "dp".
  static absl::StatusOr<std::unique_ptr<Memory>> Create(
      const plan::Plan& plan, device::Device& device,
      std::shared_ptr<StateArena> state, int64_t coordinate = 0);

  // Start of a buffer. Every input buffer has its own place, whatever its
  // offset.
  char* BufferAddress(uint32_t buffer) const { return buffers_[buffer]; }
  // Where this rank's value starts in its buffer, in elements.
  int64_t Offset(uint32_t value) const;
  // Address of a value's first element.
  char* Address(uint32_t value) const;
  // The part of the scratch arena that `section` does not use: `bytes` from
  // `address` on, free while the section runs.
  struct Spare {
    char* address = nullptr;
    uint64_t bytes = 0;
  };
  Spare SpareScratch(const plan::Section& section) const;
  int64_t coordinate() const { return coordinate_; }
  uint64_t scratch_bytes() const { return scratch_bytes_; }
  uint64_t input_bytes() const { return input_bytes_; }
  const std::shared_ptr<StateArena>& state() const { return state_; }
  device::Device& device() const { return *device_; }

 private:
  const plan::Plan* plan_ = nullptr;
  device::Device* device_ = nullptr;
  device::Allocation scratch_;
  device::Allocation inputs_;
  device::Allocation constants_;
  std::shared_ptr<StateArena> state_;
  std::vector<char*> buffers_;
  uint64_t scratch_bytes_ = 0;
  uint64_t input_bytes_ = 0;
  int64_t coordinate_ = 0;
};

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_MEMORY_H_
