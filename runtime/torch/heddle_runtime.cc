// The Python surface of the runtime, without libtorch_python: a class
// registered with LibTorch's dispatcher.
//   torch.ops.load_library("libheddle_runtime.so")
//   executable = torch.ops.heddle.load_plan(plan_bytes_as_uint8_tensor, seed)
// A Status becomes a RuntimeError with its message.

#include <torch/custom_class.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "runtime/torch/session.h"

namespace heddle::torch_runtime {
namespace {

plan::Plan ParseBytes(const at::Tensor& bytes);

[[noreturn]] void Raise(const absl::Status& status) {
  throw std::runtime_error(std::string(status.message()));
}

TensorMap FromDict(const c10::Dict<std::string, at::Tensor>& dict) {
  TensorMap map;
  for (const auto& entry : dict) map[entry.key()] = entry.value();
  return map;
}

class Executable : public torch::CustomClassHolder {
 public:
  explicit Executable(std::unique_ptr<Session> session)
      : session_(std::move(session)) {}

  std::string StateNames() { return session_->StateNames(); }
  void SetState(std::string kind, std::string name, at::Tensor tensor) {
    if (absl::Status status = session_->SetState(kind, name, tensor);
        !status.ok())
      Raise(status);
  }
  at::Tensor GetState(std::string kind, std::string name) {
    absl::StatusOr<at::Tensor> tensor = session_->GetState(kind, name);
    if (!tensor.ok()) Raise(tensor.status());
    return *tensor;
  }
  void SetScalar(std::string name, double value) {
    session_->SetScalar(name, value);
  }
  c10::Dict<std::string, at::Tensor> Run(
      std::string section, c10::Dict<std::string, at::Tensor> inputs) {
    absl::StatusOr<TensorMap> results =
        session_->Run(section, FromDict(inputs));
    if (!results.ok()) Raise(results.status());
    c10::Dict<std::string, at::Tensor> dict;
    for (const auto& [name, tensor] : *results) dict.insert(name, tensor);
    return dict;
  }
  std::vector<
      std::tuple<int64_t, std::string, std::vector<std::optional<at::Tensor>>>>
  RunTraced(std::string section, c10::Dict<std::string, at::Tensor> inputs) {
    absl::StatusOr<std::vector<TracedStep>> trace =
        session_->RunTraced(section, FromDict(inputs));
    if (!trace.ok()) Raise(trace.status());
    std::vector<std::tuple<int64_t, std::string,
                           std::vector<std::optional<at::Tensor>>>>
        steps;
    for (const TracedStep& step : *trace) {
      std::vector<std::optional<at::Tensor>> results;
      for (const at::Tensor& tensor : step.results)
        results.push_back(tensor.defined() ? std::optional<at::Tensor>(tensor)
                                           : std::nullopt);
      steps.emplace_back(step.index,
                         step.location.empty()
                             ? step.name
                             : step.name + " at " + step.location,
                         std::move(results));
    }
    return steps;
  }
  c10::intrusive_ptr<Executable> LoadSharing(at::Tensor bytes, int64_t seed) {
    absl::StatusOr<std::unique_ptr<Session>> session =
        session_->LoadSharing(ParseBytes(bytes), static_cast<uint64_t>(seed));
    if (!session.ok()) Raise(session.status());
    return c10::make_intrusive<Executable>(*std::move(session));
  }
  std::string Stats() { return session_->Stats(); }
  std::string Print() { return plan::PlanText(session_->plan()); }

 private:
  std::unique_ptr<Session> session_;
};

plan::Plan ParseBytes(const at::Tensor& bytes) {
  if (bytes.scalar_type() != at::kByte || bytes.dim() != 1 ||
      !bytes.is_contiguous() || !bytes.is_cpu())
    throw std::runtime_error(
        "load_plan: the plan's bytes must be a contiguous one-dimensional "
        "uint8 tensor on the CPU");
  absl::StatusOr<plan::Plan> plan = plan::ParsePlan(
      bytes.const_data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  if (!plan.ok()) Raise(plan.status());
  return *std::move(plan);
}

c10::intrusive_ptr<Executable> LoadPlan(const at::Tensor& bytes, int64_t seed) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Load(ParseBytes(bytes), static_cast<uint64_t>(seed));
  if (!session.ok()) Raise(session.status());
  return c10::make_intrusive<Executable>(*std::move(session));
}

}  // namespace

// A fragment: other libraries of Heddle register in the same namespace.
TORCH_LIBRARY_FRAGMENT(heddle, m) {
  m.class_<Executable>("Executable")
      .def("state_names", &Executable::StateNames)
      .def("set_state", &Executable::SetState)
      .def("get_state", &Executable::GetState)
      .def("set_scalar", &Executable::SetScalar)
      .def("run", &Executable::Run)
      .def("run_traced", &Executable::RunTraced)
      .def("load_sharing", &Executable::LoadSharing)
      .def("stats", &Executable::Stats)
      .def("print", &Executable::Print);
  m.def(
      "load_plan(Tensor bytes, int seed) -> "
      "__torch__.torch.classes.heddle.Executable",
      &LoadPlan);
}

}  // namespace heddle::torch_runtime
