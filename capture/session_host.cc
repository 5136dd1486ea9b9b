// Where the step and the host meet: host tensors that operators read
// (constants, refused strangers) and step values that Python reads (guards).
// Invariant: what crosses from the step to the host is either repeated by a
// guard in every step, or refused.
#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "capture/host_allocations.h"
#include "capture/session.h"
#include "capture/trace_device.h"
#include "capture/value_oracle.h"

namespace heddle::capture {

ValueId Session::UseHostTensor(const at::Tensor& tensor,
                               const std::string& op) {
  TORCH_CHECK(
      tensor.layout() == at::kStrided && !tensor.is_nested(),
      "heddle.capture: ", Place(op),
      " reads a sparse or nested tensor; the captured step must be dense");
  TORCH_CHECK(
      tensor.device().is_cpu(), "heddle.capture: ", Place(op),
      " reads a tensor on ", tensor.device(),
      " that is neither a parameter, a buffer nor in the batch. Register it as "
      "a buffer of its module, or pass it in the batch.");
  if (tensor.dim() == 0) return Use(EmitScalarTensor(tensor), op);
  const void* address = tensor.storage().data();
  auto known = constants_.find(address);
  if (known != constants_.end() &&
      tape_.values[known->second].sizes == tensor.sizes() &&
      tape_.values[known->second].dtype == tensor.scalar_type())
    return known->second;
  TORCH_CHECK(
      tensor.numel() == 0 || host_allocations_->addresses.count(address) != 0,
      "heddle.capture: ", Place(op), " reads a CPU tensor of shape ",
      tensor.sizes(),
      " that existed before the step. Its values would be frozen into the "
      "program. Register it as a buffer of its module, or pass it in the "
      "batch.");
  auto bytes = static_cast<int64_t>(tensor.numel() * tensor.element_size());
  TORCH_CHECK(bytes <= kMaxConstantBytes, "heddle.capture: ", Place(op),
              " uses a constant of ", bytes,
              " bytes made on the host; at most ", kMaxConstantBytes,
              " bytes travel with a program. Register it as a buffer of its "
              "module, or create it on the device of the step's tensors.");
  at::Tensor data = tensor.detach().clone(at::MemoryFormat::Contiguous);
  at::Tensor traced =
      MakeTraceTensor(MakeTraceStorage(bytes), data.scalar_type(), data.sizes(),
                      data.strides(), 0);
  ValueId id = NewValue(traced);
  tape_.bindings.push_back({Binding::Kind::kConstant,
                            {"constant." + std::to_string(constants_.size())},
                            false,
                            "",
                            id,
                            data});
  if (!data.is_floating_point() && !data.is_complex())
    host_inputs_[StorageIdOf(traced)] = data;
  constants_[address] = id;
  kept_.push_back(tensor);
  return id;
}

at::Tensor Session::EmitScalarTensor(const at::Tensor& host) {
  static const c10::OperatorHandle op =
      c10::Dispatcher::singleton().findSchemaOrThrow("aten::scalar_tensor", "");
  torch::jit::Stack stack{host.item(), host.scalar_type(), at::kStrided,
                          TraceDevice(), c10::IValue()};
  RecordCall(op, &stack);
  return stack.back().toTensor();
}

// A shape that follows from integers of the batch is a shape all the same: the
// operator runs on the host, and its operands' values become guards.
torch::jit::Stack Session::InferFromValues(
    const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  const std::string name = NameOf(op.operator_name());
  torch::jit::Stack values;
  for (const c10::IValue& argument : arguments) {
    bool tensors = argument.isTensorList() ||
                   (argument.isList() && !argument.toListRef().empty() &&
                    argument.toListRef()[0].isTensor());
    bool real = argument.isTensor() && argument.toTensor().defined() &&
                at::isFloatingType(argument.toTensor().scalar_type());
    TORCH_CHECK(
        !tensors && !real, "heddle.capture: ", Place(name),
        " has a result whose shape depends on data. A captured step has static "
        "shapes: compute it outside and pass the result in the batch.");
    values.push_back(argument.isTensor() && argument.toTensor().defined()
                         ? c10::IValue(ReadOnHost(argument.toTensor(), name))
                         : argument);
  }
  {
    c10::impl::ExcludeDispatchKeyGuard no_autocast(
        c10::autocast_dispatch_keyset);
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    op.callBoxed(&values);
  }
  for (c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined())
      value = at::empty_strided(value.toTensor().sizes(),
                                value.toTensor().strides(),
                                value.toTensor().options().device(at::kMeta));
  }
  return values;
}

at::Tensor Session::ReadOnHost(const at::Tensor& tensor,
                               const std::string& op) {
  ValueId id = Use(tensor, op);
  at::Tensor host = ValueOracle(*this).Evaluate(id, op);
  guard_values_ += host.numel();
  TORCH_CHECK(
      guard_values_ <= kMaxGuardValues, "heddle.capture: ", Place(op),
      " brings the number of values that Python read from the step's tensors "
      "to ",
      guard_values_, "; more than ", kMaxGuardValues,
      " would fit the program to this one batch. Compute what depends on them "
      "before the step and pass it in the batch (for example position_ids).");
  OpRecord guard;
  guard.arguments = {{Argument::Kind::kTensor, {id}, {}}};
  LinkToAutograd(guard);
  guard.node = -1;
  if (options_.source_of_guard) guard.source = options_.source_of_guard();
  at::Tensor flat = host.to(at::kLong).reshape({-1}).contiguous();
  guard.guard_expected.assign(flat.const_data_ptr<int64_t>(),
                              flat.const_data_ptr<int64_t>() + flat.numel());
  if (!guard.guard_expected.empty()) tape_.ops.push_back(std::move(guard));
  return host;
}

bool Session::RecordHostRead(const c10::OperatorHandle& op,
                             torch::jit::Stack* stack) {
  const std::string& name = op.operator_name().name;
  if (name == "aten::_local_scalar_dense") {
    at::Tensor self = torch::jit::pop(*stack).toTensor();
    stack->emplace_back(ReadOnHost(self, name).item());
    return true;
  }
  if (name == "aten::equal") {
    at::Tensor other = torch::jit::pop(*stack).toTensor();
    at::Tensor self = torch::jit::pop(*stack).toTensor();
    bool same = self.sizes() == other.sizes() &&
                at::native::is_nonzero(at::all(at::eq(self, other)));
    stack->emplace_back(same);
    return true;
  }
  if (name == "aten::_to_copy") {
    const size_t base = stack->size() - op.schema().arguments().size();
    const c10::IValue& device = (*stack)[base + 3];
    if (device.isNone() || !device.toDevice().is_cpu()) return false;
    at::Tensor host = ReadOnHost((*stack)[base].toTensor(), name);
    if (!(*stack)[base + 1].isNone())
      host = host.to((*stack)[base + 1].toScalarType());
    torch::jit::drop(*stack, op.schema().arguments().size());
    stack->emplace_back(host);
    return true;
  }
  if (name == "aten::copy_") {
    const size_t base = stack->size() - 3;
    at::Tensor self = (*stack)[base].toTensor();
    if (IsTraced(self)) return false;
    self.copy_(ReadOnHost((*stack)[base + 1].toTensor(), name));
    torch::jit::drop(*stack, 3);
    stack->emplace_back(self);
    return true;
  }
  return false;
}

}  // namespace heddle::capture
