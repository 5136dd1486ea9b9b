// Tensors are TensorImpls over the buffer's storage, set up without going
// through an operator: making them must not allocate or dispatch.

#include "runtime/torch/tensors.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/TensorImpl.h>

#include <utility>

namespace heddle::torch_runtime {
namespace {

constexpr std::pair<plan::DType, c10::ScalarType> kTypes[] = {
    {plan::DType::kBool, c10::ScalarType::Bool},
    {plan::DType::kU8, c10::ScalarType::Byte},
    {plan::DType::kI8, c10::ScalarType::Char},
    {plan::DType::kI16, c10::ScalarType::Short},
    {plan::DType::kI32, c10::ScalarType::Int},
    {plan::DType::kI64, c10::ScalarType::Long},
    {plan::DType::kF16, c10::ScalarType::Half},
    {plan::DType::kBF16, c10::ScalarType::BFloat16},
    {plan::DType::kF32, c10::ScalarType::Float},
    {plan::DType::kF64, c10::ScalarType::Double},
    {plan::DType::kC64, c10::ScalarType::ComplexFloat},
    {plan::DType::kC128, c10::ScalarType::ComplexDouble},
    {plan::DType::kF8E4M3FN, c10::ScalarType::Float8_e4m3fn},
    {plan::DType::kF8E5M2, c10::ScalarType::Float8_e5m2},
};

}  // namespace

c10::ScalarType ToScalarType(plan::DType dtype) {
  return kTypes[static_cast<int>(dtype)].second;
}

bool FromScalarType(c10::ScalarType type, plan::DType* dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs != type) continue;
    *dtype = ours;
    return true;
  }
  return false;
}

TensorTable::TensorTable(const plan::Plan& plan, const exec::Memory& memory,
                         c10::Device device)
    : plan_(plan),
      memory_(memory),
      device_(device),
      storages_(plan.buffers.size()),
      tensors_(plan.values.size()) {}

const at::Tensor& TensorTable::at(uint32_t index) {
  at::Tensor& tensor = tensors_[index];
  if (tensor.defined()) return tensor;
  const plan::Value& value = plan_.values[index];
  c10::Storage& storage = storages_[value.buffer];
  if (!storage) {
    char* address = memory_.BufferAddress(value.buffer);
    storage = c10::Storage(
        c10::Storage::use_byte_size_t(), plan_.buffers[value.buffer].bytes,
        c10::DataPtr(address, address, &c10::NoDelete, device_), nullptr,
        false);
  }
  const c10::DispatchKey key =
      device_.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(key),
      c10::scalarTypeToTypeMeta(ToScalarType(value.dtype)));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      value.sizes, value.strides, memory_.Offset(index));
  return tensor;
}

}  // namespace heddle::torch_runtime
