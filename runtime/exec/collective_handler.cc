// Resolves a collective's addresses and counts once. On the host the step's own
// thread takes part in the meeting; on a GPU the call enqueues.

#include "runtime/exec/collective_handler.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace heddle::exec {
namespace {

// How far apart in the world two ranks lie that are neighbours along the axis.
int64_t RankStep(const plan::Plan& plan, const std::string& axis) {
  int64_t step = 1;
  for (size_t i = plan.mesh.size(); i-- > 0;) {
    if (plan.mesh[i].name == axis) break;
    step *= plan.mesh[i].size;
  }
  return step;
}

comm::Collective Statement(const plan::Plan& plan, const plan::Collective& c,
                           const Memory& memory) {
  comm::Collective statement;
  statement.dtype = plan.values[c.src].dtype;
  statement.input = memory.Address(c.src);
  statement.output = memory.Address(c.dst);
  statement.root = static_cast<int>(c.root);
  switch (c.kind) {
    case plan::CollectiveKind::kAllGather:
      statement.kind = comm::Kind::kAllGather;
      break;
    case plan::CollectiveKind::kReduceScatter:
      statement.kind = comm::Kind::kReduceScatter;
      break;
    case plan::CollectiveKind::kAllReduce:
      statement.kind = comm::Kind::kAllReduce;
      break;
    case plan::CollectiveKind::kBroadcast:
      statement.kind = comm::Kind::kBroadcast;
      break;
  }
  if (c.uneven) {
    for (int64_t r = 0; r < c.ranks; ++r)
      statement.counts.push_back(c.bounds[r + 1] - c.bounds[r]);
  } else {
    statement.count =
        c.bounds.empty() ? plan::ElementCount(plan.values[c.src]) : c.bounds[1];
  }
  return statement;
}

bool Touches(const plan::Plan& plan, int64_t value, uint32_t buffer) {
  return value >= 0 && plan.values[static_cast<size_t>(value)].buffer == buffer;
}

bool Reads(const plan::Plan& plan, const plan::Step& step, uint32_t buffer) {
  for (const plan::Arg& arg : step.args) {
    if (arg.kind == plan::ArgKind::kValue && Touches(plan, arg.i, buffer))
      return true;
    if (arg.kind != plan::ArgKind::kValueList) continue;
    for (int64_t value : arg.ints) {
      if (Touches(plan, value, buffer)) return true;
    }
  }
  return false;
}

bool Writes(const plan::Plan& plan, const plan::Step& step, uint32_t buffer) {
  return std::any_of(
      step.results.begin(), step.results.end(),
      [&](int32_t value) { return Touches(plan, value, buffer); });
}

std::string SourceOf(const plan::Plan& plan, const plan::Step& step) {
  if (step.kind == plan::StepKind::kCollective ||
      step.location >= plan.locations.size())
    return "";
  return plan.locations[step.location].source;
}

// A pass made the collective: its line of the model is that of the first step
// which reads what it brings, or of the last one which wrote what it takes.
std::string NearestSource(const plan::Plan& plan, const plan::Section& section,
                          size_t index, const plan::Collective& c) {
  const uint32_t brought = plan.values[c.dst].buffer;
  const uint32_t taken = plan.values[c.src].buffer;
  for (size_t i = index + 1; i < section.steps.size(); ++i) {
    const plan::Step& step = section.steps[i];
    if (!Reads(plan, step, brought)) continue;
    if (std::string source = SourceOf(plan, step); !source.empty())
      return source;
  }
  for (size_t i = index; i-- > 0;) {
    const plan::Step& step = section.steps[i];
    if (!Writes(plan, step, taken)) continue;
    if (std::string source = SourceOf(plan, step); !source.empty())
      return source;
  }
  return "";
}

class CollectiveStep final : public PreparedStep {
 public:
  CollectiveStep(std::shared_ptr<Communicators> communicators,
                 comm::Communicator& communicator, comm::Collective statement,
                 comm::Origin origin, Communicators::Count& count,
                 uint64_t bytes, bool on_host)
      : communicators_(std::move(communicators)),
        communicator_(communicator),
        statement_(std::move(statement)),
        origin_(std::move(origin)),
        count_(count),
        bytes_(bytes),
        on_host_(on_host) {
    statement_.origin = &origin_;
  }

  absl::Status Execute(const RunContext& context,
                       device::Stream* stream) override {
    // What is captured runs, and counts, with each launch.
    if (!context.capturing) {
      count_.calls += 1;
      count_.bytes += bytes_;
    }
    return communicator_.Issue(statement_, on_host_ ? nullptr : stream);
  }

