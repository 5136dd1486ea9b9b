// The two lists of dtypes, side by side.

#include "tools/heddle-run/tensors.h"

#include <ATen/ops/from_blob.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace heddle::run {
namespace {

constexpr std::pair<const char*, c10::ScalarType> kTypes[] = {
    {"BOOL", c10::ScalarType::Bool},
    {"U8", c10::ScalarType::Byte},
    {"I8", c10::ScalarType::Char},
    {"I16", c10::ScalarType::Short},
    {"U16", c10::ScalarType::UInt16},
    {"I32", c10::ScalarType::Int},
    {"U32", c10::ScalarType::UInt32},
    {"I64", c10::ScalarType::Long},
    {"F16", c10::ScalarType::Half},
    {"BF16", c10::ScalarType::BFloat16},
    {"F32", c10::ScalarType::Float},
    {"F64", c10::ScalarType::Double},
    {"F8_E4M3", c10::ScalarType::Float8_e4m3fn},
    {"F8_E5M2", c10::ScalarType::Float8_e5m2},
};

}  // namespace

absl::StatusOr<at::Tensor> tensorOver(const safetensors::Tensor& tensor) {
  for (const auto& [name, type] : kTypes) {
    if (tensor.dtype == name)
      return at::from_blob(const_cast<uint8_t*>(tensor.data), tensor.shape,
                           at::TensorOptions().dtype(type));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype ", tensor.dtype, " is not supported"));
}

absl::StatusOr<safetensors::Tensor> entryOver(const at::Tensor& tensor) {
  for (const auto& [name, type] : kTypes) {
    if (tensor.scalar_type() == type)
      return safetensors::Tensor{
          name, tensor.sizes().vec(),
          static_cast<const uint8_t*>(tensor.const_data_ptr()),
          tensor.nbytes()};
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "dtype ", c10::toString(tensor.scalar_type()), " is not supported"));
}

std::string sizesText(c10::ArrayRef<int64_t> sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes.begin(), sizes.end(), ", "),
                      "]");
}

}  // namespace heddle::run
