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

#include "runtime/torch/ranks.h"

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

c10::Dict<std::string, at::Tensor> ToDict(const TensorMap& map) {
  c10::Dict<std::string, at::Tensor> dict;
  for (const auto& [name, tensor] : map) dict.insert(name, tensor);
  return dict;
}

class Executable : public torch::CustomClassHolder {
 public:
  explicit Executable(std::unique_ptr<Ranks> ranks)
      : ranks_(std::move(ranks)) {}

  std::string StateNames() { return ranks_->session(0).StateNames(); }
  void SetState(std::string kind, std::string name, at::Tensor tensor) {
    if (absl::Status status = ranks_->SetState(kind, name, tensor);
        !status.ok())
      Raise(status);
  }
  at::Tensor GetState(std::string kind, std::string name) {
    absl::StatusOr<at::Tensor> tensor = ranks_->GetState(kind, name);
    if (!tensor.ok()) Raise(tensor.status());
    return *tensor;
  }
  std::vector<at::Tensor> GetStateRanks(std::string kind, std::string name) {
    absl::StatusOr<std::vector<at::Tensor>> tensors =
        ranks_->GetStateOfRanks(kind, name);
    if (!tensors.ok()) Raise(tensors.status());
    return *tensors;
  }
  void SetScalar(std::string name, double value) {
    ranks_->SetScalar(name, value);
  }
  int64_t Size() { return ranks_->size(); }
  c10::Dict<std::string, at::Tensor> Run(
      std::string section, c10::Dict<std::string, at::Tensor> inputs) {
    RequireOneRank("run");
    absl::StatusOr<TensorMap> results =
        ranks_->session(0).Run(section, FromDict(inputs));
    if (!results.ok()) Raise(results.status());
    return ToDict(*results);
  }
  std::vector<c10::Dict<std::string, at::Tensor>> RunRanks(
      std::string section,
      std::vector<c10::Dict<std::string, at::Tensor>> inputs) {
    std::vector<TensorMap> maps;
    for (const auto& dict : inputs) maps.push_back(FromDict(dict));
    absl::StatusOr<std::vector<TensorMap>> results = ranks_->Run(section, maps);
    if (!results.ok()) Raise(results.status());
    std::vector<c10::Dict<std::string, at::Tensor>> dicts;
    for (const TensorMap& map : *results) dicts.push_back(ToDict(map));
    return dicts;
  }
  std::vector<
      std::tuple<int64_t, std::string, std::vector<std::optional<at::Tensor>>>>
  RunTraced(std::string section, c10::Dict<std::string, at::Tensor> inputs) {
    RequireOneRank("run_traced");
    absl::StatusOr<std::vector<TracedStep>> trace =
        ranks_->session(0).RunTraced(section, FromDict(inputs));
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
    absl::StatusOr<std::unique_ptr<Ranks>> ranks =
        ranks_->LoadSharing(ParseBytes(bytes), static_cast<uint64_t>(seed));
    if (!ranks.ok()) Raise(ranks.status());
    return c10::make_intrusive<Executable>(*std::move(ranks));
  }
  std::string Stats() { return ranks_->Stats(); }
  std::string Print() { return plan::PlanText(ranks_->plan()); }

 private:
  void RequireOneRank(const char* method) {
    if (ranks_->size() > 1)
      throw std::runtime_error(
          std::string(method) + ": the plan has " +
          std::to_string(ranks_->size()) +
          " ranks; use run_ranks, with the inputs of each");
  }

  std::unique_ptr<Ranks> ranks_;
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
  absl::StatusOr<std::unique_ptr<Ranks>> ranks =
      Ranks::Load(ParseBytes(bytes), static_cast<uint64_t>(seed));
  if (!ranks.ok()) Raise(ranks.status());
  return c10::make_intrusive<Executable>(*std::move(ranks));
}

}  // namespace

// A fragment: other libraries of Heddle register in the same namespace.
TORCH_LIBRARY_FRAGMENT(heddle, m) {
  m.class_<Executable>("Executable")
      .def("state_names", &Executable::StateNames)
      .def("set_state", &Executable::SetState)
      .def("get_state", &Executable::GetState)
      .def("get_state_ranks", &Executable::GetStateRanks)
      .def("set_scalar", &Executable::SetScalar)
      .def("ranks", &Executable::Size)
      .def("run", &Executable::Run)
      .def("run_ranks", &Executable::RunRanks)
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
