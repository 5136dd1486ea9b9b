// The user's autocast regions, with the cast list of the device captured for.
// Nothing of that list is written here: the target's own autocast kernel runs
// on stand-ins, tensors that say they lie on the target, and what it calls on
// them is called on the traced tensors behind them. Invariant: a stand-in
// exists for PyTorch's autocast code only; no operator of the step receives
// one.
#ifndef HEDDLE_CAPTURE_AUTOCAST_H_
#define HEDDLE_CAPTURE_AUTOCAST_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/DispatchKey.h>

#include <unordered_map>

namespace heddle::capture {

// Traced tensors carry this key beside their own. Its slot has no kernels in
// PyTorch and outranks the targets' autocast keys, so that a call that mixes
// traced tensors with host numbers comes here first.
constexpr c10::DispatchKey kTraceAutocast = c10::DispatchKey::AutocastIPU;

// One capture's share of autocast. While it lives, calls on traced tensors pass
// AutocastTraced. PyTorch's cache of casted weights is the capture's too, but
// nothing passes through it between captures and eager: it knows weights by
// TensorImpl, and those are the stand-ins'.
class AutocastScope {
 public:
  explicit AutocastScope(c10::DeviceType target);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

  c10::DeviceType target() const { return target_; }

  // A weight has one stand-in, because PyTorch caches its cast under that.
  at::Tensor StandInOf(const at::Tensor& traced);

 private:
  struct Weight {
    at::Tensor traced;  // Keeps the address, which is the key.
    at::Tensor stand_in;
  };
  c10::DeviceType target_;
  bool was_excluded_;
  std::unordered_map<const c10::TensorImpl*, Weight> weights_;
};

// The kernels behind kTraceAutocast and behind stand-ins.
void AutocastTraced(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                    torch::jit::Stack* stack);
void CallOnTraced(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack);

// What stand-ins dispatch to; outranks every autocast key.
constexpr c10::DispatchKey kStandIn = c10::DispatchKey::DeferredInit;

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_AUTOCAST_H_
