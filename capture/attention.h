// Scaled dot-product attention on the trace device: one operator where the
// target would run a fused kernel, its decomposition where the target would
// not.
#ifndef HEDDLE_CAPTURE_ATTENTION_H_
#define HEDDLE_CAPTURE_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <optional>

namespace heddle::capture {

// Signature and semantics of aten::scaled_dot_product_attention; runs above
// autograd.
at::Tensor ScaledDotProductAttention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& attn_mask, double dropout_p,
    bool is_causal, std::optional<double> scale, bool enable_gqa);

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_ATTENTION_H_
