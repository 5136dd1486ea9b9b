// Traced tensors → stand-ins on the way into the target's autocast kernel, and
// back for whatever it calls. See autocast.h.
#include "capture/autocast.h"

#include <ATen/autocast_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <utility>

#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

// Says that it lies on `device` and has the traced tensor's geometry; has
// neither storage nor bytes.
struct StandIn final : c10::TensorImpl {
  StandIn(at::Tensor tensor, c10::Device device)
      : c10::TensorImpl(c10::DispatchKeySet(kStandIn), tensor.dtype(), device),
        traced(std::move(tensor)) {
    set_sizes_and_strides(traced.sizes(), traced.strides());
  }
  at::Tensor traced;
};

at::Tensor MakeStandIn(const at::Tensor& traced, c10::DeviceType target) {
  return at::Tensor(
      c10::make_intrusive<StandIn>(traced, c10::Device(target, 0)));
}

at::Tensor TracedOf(const at::Tensor& tensor) {
  const auto* stand_in =
      tensor.defined() ? dynamic_cast<StandIn*>(tensor.unsafeGetTensorImpl())
                       : nullptr;
  return stand_in == nullptr ? tensor : stand_in->traced;
}

// Puts `replace` of every tensor in place of it, on the top `count` entries.
template <typename Replace>
void ReplaceTensors(torch::jit::Stack* stack, size_t count, Replace replace) {
  for (size_t i = stack->size() - count; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = replace(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& element : value.toTensorVector())
        list.push_back(replace(element));
      value = std::move(list);
    } else if (value.isList() && value.toList().elementType()->isSubtypeOf(
                                     *c10::OptionalType::ofTensor())) {
      c10::impl::GenericList list(value.toList().elementType());
      for (const c10::IValue& element : value.toListRef())
        list.push_back(element.isTensor()
                           ? c10::IValue(replace(element.toTensor()))
                           : element);
      value = std::move(list);
    }
  }
}

}  // namespace

AutocastScope::AutocastScope(c10::DeviceType target)
    : target_(target),
      was_excluded_(c10::impl::tls_is_dispatch_key_excluded(kTraceAutocast)) {
  c10::impl::tls_set_dispatch_key_excluded(kTraceAutocast, false);
}

AutocastScope::~AutocastScope() {
  c10::impl::tls_set_dispatch_key_excluded(kTraceAutocast, was_excluded_);
}

at::Tensor AutocastScope::StandInOf(const at::Tensor& traced) {
  if (!IsTraced(traced)) return traced;
  bool weight = traced.requires_grad() && traced.is_leaf() && !traced.is_view();
  if (!weight) return MakeStandIn(traced, target_);
  auto [it, fresh] = weights_.try_emplace(traced.unsafeGetTensorImpl());
  if (fresh) {
    it->second = {traced, MakeStandIn(traced, target_)};
    it->second.stand_in.set_requires_grad(true);
  }
  return it->second.stand_in;
}

void AutocastTraced(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                    torch::jit::Stack* stack) {
  Session* session = Session::Current();
  if (session != nullptr && session->autocast() != nullptr) {
    AutocastScope& autocast = *session->autocast();
    c10::DispatchKey key =
        at::autocast::get_autocast_dispatch_key_from_device_type(
            autocast.target());
    if (at::autocast::is_autocast_enabled(autocast.target()) &&
        op.hasKernelForDispatchKey(key) && !op.isKernelFallthroughKernel(key)) {
      ReplaceTensors(
          stack, op.schema().arguments().size(),
          [&](const at::Tensor& tensor) { return autocast.StandInOf(tensor); });
      op.callBoxedForDispatchKey(key, *stack);
      ReplaceTensors(stack, op.schema().returns().size(), TracedOf);
      return;
    }
  }
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER,
                                                kTraceAutocast),
                     stack);
}

void CallOnTraced(const c10::OperatorHandle& op, c10::DispatchKeySet,
                  torch::jit::Stack* stack) {
  Session* session = Session::Current();
  TORCH_CHECK(session != nullptr && session->autocast() != nullptr,
              "heddle.capture: ", op.operator_name(),
              " on a tensor of a capture that has ended");
  ReplaceTensors(stack, op.schema().arguments().size(), TracedOf);
  op.callBoxed(*stack);
  ReplaceTensors(stack, op.schema().returns().size(),
                 [&](const at::Tensor& tensor) {
                   return session->autocast()->StandInOf(tensor);
                 });
}

}  // namespace heddle::capture
