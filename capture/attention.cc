// Asks the target's own selection (aten::_fused_sdp_choice) with stand-ins of
// the same geometry, then follows the branch that PyTorch's composite takes for
// that answer. For a GPU that is not there, the answer is the one backend that
// the user left enabled (torch.nn.attention.sdpa_kernel).
#include "capture/attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

using at::SDPBackend;

constexpr const char* kOperator = "aten::scaled_dot_product_attention";

struct Call {
  const at::Tensor& query;
  const at::Tensor& key;
  const at::Tensor& value;
  std::optional<at::Tensor> mask;
  double dropout_p;
  bool is_causal;
  std::optional<double> scale;
  bool enable_gqa;
};

// A tensor of the target with the geometry of `traced` and no bytes: the
// selection reads sizes, strides, dtype and requires_grad only.
at::Tensor StandIn(const at::Tensor& traced, c10::Device device) {
  static char nothing[64];
  void* address = device.is_cpu() ? nothing : nullptr;
  c10::Storage storage(c10::Storage::use_byte_size_t(),
                       traced.storage().nbytes(), c10::DataPtr(address, device),
                       nullptr, false);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage),
      c10::DispatchKeySet(device.is_cpu() ? c10::DispatchKey::CPU
                                          : c10::DispatchKey::CUDA),
      traced.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(traced.sizes(),
                                                      traced.strides(), 0);
  if (traced.is_floating_point() && traced.requires_grad())
    tensor.requires_grad_(true);
  return tensor;
}

// What the user chose where nothing can be asked: the only backend that is
// enabled.
SDPBackend ChosenByUser(const Session& session, const Call& call) {
  const at::Context& context = at::globalContext();
  std::vector<SDPBackend> enabled;
  if (context.userEnabledFlashSDP())
    enabled.push_back(SDPBackend::flash_attention);
  if (context.userEnabledMemEfficientSDP())
    enabled.push_back(SDPBackend::efficient_attention);
  if (context.userEnabledMathSDP()) enabled.push_back(SDPBackend::math);
  if (context.userEnabledCuDNNSDP())
    enabled.push_back(SDPBackend::cudnn_attention);
  TORCH_CHECK(
      enabled.size() == 1, "heddle.capture: ", session.Place(kOperator),
      ": which attention kernel runs depends on the GPU, and this machine has "
      "none to ask. Capture where the GPU is, or choose one backend: with "
      "torch.nn.attention.sdpa_kernel(...) around heddle.capture");
  bool half = call.query.scalar_type() == at::kHalf ||
              call.query.scalar_type() == at::kBFloat16;
  bool only_half = enabled[0] == SDPBackend::flash_attention ||
                   enabled[0] == SDPBackend::cudnn_attention;
  TORCH_CHECK(
      half || !only_half, "heddle.capture: ", session.Place(kOperator),
      ": the chosen backend takes bf16 and fp16 only, and the query is ",
      call.query.scalar_type(), "; choose MATH or EFFICIENT_ATTENTION");
  TORCH_CHECK(
      enabled[0] != SDPBackend::flash_attention || !call.mask,
      "heddle.capture: ", session.Place(kOperator),
      ": flash attention takes no mask; choose MATH or EFFICIENT_ATTENTION");
  // Shapes that the kernels refuse; a GPU's own selection would have said so.
  bool same_heads = call.query.dim() == 4 && call.key.dim() == 4 &&
                    call.query.size(1) == call.key.size(1);
  TORCH_CHECK(enabled[0] != SDPBackend::efficient_attention || same_heads,
              "heddle.capture: ", session.Place(kOperator),
              ": efficient attention needs 4-D tensors with as many key heads "
              "as query heads; choose another backend");
  TORCH_CHECK(
      enabled[0] != SDPBackend::flash_attention ||
          (call.query.dim() == 4 && call.query.size(-1) == call.value.size(-1)),
      "heddle.capture: ", session.Place(kOperator),
      ": flash attention needs 4-D tensors with heads of one size; choose "
      "another backend");
  return enabled[0];
}

SDPBackend Choose(const Session& session, const Call& call) {
  const bool cuda = session.target() == "cuda";
  if (cuda && !at::hasCUDA()) return ChosenByUser(session, call);
  if (cuda) at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const c10::Device device = cuda ? c10::Device(c10::DeviceType::CUDA, 0)
                                  : c10::Device(c10::DeviceType::CPU);
  std::optional<at::Tensor> mask;
  if (call.mask) mask = StandIn(*call.mask, device);
  return static_cast<SDPBackend>(at::_fused_sdp_choice(
      StandIn(call.query, device), StandIn(call.key, device),
      StandIn(call.value, device), mask, call.dropout_p, call.is_causal,
      call.scale, call.enable_gqa));
}

