// Backward slice over storages, then real execution in program order. Slicing
// by storage rather than by value keeps in-place writes and views right.
#include "capture/value_oracle.h"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

namespace heddle::capture {

at::Tensor ValueOracle::Evaluate(ValueId value, const std::string& reader) {
  const Tape& tape = session_.tape_;
  auto storage_of = [&](ValueId id) { return tape.values[id].storage; };
  std::vector<bool> needed(session_.storages_.size(), false);
  std::vector<bool> in_slice(tape.ops.size(), false);
  needed[storage_of(value)] = true;
  TORCH_CHECK(!at::isFloatingType(tape.values[value].dtype) &&
                  !at::isComplexType(tape.values[value].dtype),
              "heddle.capture: ", session_.Place(reader), " asks for a ",
              c10::toString(tape.values[value].dtype),
              " value of the step. A value that depends on parameters or "
              "activations cannot steer a compiled step: keep it on the device "
              "(torch.where), or compute it before the step.");
  for (size_t i = tape.ops.size(); i-- > 0;) {
    const OpRecord& op = tape.ops[i];
    if (!op.guard_expected.empty()) continue;
    bool touches = std::any_of(
        op.results.begin(), op.results.end(),
        [&](ValueId id) { return id >= 0 && needed[storage_of(id)]; });
    if (!touches) continue;
    TORCH_CHECK(op.rng_id < 0, "heddle.capture: ", session_.Place(reader),
                " asks for a value that depends on the random operator ",
                op.name.name, "; it would differ in every step");
    in_slice[i] = true;
    for (const Argument& argument : op.arguments) {
      for (ValueId id : argument.values) {
        if (id >= 0) needed[storage_of(id)] = true;
      }
    }
  }

  std::vector<at::Tensor> real(tape.values.size());
  for (const Binding& binding : tape.bindings) {
    int32_t storage = storage_of(binding.value);
    if (!needed[storage]) continue;
    auto it = session_.host_inputs_.find(storage);
    TORCH_CHECK(it != session_.host_inputs_.end(),
                "heddle.capture: ", session_.Place(reader),
                " asks for a value that depends on '", binding.names[0],
                "'. Only the batch's integer and bool entries are known while "
                "a step is captured: compute the value before the step and "
                "pass it in the batch.");
    real[binding.value] = it->second.clone();
  }
  // The tape holds the casts already.
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  for (size_t i = 0; i < tape.ops.size(); ++i) {
    if (!in_slice[i]) continue;
    const OpRecord& op = tape.ops[i];
    torch::jit::Stack stack;
    for (size_t a = 0; a < op.arguments.size(); ++a) {
      const Argument& argument = op.arguments[a];
      if (argument.kind == Argument::Kind::kTensor) {
        stack.emplace_back(argument.values[0] < 0 ? at::Tensor()
                                                  : real[argument.values[0]]);
      } else if (argument.kind == Argument::Kind::kTensorList) {
        const c10::TypePtr& type = op.schema->arguments()[a].type();
        c10::impl::GenericList list(
            type->castRaw<c10::ListType>()->getElementType());
        for (ValueId id : argument.values)
          list.push_back(id < 0 ? c10::IValue() : c10::IValue(real[id]));
        stack.emplace_back(std::move(list));
      } else if (argument.constant.isDevice()) {
        stack.emplace_back(c10::Device(c10::kCPU));
      } else {
        stack.push_back(argument.constant);
      }
    }
    c10::Dispatcher::singleton().findSchema(op.name)->callBoxed(&stack);
    size_t next = 0;
    for (const c10::IValue& result : stack) {
      if (result.isTensor()) {
        if (op.results[next] >= 0) real[op.results[next]] = result.toTensor();
        ++next;
      } else if (result.isTensorList()) {
        for (const at::Tensor& element : result.toTensorVector()) {
          if (op.results[next] >= 0) real[op.results[next]] = element;
          ++next;
        }
      }
    }
  }
  return real[value].clone();
}

}  // namespace heddle::capture
