// What Python sees of capture: operators in the namespace `heddle` (tensors go
// through the dispatcher, so no Python version is compiled in) and, for the
// calls made once per module, plain C functions for ctypes.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <memory>

#include "capture/print.h"
#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

thread_local std::unique_ptr<Session> session;

Session& Active() {
  TORCH_CHECK(session != nullptr,
              "heddle.capture: no capture is running on this thread");
  return *session;
}

using SourceCallback = int32_t (*)();
thread_local SourceCallback source_callback = nullptr;

void Begin(std::string target, std::string precision, bool sources) {
  TORCH_CHECK(session == nullptr,
              "heddle.capture: a capture is already running on this thread");
  TORCH_CHECK(target == "cpu" || target == "cuda",
              "heddle.capture: unknown target '", target,
              "'; known are cpu and cuda");
  Options options{std::move(target), std::move(precision), nullptr};
  if (source_callback != nullptr) options.source_of_guard = source_callback;
  if (sources && source_callback != nullptr)
    options.source_of_caller = source_callback;
  session = std::make_unique<Session>(std::move(options));
}

at::Tensor AddParameter(at::IntArrayRef sizes, at::IntArrayRef strides,
                        at::ScalarType dtype, std::vector<std::string> names,
                        bool trainable, std::string role) {
  return Active().AddParameter(sizes, strides, dtype, std::move(names),
                               trainable, std::move(role));
}
at::Tensor AddBuffer(const at::Tensor& data, std::string name,
                     bool persistent) {
  return Active().AddBuffer(data, std::move(name), persistent);
}
at::Tensor AddInput(const at::Tensor& data, std::string name) {
  return Active().AddInput(data, std::move(name));
}
void AddResult(std::string kind, std::string name, const at::Tensor& tensor) {
  Active().AddResult(std::move(kind), std::move(name), tensor);
}
void SetBackward(bool backward) {
  Active().SetPhase(backward ? Phase::kBackward : Phase::kForward);
}

std::tuple<std::string, std::vector<std::string>, std::vector<at::Tensor>>
Finish() {
  Active().CheckGenerators();
  Tape tape = Active().Finish();
  session.reset();
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
  for (const Binding& binding : tape.bindings) {
    if (!binding.data.defined()) continue;
    names.push_back(binding.names[0]);
    tensors.push_back(binding.data);
  }
  return {PrintTape(tape), std::move(names), std::move(tensors)};
}

void Abort() { session.reset(); }

}  // namespace
}  // namespace heddle::capture

TORCH_LIBRARY_FRAGMENT(heddle, m) {
  using namespace heddle::capture;
  m.def("capture_begin(str target, str precision, bool sources) -> ()", &Begin);
  m.def(
      "capture_parameter(int[] sizes, int[] strides, ScalarType dtype, str[] "
      "names, bool trainable, str role) -> Tensor",
      &AddParameter);
  m.def("capture_buffer(Tensor data, str name, bool persistent) -> Tensor",
        &AddBuffer);
  m.def("capture_input(Tensor data, str name) -> Tensor", &AddInput);
  m.def("capture_result(str kind, str name, Tensor tensor) -> ()", &AddResult);
  m.def("capture_set_backward(bool backward) -> ()", &SetBackward);
  m.def("capture_finish() -> (str, str[], Tensor[])", &Finish);
  m.def("capture_abort() -> ()", &Abort);
}

extern "C" {
#define HEDDLE_EXPORT __attribute__((visibility("default")))
HEDDLE_EXPORT int32_t heddle_capture_scope(const char* path) {
  return heddle::capture::session ? heddle::capture::session->InternScope(path)
                                  : 0;
}
HEDDLE_EXPORT void heddle_capture_push(int32_t scope) {
  if (heddle::capture::session) heddle::capture::session->PushScope(scope);
}
HEDDLE_EXPORT void heddle_capture_pop() {
  if (heddle::capture::session) heddle::capture::session->PopScope();
}
// Module path of the innermost scope; valid until the next call into capture.
HEDDLE_EXPORT const char* heddle_capture_place() {
  return heddle::capture::session
             ? heddle::capture::session->CurrentScope().c_str()
             : "";
}
HEDDLE_EXPORT int32_t heddle_capture_source(const char* file, int64_t line) {
  return heddle::capture::session
             ? heddle::capture::session->InternSource(file, line)
             : 0;
}
HEDDLE_EXPORT void heddle_capture_set_source_callback(int32_t (*callback)()) {
  heddle::capture::source_callback = callback;
}
HEDDLE_EXPORT int64_t heddle_capture_rng_counter() {
  return heddle::capture::session ? heddle::capture::session->rng_counter() : 0;
}
HEDDLE_EXPORT void heddle_capture_set_rng_counter(int64_t counter) {
  if (heddle::capture::session)
    heddle::capture::session->set_rng_counter(counter);
}
}

namespace {
// Loading the library is what makes the device known.
const bool registered = [] {
  heddle::capture::RegisterTraceDevice();
  return true;
}();
}  // namespace
