// The Python surface of the runtime, without libtorch_python: a class
// registered with LibTorch's dispatcher.
//   torch.ops.load_library("libheddle_runtime.so")
//   executable = torch.ops.heddle.load_plan(plan_bytes_as_uint8_tensor, seed,
//                                           deadline_in_seconds, dump_folder)
//   world = torch.ops.heddle.meet_processes(deadline_in_seconds, dump_folder)
// A Status becomes a RuntimeError with its message.

#include <ATen/ops/empty.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/torch/process_world.h"
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
  int64_t Local() { return ranks_->local(); }
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

// What a process says to the ranks of other processes beside its plans'
// collectives. Every process makes the same calls in one order.
class World : public torch::CustomClassHolder {
 public:
  explicit World(ProcessWorld* process) : process_(process) {}

  int64_t Rank() { return process_->environment().rank; }
  int64_t Size() { return process_->environment().world_size; }
  int64_t LocalRank() { return process_->environment().local_rank; }
  void Agree(std::string text) {
    Require(process_->world()->Agree({std::move(text)}));
  }
  void Publish(std::string key, at::Tensor bytes) {
    bytes = bytes.contiguous();
    Require(process_->world()->Publish(
        key, std::string(static_cast<const char*>(bytes.const_data_ptr()),
                         static_cast<size_t>(bytes.nbytes()))));
  }
  at::Tensor Await(std::string key, int64_t from) {
    absl::StatusOr<std::string> value =
        process_->world()->Await(key, static_cast<int>(from));
    Require(value.status());
    at::Tensor bytes = at::empty({static_cast<int64_t>(value->size())},
                                 at::TensorOptions(at::kByte));
    std::copy(value->begin(), value->end(), bytes.mutable_data_ptr<uint8_t>());
    return bytes;
  }
  std::vector<at::Tensor> Gather(at::Tensor tensor, std::string what) {
    absl::StatusOr<std::vector<at::Tensor>> all =
        process_->Gather(tensor, what);
    Require(all.status());
    return *std::move(all);
  }
  void Fail(std::string why) {
    Require(process_->world()->Fail(absl::InternalError(why)));
  }
  void Leave() { ProcessWorld::Leave(); }

 private:
  static void Require(const absl::Status& status) {
    if (!status.ok()) Raise(status);
  }
  ProcessWorld* const process_;
};

c10::intrusive_ptr<World> MeetProcesses(double deadline,
                                        const std::string& dumps) {
  comm::WorldOptions options;
  options.deadline = absl::Seconds(deadline);
  options.dump_directory = dumps;
  absl::StatusOr<ProcessWorld*> process = ProcessWorld::Get(options);
  if (!process.ok()) Raise(process.status());
  return c10::make_intrusive<World>(*process);
}

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

c10::intrusive_ptr<Executable> LoadPlan(const at::Tensor& bytes, int64_t seed,
                                        double deadline,
                                        const std::string& dumps) {
  absl::StatusOr<std::unique_ptr<Ranks>> ranks = Ranks::Load(
      ParseBytes(bytes),
      {static_cast<uint64_t>(seed), absl::Seconds(deadline), dumps});
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
      .def("local", &Executable::Local)
      .def("run", &Executable::Run)
      .def("run_ranks", &Executable::RunRanks)
      .def("run_traced", &Executable::RunTraced)
      .def("load_sharing", &Executable::LoadSharing)
      .def("stats", &Executable::Stats)
      .def("print", &Executable::Print);
  m.def(
      "load_plan(Tensor bytes, int seed, float deadline=0, str dumps='') -> "
      "__torch__.torch.classes.heddle.Executable",
      &LoadPlan);
  m.class_<World>("World")
      .def("rank", &World::Rank)
      .def("size", &World::Size)
      .def("local_rank", &World::LocalRank)
      .def("agree", &World::Agree)
      .def("publish", &World::Publish)
      .def("await_value", &World::Await)
      .def("gather", &World::Gather)
      .def("fail", &World::Fail)
      .def("leave", &World::Leave);
  m.def(
      "meet_processes(float deadline, str dumps) -> "
      "__torch__.torch.classes.heddle.World",
      &MeetProcesses);
}

}  // namespace heddle::torch_runtime
