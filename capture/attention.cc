// Asks the target's own selection (aten::_fused_sdp_choice) with stand-ins of the same geometry, then follows the branch that PyTorch's composite takes for that answer.
#include "capture/attention.h"

#include <ATen/ATen.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/grad_mode.h>

#include <limits>

#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

// A CPU tensor with the geometry of `traced` and no bytes: the selection reads sizes, strides, dtype and requires_grad only.
at::Tensor StandIn(const at::Tensor& traced) {
  static char nothing[64];
  at::Tensor tensor = at::from_blob(nothing, traced.sizes(), traced.strides(), at::TensorOptions().dtype(traced.scalar_type()));
  if (traced.is_floating_point() && traced.requires_grad()) tensor.requires_grad_(true);
  return tensor;
}

at::Tensor AdditiveMask(const at::Tensor& mask, at::ScalarType dtype) {
  if (mask.scalar_type() != at::kBool) return mask;
  return at::where(mask, 0.0, at::scalar_tensor(-std::numeric_limits<double>::infinity(), mask.options().dtype(dtype)));
}

}  // namespace

at::Tensor ScaledDotProductAttention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& attn_mask, double dropout_p, bool is_causal,
                                     std::optional<double> scale, bool enable_gqa) {
  Session* session = Session::Current();
  TORCH_CHECK(session != nullptr, "heddle.capture: attention on a tensor of a capture that has ended");
  TORCH_CHECK(session->target() == "cpu", "heddle.capture: ", session->Place("aten::scaled_dot_product_attention"), ": the target '", session->target(),
              "' has no attention selection in this build; capture for device=\"cpu\"");
  std::optional<at::Tensor> mask_stand_in;
  if (attn_mask && attn_mask->defined()) mask_stand_in = StandIn(*attn_mask);
  auto choice = static_cast<at::SDPBackend>(at::_fused_sdp_choice(StandIn(query), StandIn(key), StandIn(value), mask_stand_in, dropout_p, is_causal, scale, enable_gqa));
  std::optional<at::Tensor> mask;
  if (attn_mask && attn_mask->defined()) mask = AdditiveMask(*attn_mask, query.scalar_type());
  switch (choice) {
    case at::SDPBackend::flash_attention:
      return std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout_p, is_causal, mask, scale));
    case at::SDPBackend::math:
      return std::get<0>(at::_scaled_dot_product_attention_math(query, key, value, mask, dropout_p, is_causal, std::nullopt, scale, enable_gqa));
    default:
      TORCH_CHECK(false, "heddle.capture: ", session->Place("aten::scaled_dot_product_attention"), ": the target chose attention backend ", static_cast<int>(choice), ", which is not known here");
  }
}

}  // namespace heddle::capture
