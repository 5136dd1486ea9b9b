// safetensors entries as at::Tensors and back.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_TENSORS_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"
#include "runtime/safetensors/safetensors.h"

namespace heddle::run {

// A tensor over the file's bytes, valid as long as the file is open; only to be
// read.
absl::StatusOr<at::Tensor> tensorOver(const safetensors::Tensor& tensor);
// The entry for a contiguous tensor, valid as long as the tensor lives.
absl::StatusOr<safetensors::Tensor> entryOver(const at::Tensor& tensor);
std::string sizesText(c10::ArrayRef<int64_t> sizes);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_TENSORS_H_
