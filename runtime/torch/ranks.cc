// Inputs are copied and results read on the caller's thread: only what may meet
// in a collective runs on the ranks' own.

#include "runtime/torch/ranks.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace heddle::torch_runtime {
namespace {

bool HasCollectives(const plan::Section& section) {
  return std::any_of(section.steps.begin(), section.steps.end(),
                     [](const plan::Step& step) {
                       return step.kind == plan::StepKind::kCollective;
                     });
}

absl::Status OfRank(int rank, int size, const absl::Status& status) {
  if (size == 1) return status;
  return absl::Status(status.code(),
                      absl::StrCat("rank ", rank, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::Load(plan::Plan plan,
                                                   uint64_t seed) {
  return LoadBeside(nullptr, std::move(plan), seed);
}

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::LoadSharing(plan::Plan plan,
                                                          uint64_t seed) const {
  return LoadBeside(this, std::move(plan), seed);
}

absl::StatusOr<std::unique_ptr<Ranks>> Ranks::LoadBeside(const Ranks* other,
                                                         plan::Plan plan,
                                                         uint64_t seed) {
  for (const plan::Axis& axis : plan.mesh) {
    if (axis.name != "dp" && axis.size > 1)
      return absl::UnimplementedError(
          absl::StrCat("the plan is for ", axis.size, " ranks along axis '",
                       axis.name, "', and this runtime knows 'dp' only"));
  }
  const int size = static_cast<int>(plan::WorldSize(plan));
  if (size > 1 && plan.target != "cpu")
    return absl::UnimplementedError(
        absl::StrCat("the plan is for ", size, " ranks on ", plan.target,
                     ", and ranks of one process run on the CPU only; compile "
                     "for device \"cpu\" or for one rank"));
  if (other != nullptr && other->size() != size)
    return absl::InvalidArgumentError(
        absl::StrCat("the plan is for ", size,
                     " ranks and the state is that of ", other->size()));
  auto ranks = std::unique_ptr<Ranks>(new Ranks());
  ranks->group_ = std::make_unique<exec::RankGroup>(size);
  for (int r = 0; r < size; ++r) {
    Rank rank;
    rank.place = {r, r > 0};
    if (size > 1) rank.threads = std::max(1, at::get_num_threads() / size);
    absl::StatusOr<std::shared_ptr<exec::Communicators>> communicators =
        exec::Communicators::Connect(plan, r, ranks->group_->backend(r));
    if (!communicators.ok()) return communicators.status();
    rank.communicators = *communicators;
    absl::StatusOr<std::unique_ptr<Session>> session =
        other == nullptr
            ? Session::Load(plan, seed, std::move(rank))
            : other->sessions_[r]->LoadSharing(plan, seed, std::move(rank));
    if (!session.ok()) return OfRank(r, size, session.status());
    ranks->communicators_.push_back(*std::move(communicators));
    ranks->sessions_.push_back(*std::move(session));
  }
  return ranks;
}

absl::Status Ranks::SetState(const std::string& kind, const std::string& name,
                             const at::Tensor& tensor) {
  for (auto& session : sessions_) {
    if (absl::Status status = session->SetState(kind, name, tensor);
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Ranks::GetState(const std::string& kind,
                                           const std::string& name) {
  absl::StatusOr<const plan::StateEntry*> entry = FindState(plan(), kind, name);
  if (!entry.ok()) return entry.status();
  absl::StatusOr<at::Tensor> whole = sessions_[0]->GetState(kind, name);
  if (!whole.ok() || (*entry)->bounds.empty()) return whole;
  for (size_t r = 1; r < sessions_.size(); ++r)
    sessions_[r]->GetShard(**entry, *whole);
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
  return copies;
}

void Ranks::SetScalar(const std::string& name, double value) {
  for (auto& session : sessions_) session->SetScalar(name, value);
}

absl::StatusOr<std::vector<TensorMap>> Ranks::Run(
    const std::string& name, const std::vector<TensorMap>& inputs) {
  if (!inputs.empty() && inputs.size() != sessions_.size())
    return absl::InvalidArgumentError(absl::StrCat("inputs for ", inputs.size(),
                                                   " ranks, and the plan has ",
                                                   sessions_.size()));
  if (size() == 1) {
    absl::StatusOr<TensorMap> results =
        sessions_[0]->Run(name, inputs.empty() ? TensorMap() : inputs[0]);
    if (!results.ok()) return results.status();
    return std::vector<TensorMap>{*std::move(results)};
  }
  const plan::Section* section = plan::FindSection(plan(), name);
  if (section == nullptr) return sessions_[0]->Execute(name);  // says so
  for (int r = 0; r < size(); ++r) {
    const absl::Status status = sessions_[r]->BindInputs(
        name, inputs.empty() ? TensorMap() : inputs[r]);
    if (!status.ok()) return OfRank(r, size(), status);
  }
  const at::ThreadLocalState caller;
  const absl::Status status = group_->Run(
      [&](int rank) {
        at::ThreadLocalStateGuard as_caller(caller);
        return sessions_[rank]->Execute(name);
      },
      HasCollectives(*section));
  if (!status.ok()) return status;
  std::vector<TensorMap> results;
  for (auto& session : sessions_) {
    absl::StatusOr<TensorMap> own = session->Results(name);
    if (!own.ok()) return own.status();
    results.push_back(*std::move(own));
  }
  return results;
}

std::string Ranks::Stats() const {
  nlohmann::json stats = nlohmann::json::parse(sessions_[0]->Stats());
  stats["ranks"] = sessions_.size();
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
    entry["calls"] = communicators_[0]->count(kind).calls.load();
    for (const auto& communicators : communicators_)
      entry["bytes"].push_back(communicators->count(kind).bytes.load());
  }
  return stats.dump();
}

}  // namespace heddle::torch_runtime