 private:
  const std::shared_ptr<Communicators> communicators_;
  comm::Communicator& communicator_;
  comm::Collective statement_;
  const comm::Origin origin_;
  Communicators::Count& count_;
  const uint64_t bytes_;
  const bool on_host_;
};

class CollectiveHandler final : public StepHandler {
 public:
  explicit CollectiveHandler(std::shared_ptr<Communicators> communicators)
      : communicators_(std::move(communicators)) {}

  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section& section,
      const plan::Step& step, const Memory& memory) override {
    absl::StatusOr<plan::Collective> collective =
        plan::ReadCollective(plan, step);
    if (!collective.ok()) return collective.status();
    comm::Communicator* communicator =
        communicators_->Find(collective->axis, step.stream);
    if (communicator == nullptr)
      return absl::InternalError(absl::StrCat(
          "no communicator for axis ", collective->axis, " and stream ",
          plan.streams[step.stream], " was connected"));
    comm::Origin origin{absl::StrCat(step.name, " along ", collective->axis),
                        "", ""};
    if (step.location < plan.locations.size()) {
      origin.module = plan.locations[step.location].path;
      origin.source = plan.locations[step.location].source;
    }
    if (origin.source.empty())
      origin.source = NearestSource(
          plan, section, static_cast<size_t>(&step - section.steps.data()),
          *collective);
    comm::Collective statement = Statement(plan, *collective, memory);
    if (absl::Status status = comm::Validate(statement, communicator->group());
        !status.ok())
      return status;
    const uint64_t bytes =
        plan::WireBytes(plan, *collective, memory.coordinate());
    Launch& launch = launches_[&section];
    launch.counts.emplace_back(collective->kind, bytes);
    if (std::none_of(
            launch.communicators.begin(), launch.communicators.end(),
            [&](const auto& known) { return known.first == communicator; }))
      launch.communicators.emplace_back(communicator, origin);
    return std::unique_ptr<PreparedStep>(new CollectiveStep(
        communicators_, *communicator, std::move(statement), std::move(origin),
        communicators_->count(collective->kind), bytes, plan.target == "cpu"));
  }

  absl::Status BeginLaunch(const plan::Section& section,
                           device::Stream& stream) override {
    const auto launch = launches_.find(&section);
    if (launch == launches_.end()) return absl::OkStatus();
    for (const auto& [kind, bytes] : launch->second.counts) {
      communicators_->count(kind).calls += 1;
      communicators_->count(kind).bytes += bytes;
    }
    for (const auto& [communicator, first] : launch->second.communicators) {
      if (absl::Status status = communicator->BeginGraph(
              absl::StrCat("graph of section ", section.name, ", ",
                           launch->second.counts.size(), " collectives"),
              first, stream);
          !status.ok())
        return status;
    }
    return absl::OkStatus();
  }
  absl::Status EndLaunch(const plan::Section& section,
                         device::Stream& stream) override {
    const auto launch = launches_.find(&section);
    if (launch == launches_.end()) return absl::OkStatus();
    for (const auto& [communicator, first] : launch->second.communicators) {
      if (absl::Status status = communicator->EndGraph(stream); !status.ok())
        return status;
    }
    return absl::OkStatus();
  }

 private:
  // What a section's graph holds.
  struct Launch {
    std::vector<std::pair<plan::CollectiveKind, uint64_t>> counts;
    // Each communicator, in the order of first use, and its first collective.
    std::vector<std::pair<comm::Communicator*, comm::Origin>> communicators;
  };

  std::shared_ptr<Communicators> communicators_;
  std::map<const plan::Section*, Launch> launches_;
};

}  // namespace

int64_t CoordinateOf(const plan::Plan& plan, int rank,
                     const std::string& axis) {
  return rank / RankStep(plan, axis) % plan::AxisSize(plan, axis);
}

bool HasCollectives(const plan::Section& section) {
  return std::any_of(section.steps.begin(), section.steps.end(),
                     [](const plan::Step& step) {
                       return step.kind == plan::StepKind::kCollective;
                     });
}

bool HasCollectives(const plan::Plan& plan) {
  return std::any_of(
      plan.sections.begin(), plan.sections.end(),
      [](const plan::Section& section) { return HasCollectives(section); });
}

absl::StatusOr<std::shared_ptr<Communicators>> Communicators::Connect(
    const plan::Plan& plan, std::shared_ptr<comm::World> world,
    comm::Backend* backend) {
  std::set<std::pair<std::string, uint16_t>> needed;
  for (const plan::Section& section : plan.sections) {
    for (const plan::Step& step : section.steps) {
      if (step.kind != plan::StepKind::kCollective) continue;
      absl::StatusOr<plan::Collective> collective =
          plan::ReadCollective(plan, step);
      if (!collective.ok()) return collective.status();
      needed.emplace(collective->axis, step.stream);
    }
  }
  auto communicators = std::make_shared<Communicators>();
  communicators->world_ = world;
  for (const auto& key : needed) {
    const auto& [axis, stream] = key;
    const int64_t apart = RankStep(plan, axis);
    const int64_t first =
        world->rank() - CoordinateOf(plan, world->rank(), axis) * apart;
    std::vector<int> ranks;
    for (int64_t c = 0; c < plan::AxisSize(plan, axis); ++c)
      ranks.push_back(static_cast<int>(first + c * apart));
    // Groups along one axis differ by their first rank.
    absl::StatusOr<comm::Communicator*> connected = world->Connect(
        absl::StrCat(axis, ".", plan.streams[stream], ".", ranks.front()),
        ranks, backend);
    if (!connected.ok()) return connected.status();
    communicators->communicators_[key] = *connected;
  }
  return communicators;
}

comm::Communicator* Communicators::Find(const std::string& axis,
                                        uint16_t stream) const {
  const auto it = communicators_.find({axis, stream});
  return it == communicators_.end() ? nullptr : it->second;
}

std::shared_ptr<StepHandler> CreateCollectiveHandler(
    std::shared_ptr<Communicators> communicators) {
  return std::make_shared<CollectiveHandler>(std::move(communicators));
}

}  // namespace heddle::exec
