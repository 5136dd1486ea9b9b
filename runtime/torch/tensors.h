// at::Tensors over a plan's memory: one storage per buffer, one tensor per
// value, made once.

#ifndef HEDDLE_RUNTIME_TORCH_TENSORS_H_
#define HEDDLE_RUNTIME_TORCH_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "runtime/exec/memory.h"
#include "runtime/plan/plan.h"

namespace heddle::torch_runtime {

c10::ScalarType ToScalarType(plan::DType dtype);
// False for a type that plans do not have.
bool FromScalarType(c10::ScalarType type, plan::DType* dtype);

class TensorTable {
 public:
  TensorTable(const plan::Plan& plan, const exec::Memory& memory,
              c10::Device device);

  // The tensor over a value. It aliases the arena; copy what must outlive the
  // next run.
  const at::Tensor& at(uint32_t value);

 private:
  const plan::Plan& plan_;
  const exec::Memory& memory_;
  c10::Device device_;
  std::vector<c10::Storage> storages_;
  std::vector<at::Tensor> tensors_;
};

}  // namespace heddle::torch_runtime

#endif  // HEDDLE_RUNTIME_TORCH_TENSORS_H_
