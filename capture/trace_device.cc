// Puts the recorder behind every operator that reaches a backend, and the few
// composites whose choice depends on the target device.
#include "capture/trace_device.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <mutex>

#include "capture/attention.h"
#include "capture/autocast.h"
#include "capture/composites.h"
#include "capture/session.h"

namespace heddle::capture {
namespace {

// Streams and events do not exist here; autograd's engine still asks for them.
struct TraceGuard final : c10::impl::NoOpDeviceGuardImpl<kTraceType> {
  c10::Device getDevice() const override { return TraceDevice(); }
  c10::Device exchangeDevice(c10::Device) const override {
    return TraceDevice();
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, TraceDevice());
  }
  c10::Stream getNewStream(c10::Device, int) const override {
    return c10::Stream(c10::Stream::DEFAULT, TraceDevice());
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};

void RecordOperator(const c10::OperatorHandle& op, c10::DispatchKeySet,
                    torch::jit::Stack* stack) {
  Session* session = Session::Current();
  TORCH_CHECK(session != nullptr, "heddle.capture: ", op.operator_name(),
              " was called on a tensor of a capture that has ended, or from "
              "another thread than the one that captures");
  session->Record(op, stack);
}

bool CompatibleShallowCopy(const at::Tensor&, const at::Tensor&) {
  return true;
}
bool NotPinned(const at::Tensor&, std::optional<at::Device>) { return false; }

bool ReachesBackend(const c10::OperatorHandle& op) {
  // Composites decompose above us; those with a CPU or CUDA kernel beside the
  // decomposition are whole on the target.
  if (!op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd))
    return true;
  return op.hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
         op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

// Registrations must outlive every tensor, so they are never given back.
std::vector<c10::RegistrationHandleRAII>& Kept() {
  static auto* handles = new std::vector<c10::RegistrationHandleRAII>();
  return *handles;
}

template <typename Wanted>
void RegisterOperators(Wanted wanted) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (!wanted(name) ||
        name.name == "aten::_has_compatible_shallow_copy_type" ||
        name.name == "aten::is_pinned")
      continue;
    auto op = dispatcher.findSchema(name);
    if (!op || !ReachesBackend(*op) || op->hasKernelForDispatchKey(kTraceKey))
      continue;
    Kept().push_back(dispatcher.registerImpl(
        name, kTraceKey,
        c10::KernelFunction::makeFromBoxedFunction<&RecordOperator>(),
        std::nullopt, nullptr, "heddle capture"));
  }
}

bool TakesTensors(const c10::OperatorName& name) {
  auto op = c10::Dispatcher::singleton().findSchema(name);
  for (const c10::Argument& argument : op->schema().arguments()) {
    if (argument.type()->isSubtypeOf(*c10::OptionalType::ofTensor()) ||
        argument.type()->str().find("Tensor") != std::string::npos)
      return true;
  }
  return false;
}

}  // namespace

void RegisterCustomOperators() {
  RegisterOperators([](const c10::OperatorName& name) {
    const std::string& full = name.name;
    bool ours_or_core = full.rfind("aten::", 0) == 0 ||
                        full.rfind("heddle::", 0) == 0 ||
                        full.rfind("prim", 0) == 0;
    return !ours_or_core &&
           c10::Dispatcher::singleton().findSchema(name).has_value() &&
           TakesTensors(name);
  });
}

C10_REGISTER_GUARD_IMPL(MAIA, TraceGuard);

c10::Storage MakeTraceStorage(int64_t bytes) {
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes,
                       c10::DataPtr(nullptr, TraceDevice()), nullptr, false);
  storage.unsafeGetStorageImpl()->set_throw_on_mutable_data_ptr();
  return storage;
}

at::Tensor MakeTraceTensor(const c10::Storage& storage, at::ScalarType dtype,
                           at::IntArrayRef sizes, at::IntArrayRef strides,
                           int64_t offset) {
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet({kTraceKey, kTraceAutocast}),
      c10::scalarTypeToTypeMeta(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return tensor;
}

void RegisterTraceDevice() {
  static std::once_flag once;
  std::call_once(once, [] {
    auto& dispatcher = c10::Dispatcher::singleton();
    auto add = [&](const c10::OperatorName& name, c10::DispatchKey key,
                   c10::KernelFunction kernel) {
      Kept().push_back(dispatcher.registerImpl(name, key, std::move(kernel),
                                               std::nullopt, nullptr,
                                               "heddle capture"));
    };
    RegisterOperators([](const c10::OperatorName& name) {
      return name.name.rfind("aten::", 0) == 0;
    });
    add({"aten::_has_compatible_shallow_copy_type", ""}, kTraceKey,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(
            &CompatibleShallowCopy));
    add({"aten::is_pinned", ""}, kTraceKey,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(&NotPinned));
    add({"aten::scaled_dot_product_attention", ""}, kTraceAutograd,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(
            &ScaledDotProductAttention));
    add({"aten::dropout", ""}, kTraceAutograd,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(&Dropout));
    add({"aten::softmax", "int"}, kTraceAutograd,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(&Softmax));
    add({"aten::log_softmax", "int"}, kTraceAutograd,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(&LogSoftmax));
    add({"aten::one_hot", ""}, kTraceAutograd,
        c10::KernelFunction::makeFromUnboxedRuntimeFunction(&OneHot));
    add({"aten::rms_norm", ""}, kTraceAutograd,
        c10::KernelFunction::makeFromBoxedFunction<&RmsNorm>());
    auto add_fallback = [&](c10::DispatchKey key, c10::KernelFunction kernel) {
      Kept().push_back(dispatcher.registerFallback(key, std::move(kernel),
                                                   "heddle capture"));
    };
    add_fallback(kTraceKey,
                 c10::KernelFunction::makeFromBoxedFunction<&RecordOperator>());
    add_fallback(kTraceAutocast,
                 c10::KernelFunction::makeFromBoxedFunction<&AutocastTraced>());
    add_fallback(kStandIn,
                 c10::KernelFunction::makeFromBoxedFunction<&CallOnTraced>());
  });
}

}  // namespace heddle::capture