// What is added where a boolean mask hides a key. PyTorch gives cuDNN a finite
// number, the least of fp16.
constexpr double kMasked = -std::numeric_limits<double>::infinity();
constexpr double kCudnnMasked = -65504.0;

std::optional<at::Tensor> AdditiveMask(const Call& call,
                                       double hidden = kMasked) {
  if (!call.mask || call.mask->scalar_type() != at::kBool) return call.mask;
  return at::where(*call.mask, 0.0,
                   at::scalar_tensor(hidden, call.mask->options().dtype(
                                                 call.query.scalar_type())));
}

at::Tensor Math(const Call& call) {
  return std::get<0>(at::_scaled_dot_product_attention_math(
      call.query, call.key, call.value, AdditiveMask(call), call.dropout_p,
      call.is_causal, std::nullopt, call.scale, call.enable_gqa));
}

bool NeedsLogSumExp(const Call& call) {
  return at::GradMode::is_enabled() &&
         (call.query.requires_grad() || call.key.requires_grad() ||
          call.value.requires_grad());
}

// The kernel reads heads of whole 16-byte groups.
at::Tensor PadHead(const at::Tensor& tensor) {
  int64_t rest = tensor.size(-1) % 8;
  return rest == 0 ? tensor : at::pad(tensor, {0, 8 - rest});
}

at::Tensor FlashCuda(const Call& call) {
  int64_t head = call.query.size(-1);
  double scale =
      call.scale ? *call.scale : 1.0 / std::sqrt(static_cast<double>(head));
  at::Tensor out = std::get<0>(at::_scaled_dot_product_flash_attention(
      PadHead(call.query), PadHead(call.key), PadHead(call.value),
      call.dropout_p, call.is_causal, false, scale));
  return out.size(-1) == head ? out : out.slice(-1, 0, head);
}

// The efficient kernel reads a mask in rows of whole 16-byte groups: one that
// is not so aligned is padded and cut back to its size, as a view of the padded
// storage.
at::Tensor AlignedMask(const at::Tensor& mask, const Call& call) {
  constexpr int64_t kAlignment = 8;
  bool aligned = mask.stride(-1) == 1;
  for (int64_t d = 0; d + 1 < mask.dim(); ++d)
    aligned = aligned && mask.stride(d) % kAlignment == 0;
  at::Tensor rows = mask;
  if (!aligned) {
    int64_t last = mask.size(-1);
    rows =
        at::pad(mask, {0, kAlignment - last % kAlignment}).slice(-1, 0, last);
  }
  return rows.expand({call.query.size(0), call.query.size(1),
                      call.query.size(2), call.key.size(2)});
}

at::Tensor Efficient(const Call& call) {
  std::optional<at::Tensor> mask = AdditiveMask(call);
  if (mask) mask = AlignedMask(*mask, call);
  return std::get<0>(at::_scaled_dot_product_efficient_attention(
      call.query, call.key, call.value, mask, NeedsLogSumExp(call),
      call.dropout_p, call.is_causal, call.scale));
}

}  // namespace

at::Tensor ScaledDotProductAttention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& attn_mask, double dropout_p,
    bool is_causal, std::optional<double> scale, bool enable_gqa) {
  Session* session = Session::Current();
  TORCH_CHECK(
      session != nullptr,
      "heddle.capture: attention on a tensor of a capture that has ended");
  Call call{query,     key,       value, std::nullopt,
            dropout_p, is_causal, scale, enable_gqa};
  if (attn_mask && attn_mask->defined()) call.mask = *attn_mask;
  SDPBackend choice = Choose(*session, call);
  if (choice == SDPBackend::math) return Math(call);
  if (session->target() == "cpu" && choice == SDPBackend::flash_attention)
    return std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, AdditiveMask(call), scale));
  TORCH_CHECK(session->target() == "cuda",
              "heddle.capture: ", session->Place(kOperator),
              ": the target chose attention backend ", static_cast<int>(choice),
              ", which is not known here");
  switch (choice) {
    case SDPBackend::flash_attention:
      return FlashCuda(call);
    case SDPBackend::efficient_attention:
      return Efficient(call);
    case SDPBackend::cudnn_attention:
      return std::get<0>(at::_scaled_dot_product_cudnn_attention(
          query, key, value, AdditiveMask(call, kCudnnMasked),
          NeedsLogSumExp(call), dropout_p, is_causal, false, scale));
    default:
      TORCH_CHECK(false, "heddle.capture: ", session->Place(kOperator),
                  ": the GPU has no attention kernel for these tensors under "
                  "the backends that are enabled (choice ",
                  static_cast<int>(choice),
                  "); enable MATH with torch.nn.attention.sdpa_kernel");
  }
}

}  // namespace heddle::capture
