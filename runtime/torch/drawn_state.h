// The generator state that a backward of fused attention repeats its dropout
// from.

#ifndef HEDDLE_RUNTIME_TORCH_DRAWN_STATE_H_
#define HEDDLE_RUNTIME_TORCH_DRAWN_STATE_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/plan/plan.h"

namespace heddle::torch_runtime {

// An operator that is given the state before a draw, as its arguments `index`
// and `index + 1` (philox_seed, philox_offset).
class DrawnState {
 public:
  // Nothing for a step that draws, or has no dropout. Unimplemented for an
  // operator that takes a state in a form that is not known here.
  static absl::StatusOr<std::optional<DrawnState>> Of(
      const c10::OperatorHandle& op, const plan::Step& step);

  // Puts the state in which `device`'s default generator is now into the
  // arguments.
  void Give(c10::Device device, std::vector<c10::IValue>& stack) const;

 private:
  enum class Form {
    kHostScalars,    // Efficient attention: two integers that the host reads.
    kDeviceScalars,  // cuDNN: the same, read by the kernel.
    kDevicePair,     // Flash: both in one tensor; the offset is not read.
  };
  DrawnState(Form form, size_t index) : form_(form), index_(index) {}

  Form form_;
  size_t index_;
};

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_DRAWN_STATE_H_
