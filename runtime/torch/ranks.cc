// Inputs are copied and results read on the caller's thread: only what may meet
// in a collective runs on the ranks' own. A failure in such work of a rank that
// is a process ends the process.

#include "runtime/torch/ranks.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/plan/verify.h"

namespace heddle::torch_runtime {
namespace {

absl::Status OfRank(int rank, int size, const absl::Status& status) {
  if (size == 1) return status;
  return absl::Status(status.code(),
                      absl::StrCat("rank ", rank, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::Load(plan::Plan plan,
                                                   RanksOptions options) {
  return LoadBeside(nullptr, std::move(plan), std::move(options));
}

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::LoadSharing(plan::Plan plan,
                                                          uint64_t seed) const {
  RanksOptions options = options_;
  options.seed = seed;
  return LoadBeside(this, std::move(plan), std::move(options));
}

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::LoadBeside(const Ranks* other,
                                                         plan::Plan plan,
                                                         RanksOptions options) {
  for (const plan::Axis& axis : plan.mesh) {
    if (axis.name != "dp" && axis.size > 1)
      return absl::UnimplementedError(
          absl::StrCat("the plan is for ", axis.size, " ranks along axis '",
                       axis.name, "', and this runtime knows 'dp' only"));
  }
  auto ranks = std::unique_ptr<Ranks>(new Ranks());
  ranks->options_ = std::move(options);
  if (absl::Status status = ranks->Connect(other, plan); !status.ok())
    return status;
  for (size_t i = 0; i < ranks->communicators_.size(); ++i) {
    const int r = ranks->first() + static_cast<int>(i);
    Rank rank;
    rank.place = {r, i > 0 || ranks->communicators_[0] != nullptr};
    if (ranks->process_ == nullptr && ranks->size() > 1)
      rank.threads = std::max(1, at::get_num_threads() / ranks->size());
    if (ranks->process_ != nullptr)
      rank.device = ranks->process_->environment().local_rank;
    rank.communicators = ranks->communicators_[i];
    absl::StatusOr<std::unique_ptr<Session>> session =
        other == nullptr
            ? Session::Load(plan, ranks->options_.seed, std::move(rank))
            : other->sessions_[i]->LoadSharing(plan, ranks->options_.seed,
                                               std::move(rank));
    if (!session.ok()) return OfRank(r, ranks->size(), session.status());
    ranks->sessions_.push_back(*std::move(session));
  }
  return ranks;
}

// The group of ranks, what they agree on, and their communicators.
absl::Status Ranks::Connect(const Ranks* other, const plan::Plan& plan) {
  const int size = static_cast<int>(plan::WorldSize(plan));
  if (other != nullptr && other->size() != size)
    return absl::InvalidArgumentError(
        absl::StrCat("the plan is for ", size,
                     " ranks and the state is that of ", other->size()));
  if (other != nullptr && other->group_->stalled())
    return absl::FailedPreconditionError(absl::StrCat(
        "a rank's thread has not come back from a step and may still write "
        "the state; compile again (",
        other->group_->broken().message(), ")"));
  if (ProcessWorld::HasLauncher() && (size > 1 || exec::HasCollectives(plan))) {
    absl::StatusOr<comm::RankEnvironment> environment =
        ProcessWorld::Environment();
    if (!environment.ok()) return environment.status();
    if (environment->world_size == size) {
      comm::WorldOptions world;
      world.deadline = options_.deadline;
      world.dump_directory = options_.dumps;
      absl::StatusOr<ProcessWorld*> process =
          ProcessWorld::Get(std::move(world));
      if (!process.ok()) return process.status();
      process_ = *process;
    } else if (environment->world_size > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the plan is for ", size, " ranks and the launcher has started ",
          environment->world_size, " processes; compile the step for dp=",
          environment->world_size, ", or start ", size));
    }
  }
  if (size > 1 && plan.target != "cpu" && process_ == nullptr)
    return absl::UnimplementedError(absl::StrCat(
        "the plan is for ", size, " ranks on ", plan.target,
        ", and a GPU's rank is a process of its own; start it with torchrun "
        "--nproc-per-node ",
        size, ", or compile for device \"cpu\" or for one rank"));
  if (process_ != nullptr) {
    group_ = exec::RankGroup::OfProcess(process_->world());
  } else if (other != nullptr && other->group_->broken().ok()) {
    group_ = other->group_;
  } else {
    comm::WorldOptions world;
    world.deadline = options_.deadline;
    world.dump_directory = options_.dumps;
    if (absl::Status status = comm::FillFromEnvironment(
            [](const char* name) -> const char* { return std::getenv(name); },
            &world);
        !status.ok())
      return status;
    group_ = exec::RankGroup::OfThreads(size, std::move(world));
  }
  if (size == 1 && !exec::HasCollectives(plan)) {
    communicators_.push_back(nullptr);
    return absl::OkStatus();
  }
  // What is said of a plan below is true of one that has been checked.
  if (absl::Status status = plan::Verify(plan); !status.ok()) return status;
  if (absl::Status status = Agree(plan); !status.ok()) return status;
  absl::StatusOr<comm::Backend*> backend = Transport(plan.target);
  if (!backend.ok()) return backend.status();
  for (int r = first(); r < first() + group_->local(); ++r) {
    absl::StatusOr<std::shared_ptr<comm::World>> world = group_->World(r);
    if (!world.ok()) return world.status();
    absl::StatusOr<std::shared_ptr<exec::Communicators>> communicators =
        exec::Communicators::Connect(plan, *world, *backend);
    if (!communicators.ok())
      return process_ == nullptr ? communicators.status()
                                 : (*world)->Fail(communicators.status());
    communicators_.push_back(*std::move(communicators));
  }
  return absl::OkStatus();
}

absl::StatusOr<comm::Backend*> Ranks::Transport(const std::string& target) {
  if (target == "cpu") return nullptr;
  if (process_ != nullptr) return process_->Device();
  absl::StatusOr<std::shared_ptr<comm::World>> world =
      group_->World(group_->first());
  if (!world.ok()) return world.status();
  return AddNccl(**world);
}

absl::Status Ranks::Agree(const plan::Plan& plan) {
  comm::Identity identity;
  identity.text =
      absl::StrCat("torch=", TORCH_VERSION, "\nseed=", options_.seed,
                   "\nconfig=", plan.config, "\n", plan::PlanText(plan));
  std::vector<std::shared_ptr<comm::World>> worlds(size());
  for (int r = first(); r < first() + group_->local(); ++r) {
    absl::StatusOr<std::shared_ptr<comm::World>> world = group_->World(r);
    if (!world.ok()) return world.status();
    worlds[r] = *std::move(world);
  }
  return group_->Run(
      [worlds, identity](int rank) { return worlds[rank]->Agree(identity); },
      /*meet=*/false);
}

std::optional<c10::Device> Ranks::Gpu() const {
  if (process_ == nullptr || plan().target != "cuda") return std::nullopt;
  return c10::Device(
      c10::DeviceType::CUDA,
      static_cast<c10::DeviceIndex>(process_->environment().local_rank));
}

absl::Status Ranks::SetState(const std::string& kind, const std::string& name,
                             const at::Tensor& tensor) {
  const c10::OptionalDeviceGuard on_gpu(Gpu());
  for (auto& session : sessions_) {
    if (absl::Status status = session->SetState(kind, name, tensor);
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Ranks::GetState(const std::string& kind,
                                           const std::string& name) {
  const c10::OptionalDeviceGuard on_gpu(Gpu());
  absl::StatusOr<const plan::StateEntry*> entry = FindState(plan(), kind, name);
  if (!entry.ok()) return entry.status();
  absl::StatusOr<at::Tensor> whole = sessions_[0]->GetState(kind, name);
  if (!whole.ok() || (*entry)->bounds.empty()) return whole;
  for (size_t r = 1; r < sessions_.size(); ++r)
    sessions_[r]->GetShard(**entry, *whole);
  if (process_ == nullptr) return whole;
  absl::StatusOr<comm::Communicator*> state = process_->State(plan().target);
  if (!state.ok()) return state.status();
  if (absl::Status status =
          sessions_[0]->GatherShards(**entry, *whole, **state);
      !status.ok())
    return process_->world()->Fail(status);
  return whole;
}

absl::StatusOr<std::vector<at::Tensor>> Ranks::GetStateOfRanks(
    const std::string& kind, const std::string& name) {
  absl::StatusOr<const plan::StateEntry*> entry = FindState(plan(), kind, name);
  if (!entry.ok()) return entry.status();
  if (!(*entry)->bounds.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("state ", kind, " ", name,
                     " is sharded, no rank has all of it; use get_state"));
  std::vector<at::Tensor> copies;
  for (auto& session : sessions_) {
    absl::StatusOr<at::Tensor> copy = session->GetState(kind, name);
    if (!copy.ok()) return copy.status();
    copies.push_back(*std::move(copy));
  }
  if (process_ != nullptr) {
    const at::Device device = copies[0].device();
    absl::StatusOr<std::vector<at::Tensor>> all = process_->Gather(
        copies[0].cpu(), absl::StrCat("state ", kind, " ", name));
    if (!all.ok()) return all.status();
    copies = *std::move(all);
    for (at::Tensor& copy : copies) copy = copy.to(device);
  }
  return copies;
}

void Ranks::SetScalar(const std::string& name, double value) {
  for (auto& session : sessions_) session->SetScalar(name, value);
}

absl::StatusOr<std::vector<TensorMap>> Ranks::Run(
    const std::string& name, const std::vector<TensorMap>& inputs,
    std::vector<double>* seconds) {
  if (!inputs.empty() && inputs.size() != sessions_.size())
    return absl::InvalidArgumentError(absl::StrCat("inputs for ", inputs.size(),
                                                   " ranks, and the plan has ",
                                                   sessions_.size(), " here"));
  const c10::OptionalDeviceGuard on_gpu(Gpu());
  if (size() == 1 && seconds == nullptr) {
    absl::StatusOr<TensorMap> results =
        sessions_[0]->Run(name, inputs.empty() ? TensorMap() : inputs[0]);
    if (!results.ok()) return results.status();
    return std::vector<TensorMap>{*std::move(results)};
  }
  const plan::Section* section = plan::FindSection(plan(), name);
  if (section == nullptr) return sessions_[0]->Execute(name);  // says so
  for (int i = 0; i < local(); ++i) {
    const absl::Status status = sessions_[i]->BindInputs(
        name, inputs.empty() ? TensorMap() : inputs[i]);
    if (!status.ok()) return OfRank(first() + i, size(), status);
  }
  // Of its own: a thread that is left behind may still write it.
  const auto took = std::make_shared<std::vector<std::vector<double>>>(
      seconds == nullptr ? 0 : sessions_.size());
  const absl::Status status = group_->Run(
      [name, sessions = sessions_, first = first(), took,
       caller = at::ThreadLocalState()](int rank) {
        at::ThreadLocalStateGuard as_caller(caller);
        Session& session = *sessions[rank - first];
        return took->empty()
                   ? session.Execute(name)
                   : session.ExecuteTimed(name, &(*took)[rank - first]);
      },
      exec::HasCollectives(*section));
  if (!status.ok()) return status;
  if (seconds != nullptr) *seconds = std::move((*took)[0]);
  std::vector<TensorMap> results;
  for (auto& session : sessions_) {
    absl::StatusOr<TensorMap> own = session->Results(name);
    if (!own.ok()) return own.status();
    results.push_back(*std::move(own));
  }
  return results;
}

namespace {

// A call in which every rank has `part` elements, and the bytes that reach one.
std::pair<comm::Collective, int64_t> Sample(plan::CollectiveKind kind, int size,
                                            int64_t part, const void* from,
                                            void* to) {
  constexpr plan::DType kType = plan::DType::kF32;
  const int64_t bytes = part * plan::ElementSize(kType), others = size - 1;
  switch (kind) {
    case plan::CollectiveKind::kAllGather:
      return {comm::AllGather(from, to, part, kType), others * bytes};
    case plan::CollectiveKind::kReduceScatter:
      return {comm::ReduceScatter(from, to, part, kType), others * bytes};
    case plan::CollectiveKind::kAllReduce:
      return {comm::AllReduce(from, to, part * size, kType),
              2 * others * bytes};
    case plan::CollectiveKind::kBroadcast:
      break;
  }
  return {comm::Broadcast(from, to, part * size, kType, 0), size * bytes};
}

}  // namespace

absl::StatusOr<std::vector<trace::CollectiveCost>> Ranks::MeasureCollectives() {
  std::vector<trace::CollectiveCost> costs;
  // Connect refuses other axes of more than one rank.
  if (size() == 1) return costs;
  const c10::OptionalDeviceGuard on_gpu(Gpu());
  absl::StatusOr<comm::Backend*> backend = Transport(plan().target);
  if (!backend.ok()) return backend.status();
  std::vector<int> all(size());
  std::iota(all.begin(), all.end(), 0);
  // Worlds own their communicators.
  std::vector<std::shared_ptr<comm::World>> worlds;
  std::vector<comm::Communicator*> communicators;
  for (int r = first(); r < first() + local(); ++r) {
    absl::StatusOr<std::shared_ptr<comm::World>> world = group_->World(r);
    if (!world.ok()) return world.status();
    absl::StatusOr<comm::Communicator*> communicator =
        (*world)->Connect("costs.dp", all, *backend);
    if (!communicator.ok())
      return process_ == nullptr ? communicator.status()
                                 : (*world)->Fail(communicator.status());
    worlds.push_back(*std::move(world));
    communicators.push_back(*communicator);
  }
  // Bytes of all ranks' parts; a GPU's links are fast.
  const int64_t least = int64_t{16384} * (plan().target == "cpu" ? 1 : 16);
  const int64_t sizes[] = {least, 16 * least, 256 * least};
  constexpr int kRuns = 5;
  const at::TensorOptions options =
      at::TensorOptions(at::kFloat).device(Gpu().value_or(c10::Device("cpu")));
  for (const auto kind :
       {plan::CollectiveKind::kAllGather, plan::CollectiveKind::kReduceScatter,
        plan::CollectiveKind::kAllReduce, plan::CollectiveKind::kBroadcast}) {
    trace::CollectiveCost cost;
    cost.collective = plan::CollectiveName(kind);
    cost.axis = "dp";
    cost.ranks = size();
    const auto origin = std::make_shared<comm::Origin>(
        comm::Origin{absl::StrCat("measuring ", cost.collective), "", ""});
    std::vector<std::pair<int64_t, double>> line;
    for (const int64_t bytes : sizes) {
      const int64_t part = bytes / 4 / size();
      const auto took = std::make_shared<std::vector<double>>();
      int64_t wire = Sample(kind, size(), part, nullptr, nullptr).second;
      const absl::Status status = group_->Run(
          [sessions = sessions_, worlds, communicators, first = first(), origin,
           took, kind, size = size(), part, options](int rank) {
            const at::Tensor from = at::zeros({part * size}, options);
            const at::Tensor to = at::empty({part * size}, options);
            comm::Collective call =
                Sample(kind, size, part, from.const_data_ptr(),
                       to.mutable_data_ptr())
                    .first;
            call.origin = origin.get();
            // The first connects what is not connected yet.
            for (int run = 0; run <= kRuns; ++run) {
              absl::StatusOr<double> seconds =
                  sessions[rank - first]->TimeCollective(
                      *communicators[rank - first], call);
              if (!seconds.ok()) return seconds.status();
              if (run > 0 && rank == first) took->push_back(*seconds);
            }
            return absl::OkStatus();
          },
          /*meet=*/true);
      if (!status.ok()) return status;
      std::sort(took->begin(), took->end());
      line.emplace_back(wire, (*took)[kRuns / 2]);
    }
    trace::FitLine(line, &cost);
    costs.push_back(std::move(cost));
  }
  return costs;
}

std::string Ranks::Stats() const {
  nlohmann::json stats = nlohmann::json::parse(sessions_[0]->Stats());
  stats["ranks"] = size();
  stats["first_rank"] = first();
  stats["per_rank"] = nlohmann::json::array();
  for (const auto& session : sessions_) {
    stats["per_rank"].push_back(
        {{"state_bytes", session->plan().state_bytes},
         {"constant_bytes", session->plan().constant_bytes},
         {"input_bytes", session->input_bytes()},
         {"scratch_bytes", session->scratch_bytes()},
         {"newton_schulz", session->Orthogonalised()},
         {"workspace_high_water",
          session->counters().workspace_high_water.load()},
         {"outside_workspace", session->counters().outside_workspace.load()}});
  }
  stats["collectives"] = nlohmann::json::object();
  for (const auto kind :
       {plan::CollectiveKind::kAllGather, plan::CollectiveKind::kReduceScatter,
        plan::CollectiveKind::kAllReduce, plan::CollectiveKind::kBroadcast}) {
    nlohmann::json& entry = stats["collectives"][plan::CollectiveName(kind)];
    entry["bytes"] = nlohmann::json::array();
    entry["calls"] = 0;
    for (const auto& communicators : communicators_) {
      const bool any = communicators != nullptr;
      if (any) entry["calls"] = communicators->count(kind).calls.load();
      entry["bytes"].push_back(any ? communicators->count(kind).bytes.load()
                                   : 0);
    }
  }
  return stats.dump();
}

}  // namespace heddle::torch_runtime
