// A state before a draw → what each kernel reads it from. Invariant: the caller
// has set the generator to the state in which the forward drew, by the draw's
// id; so nothing is kept between the two, and a checkpoint's repetition finds
// the same. What would break it: a torch whose kernels read the state from
// somewhere else; heddle.check with dropout on a GPU compares the masks through
// the gradients.

#include "runtime/torch/drawn_state.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"

namespace heddle::torch_runtime {
namespace {

at::Tensor Integer(int64_t value, c10::Device device) {
  at::Tensor tensor = at::empty({}, at::dtype(at::kLong).device(device));
  return tensor.fill_(value);
}

}  // namespace

absl::StatusOr<std::optional<DrawnState>> DrawnState::Of(
    const c10::OperatorHandle& op, const plan::Step& step) {
  if (step.rng_id < 0) return std::optional<DrawnState>();
  const std::optional<int> index =
      op.schema().argumentIndexWithName("philox_seed");
  if (!index.has_value()) return std::optional<DrawnState>();
  const std::string& name = op.operator_name().name;
  const auto state = [&](Form form) {
    return std::optional<DrawnState>(
        DrawnState(form, static_cast<size_t>(*index)));
  };
  if (name == "aten::_scaled_dot_product_efficient_attention_backward")
    return state(Form::kHostScalars);
  if (name == "aten::_scaled_dot_product_cudnn_attention_backward")
    return state(Form::kDeviceScalars);
  if (name == "aten::_scaled_dot_product_flash_attention_backward")
    return state(Form::kDevicePair);
  return absl::UnimplementedError(
      absl::StrCat(step.name,
                   " repeats a draw from a generator state whose form is not "
                   "known; choose another attention backend with "
                   "torch.nn.attention.sdpa_kernel"));
}

void DrawnState::Give(c10::Device device,
                      std::vector<c10::IValue>& stack) const {
  int64_t seed, offset;
  {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    std::lock_guard<std::mutex> lock(generator.mutex());
    seed = static_cast<int64_t>(generator.current_seed());
    offset = static_cast<int64_t>(generator.get_offset());
  }
  switch (form_) {
    case Form::kHostScalars:
      device = c10::Device(c10::DeviceType::CPU);
      [[fallthrough]];
    case Form::kDeviceScalars:
      stack[index_] = Integer(seed, device);
      stack[index_ + 1] = Integer(offset, device);
      return;
    case Form::kDevicePair: {
      at::Tensor pair = at::empty({2}, at::dtype(at::kLong).device(device));
      pair.select(0, 0).fill_(seed);
      pair.select(0, 1).fill_(offset);
      stack[index_] = pair.view(at::kUInt64);
      return;
    }
  }
}

}  // namespace heddle::torch_runtime
