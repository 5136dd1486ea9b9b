// One optimizer step is prologue for every micro-batch (guards, label counts),
// micro_first, micro_next..., boundary.

#include "tools/heddle-run/train.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "api/schedule/schedule.h"
#include "nlohmann/json.hpp"
#include "runtime/torch/ranks.h"
#include "runtime/trace/costs.h"
#include "tools/heddle-run/checkpoint.h"
#include "tools/heddle-run/data.h"
#include "tools/heddle-run/step_log.h"
#include "tools/heddle-run/writer.h"

namespace heddle::run {
namespace {

struct Setup {
  std::unique_ptr<torch_runtime::Ranks> ranks;
  std::optional<safetensors::Weights> weights;
  std::optional<Data> data;
  double lr = 0;
  Schedule schedule;
  bool byTokens = false;
  // A skipped step has taken its data and is no update.
  int64_t firstStep = 1;
  int64_t updates = 0;
  trace::CostMeter meter;
};

struct StepResult {
  double loss = std::numeric_limits<double>::quiet_NaN();
  double gradNorm = std::numeric_limits<double>::quiet_NaN();
  bool skipped = false;
  // Whether any rank was told to stop.
  bool stop = false;
  // fp16's: what gradients were multiplied by, and whether they overflowed at
  // the least scale that the plan allows.
  double lossScale = std::numeric_limits<double>::quiet_NaN();
  bool exhausted = false;
};

absl::Status readConfig(const Options& options, const plan::Plan& plan,
                        Setup* setup) {
  const nlohmann::json config =
      plan.config.empty() ? nlohmann::json::object()
                          : nlohmann::json::parse(plan.config, nullptr, false);
  if (!config.is_object())
    return absl::InvalidArgumentError(absl::StrCat(
        options.plan, ": the plan's configuration is not a JSON object"));
  setup->byTokens = config.value("loss_average", "batches") == "tokens";
  nlohmann::json optimizer =
      config.contains("optimizer") && config["optimizer"].is_object()
          ? config["optimizer"]
          : config;
  if (options.lr.has_value()) {
    setup->lr = *options.lr;
  } else if (optimizer.contains("lr") && optimizer["lr"].is_number()) {
    setup->lr = optimizer["lr"].get<double>();
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        options.plan,
        ": the plan's configuration has no learning rate; give --lr"));
  }
  nlohmann::json schedule =
      config.contains("schedule") ? config["schedule"] : nlohmann::json();
  if (schedule.is_string()) schedule = {{"kind", schedule}};
  // What the command line says is about this run: its steps are the total.
  if (!options.schedule.empty()) schedule = {{"kind", options.schedule}};
  if (options.warmup >= 0) {
    if (schedule.is_null()) schedule = {{"kind", "constant"}};
    if (schedule.is_object() && schedule.value("kind", "") == "deepspeed")
      return absl::InvalidArgumentError(
          "--warmup: the plan has one of DeepSpeed's schedulers, whose warm-up "
          "is its own; give --schedule too");
    if (schedule.is_object()) schedule["warmup"] = options.warmup;
  }
  absl::StatusOr<Schedule> parsed = Schedule::Parse(schedule, options.steps);
  if (!parsed.ok())
    return absl::InvalidArgumentError(
        absl::StrCat(options.plan, ": ", parsed.status().message(),
                     "; give --schedule constant, linear or cosine"));
  setup->schedule = *std::move(parsed);
  return absl::OkStatus();
}

absl::Status prepare(const Options& options, Setup* setup) {
  absl::StatusOr<plan::Plan> plan = plan::ReadPlan(options.plan);
  if (!plan.ok()) return plan.status();
  if (!options.device.empty() && options.device != plan->target)
    return absl::InvalidArgumentError(
        absl::StrCat(options.plan, ": the plan was compiled for ", plan->target,
                     " and --device is ", options.device,
                     "; compile the step for ", options.device));
  const int64_t world = plan::WorldSize(*plan);
  if (options.ranks != 0 && options.ranks != world)
    return absl::InvalidArgumentError(
        absl::StrCat(options.plan, ": the plan was compiled for ", world,
                     " ranks and --ranks", " is ", options.ranks,
                     "; compile the step for dp=", options.ranks));
  for (const char* section : {"micro_first", "boundary"}) {
    if (plan::FindSection(*plan, section) == nullptr)
      return absl::InvalidArgumentError(
          absl::StrCat(options.plan, ": the plan has no section ", section,
                       "; compile it with an optimizer to train"));
  }
  if (options.microBatches > 1 &&
      plan::FindSection(*plan, "micro_next") == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(
        options.plan,
        ": the plan has no section micro_next for --micro-batches > 1"));
  if (absl::Status status = readConfig(options, *plan, setup); !status.ok())
    return status;
  absl::StatusOr<int64_t> vocabulary = vocabularySize(options.weights);
  if (!vocabulary.ok()) return vocabulary.status();
  absl::StatusOr<safetensors::Weights> weights =
      safetensors::Weights::Open(options.weights);
  if (!weights.ok()) return weights.status();
  setup->weights = *std::move(weights);
  absl::StatusOr<Data> data = Data::open(options, *plan, *vocabulary);
  if (!data.ok()) return data.status();
  setup->data = *std::move(data);
  absl::StatusOr<std::unique_ptr<torch_runtime::Ranks>> ranks =
      torch_runtime::Ranks::Load(
          *std::move(plan),
          {static_cast<uint64_t>(options.seed),
           absl::Seconds(options.deadline.value_or(0)), options.dumps});
  if (!ranks.ok())
    return absl::Status(
        ranks.status().code(),
        absl::StrCat(options.plan, ": ", ranks.status().message()));
  setup->ranks = *std::move(ranks);
  if (absl::Status status =
          loadWeights(*setup->ranks, *setup->weights, options.weights);
      !status.ok())
    return status;
  if (!options.checkpoint.empty() && setup->ranks->first() == 0) {
    if (absl::Status status = prepareDirectory(options.checkpoint);
        !status.ok())
      return status;
  }
  if (!options.resume) return absl::OkStatus();
  absl::StatusOr<Position> position = resume(*setup->ranks, options.checkpoint);
  if (!position.ok()) return position.status();
  setup->firstStep = position->steps + 1;
  setup->updates = position->updates;
  return absl::OkStatus();
}

// Numbers by rank, as many of each.
using Numbers = std::vector<std::vector<double>>;

// Those of all ranks, from those of the ranks of this process.
absl::StatusOr<Numbers> ofAllRanks(torch_runtime::Ranks& ranks, Numbers own,
                                   const char* what) {
  if (ranks.process() == nullptr) return own;
  const at::Tensor tensor =
      at::empty({static_cast<int64_t>(own[0].size())}, at::kDouble);
  std::copy(own[0].begin(), own[0].end(), tensor.mutable_data_ptr<double>());
  absl::StatusOr<std::vector<at::Tensor>> gathered =
      ranks.process()->Gather(tensor, what);
  if (!gathered.ok()) return gathered.status();
  Numbers all;
  for (const at::Tensor& each : *gathered) {
    const double* data = each.const_data_ptr<double>();
    all.emplace_back(data, data + each.numel());
  }
  return all;
}

// Micro-batch `micro` of every rank here: a rank's micro-batches follow each
// other in the data, and the next rank's come behind them.
std::vector<torch_runtime::TensorMap> roundOf(const Options& options,
                                              const Setup& setup, int64_t step,
                                              int64_t micro) {
  const torch_runtime::Ranks& ranks = *setup.ranks;
  const int64_t world = ranks.size();
  std::vector<torch_runtime::TensorMap> round;
  for (int64_t rank = ranks.first(); rank < ranks.first() + ranks.local();
       ++rank)
    round.push_back(setup.data->batch(
        ((step - 1) * world + rank) * options.microBatches + micro));
  return round;
}

// A section on all ranks; with --measure timed operator by operator. What a
// collective took is also how long it waited for the others: they have prices
// of their own.
absl::StatusOr<std::vector<torch_runtime::TensorMap>> runSection(
    const Options& options, Setup& setup, const std::string& name,
    const std::vector<torch_runtime::TensorMap>& inputs) {
  torch_runtime::Ranks& ranks = *setup.ranks;
  if (!options.measure) return ranks.Run(name, inputs);
  std::vector<double> seconds;
  absl::StatusOr<std::vector<torch_runtime::TensorMap>> results =
      ranks.Run(name, inputs, &seconds);
  if (!results.ok()) return results.status();
  const plan::Section& section = *plan::FindSection(ranks.plan(), name);
  for (size_t i = 0; i < seconds.size(); ++i) {
    if (section.steps[i].kind != plan::StepKind::kCollective)
      setup.meter.Add(plan::SignatureText(ranks.plan(), section.steps[i]),
                      seconds[i]);
  }
  return results;
}

absl::StatusOr<StepResult> runStep(const Options& options, Setup& setup,
                                   int64_t step, double lr, bool stop) {
  using Results = std::vector<torch_runtime::TensorMap>;
  torch_runtime::Ranks& ranks = *setup.ranks;
  const double microBatches =
      static_cast<double>(options.microBatches * ranks.size());
  ranks.SetScalar("lr", lr);
  ranks.SetScalar("step", static_cast<double>(setup.updates + 1));
  ranks.SetScalar("micro_batches", microBatches);
  double labels = 0;
  Numbers counts(ranks.local(), {0});
  if (plan::FindSection(ranks.plan(), "prologue") != nullptr) {
    for (int64_t micro = 0; micro < options.microBatches; ++micro) {
      absl::StatusOr<Results> results = runSection(
          options, setup, "prologue", roundOf(options, setup, step, micro));
      if (!results.ok()) return results.status();
      for (size_t i = 0; i < results->size(); ++i) {
        const torch_runtime::TensorMap& each = (*results)[i];
        if (const auto count = each.find("output:label_count");
            count != each.end())
          counts[i][0] += count->second.item<double>();
      }
    }
    absl::StatusOr<Numbers> all =
        ofAllRanks(ranks, std::move(counts), "label counts");
    if (!all.ok()) return all.status();
    for (const std::vector<double>& rank : *all) labels += rank[0];
    ranks.SetScalar("label_count", labels);
  }
  StepResult out;
  Numbers losses(ranks.local());
  at::ScalarType lossType = at::kDouble;
  for (int64_t micro = 0; micro < options.microBatches; ++micro) {
    absl::StatusOr<Results> results =
        runSection(options, setup, micro == 0 ? "micro_first" : "micro_next",
                   roundOf(options, setup, step, micro));
    if (!results.ok()) return results.status();
    for (size_t i = 0; i < results->size(); ++i) {
      const at::Tensor& loss = (*results)[i].at("loss");
      lossType = loss.scalar_type();
      losses[i].push_back(loss.item<double>());
    }
  }
  // With the losses each rank says whether it was told to stop: all stop after
  // one and the same step.
  for (std::vector<double>& own : losses) own.push_back(stop ? 1 : 0);
  absl::StatusOr<Numbers> all = ofAllRanks(ranks, std::move(losses), "losses");
  if (!all.ok()) return all.status();
  const auto rounded = [&](double value) {
    return at::scalar_tensor(value, at::kDouble).to(lossType).item<double>();
  };
  // As Python sums up: what the ranks have of a micro-batch in the loss's own
  // type, so that both report the same bits.
  double sum = 0;
  for (int64_t micro = 0; micro < options.microBatches; ++micro) {
    double round = 0;
    for (const std::vector<double>& rank : *all)
      round += rank[static_cast<size_t>(micro)];
    sum += rounded(round);
  }
  for (const std::vector<double>& rank : *all) out.stop |= rank.back() != 0;
  if (setup.byTokens && labels == 0) {
    out.skipped = true;
    return out;
  }
  out.loss = rounded(sum / (setup.byTokens ? labels : microBatches));
  absl::StatusOr<Results> results = runSection(options, setup, "boundary", {});
  if (!results.ok()) return results.status();
  // The same on every rank.
  const torch_runtime::TensorMap& first = results->front();
  if (const auto norm = first.find("output:grad_norm"); norm != first.end())
    out.gradNorm = norm->second.item<double>();
  if (const auto finite = first.find("output:finite"); finite != first.end())
    out.skipped = !finite->second.item<bool>();
  if (const auto scale = first.find("output:loss_scale"); scale != first.end())
    out.lossScale = scale->second.item<double>();
  if (const auto end = first.find("output:loss_scale_exhausted");
      end != first.end())
    out.exhausted = end->second.item<bool>();
  return out;
}

// What Newton-Schulz orthogonalises in an update, rank by rank; empty where the
// plan has none of it.
absl::StatusOr<std::string> matricesLine(torch_runtime::Ranks& ranks) {
  Numbers counts;
  for (int i = 0; i < ranks.local(); ++i)
    counts.push_back({static_cast<double>(ranks.session(i).Orthogonalised())});
  absl::StatusOr<Numbers> all =
      ofAllRanks(ranks, std::move(counts), "numbers of matrices");
  if (!all.ok()) return all.status();
  double sum = 0;
  for (const std::vector<double>& rank : *all) sum += rank[0];
  if (sum == 0) return "";
  const auto number = [](std::string* text, const std::vector<double>& rank) {
    absl::StrAppend(text, rank[0]);
  };
  return absl::StrCat("Newton-Schulz: ", sum, " matrices an update, ",
                      absl::StrJoin(*all, " + ", number),
                      all->size() == 1 ? " on one rank" : " on the ranks");
}

// FLOPs of one rank's update, as the plan counts them.
double flopsOf(const plan::Plan& plan, int64_t microBatches) {
  double total = 0;
  for (const plan::Section& section : plan.sections) {
    double flops = 0;
    for (const plan::Step& step : section.steps)
      flops += static_cast<double>(step.flops);
    if (section.name == "micro_first" || section.name == "boundary")
      total += flops;
    if (section.name == "prologue")
      total += flops * static_cast<double>(microBatches);
    if (section.name == "micro_next")
      total += flops * static_cast<double>(microBatches - 1);
  }
  return total;
}

// What --measure found; the first rank's times are everyone's.
absl::Status writeCosts(const Options& options, Setup& setup, StepLog& log) {
  torch_runtime::Ranks& ranks = *setup.ranks;
  absl::StatusOr<std::vector<trace::CollectiveCost>> collectives =
      ranks.MeasureCollectives();
  if (!collectives.ok()) return collectives.status();
  if (ranks.first() != 0) return absl::OkStatus();
  const std::string path = absl::StrCat(options.plan, ".costs.json");
  if (absl::Status status = trace::WriteCosts(
          {ranks.session(0).DeviceName(), ranks.plan().torch_version,
           ranks.plan().precision, setup.meter.Medians(),
           *std::move(collectives), ranks.session(0).MemoryBeside()},
          path);
      !status.ok())
    return status;
  log.Say(absl::StrCat("costs ", path));
  return absl::OkStatus();
}

}  // namespace

Outcome train(const Options& asked, const std::atomic<bool>& stop) {
  Outcome outcome;
  Setup setup;
  Options options = asked;
  outcome.status = prepare(options, &setup);
  if (!outcome.status.ok()) return outcome;
  torch_runtime::Ranks& ranks = *setup.ranks;
  // Of ranks that are processes the first one speaks and writes for all.
  const bool first = ranks.first() == 0;
  if (!first) {
    options.log.clear();
    options.tensorboard.clear();
    options.quiet = true;
  }
  absl::StatusOr<std::unique_ptr<StepLog>> log =
      StepLog::Open(options, ranks.plan().target, setup.firstStep);
  if (!log.ok()) {
    outcome.status = log.status();
    return outcome;
  }
  outcome.started = true;
  absl::StatusOr<std::string> matrices = matricesLine(ranks);
  if (!matrices.ok()) {
    outcome.status = matrices.status();
    return outcome;
  }
  if (!matrices->empty()) (*log)->Say(*matrices);
  const double flops = flopsOf(ranks.plan(), options.microBatches);
  const double peak =
      1e12 * options.peakTflops.value_or(peakTflops(
                 ranks.session(0).DeviceName(), ranks.plan().precision));
  int64_t saved = -1;
  int64_t step = setup.firstStep;
  // Ends before what it reads does.
  BackgroundWriter writer;
  const auto written = [&]() -> absl::Status {
    absl::StatusOr<std::string> path = writer.Wait();
    if (!path.ok()) return path.status();
    if (!path->empty()) (*log)->Say(absl::StrCat("checkpoint ", *path));
    return absl::OkStatus();
  };
  const auto save = [&](int64_t at) -> absl::Status {
    if (options.checkpoint.empty() || saved == at) return absl::OkStatus();
    if (absl::Status status = written(); !status.ok()) return status;
    absl::StatusOr<Snapshot> snapshot =
        takeSnapshot(ranks, {at, setup.updates});
    if (!snapshot.ok()) return snapshot.status();
    saved = at;
    if (!first) return absl::OkStatus();
    writer.Start([&, snapshot = *std::move(snapshot)] {
      return saveCheckpoint(snapshot, *setup.weights, options.weights,
                            options.checkpoint, options.keep);
    });
    return absl::OkStatus();
  };
  const bool processes = ranks.process() != nullptr;
  bool stopping = !processes && stop;
  for (; step <= options.steps && !stopping; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const double lr = setup.lr * setup.schedule.Factor(setup.updates + 1);
    absl::StatusOr<StepResult> result = runStep(options, setup, step, lr, stop);
    if (!result.ok()) {
      outcome.status = absl::Status(
          result.status().code(),
          absl::StrCat("step ", step, ": ", result.status().message()));
      return outcome;
    }
    setup.updates += result->skipped ? 0 : 1;
    if (result->exhausted) {
      outcome.status = absl::OutOfRangeError(absl::StrCat(
          "step ", step, ": gradients are not finite and the loss scale is ",
          result->lossScale,
          " already, the least that the plan allows; the run has diverged: go "
          "on from a checkpoint with a smaller --lr, or compile for bf16"));
      return outcome;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
            .count();
    StepReport report;
    report.step = step;
    report.loss = result->loss;
    report.gradNorm = result->gradNorm;
    report.lr = lr;
    report.tokensPerSecond =
        static_cast<double>(setup.data->tokensPerBatch() *
                            options.microBatches * ranks.size()) /
        seconds;
    report.mfu = peak > 0 ? flops / seconds / peak
                          : std::numeric_limits<double>::quiet_NaN();
    report.memoryBytes = ranks.session(0).MemoryBytes();
    report.skipped = result->skipped;
    outcome.status = (*log)->Write(report);
    if (outcome.status.ok() && writer.Finished()) outcome.status = written();
    if (outcome.status.ok() && options.checkpointEvery > 0 &&
        step % options.checkpointEvery == 0)
      outcome.status = save(step);
    if (!outcome.status.ok()) return outcome;
    stopping = processes ? result->stop : stop.load();
  }
  if (options.measure) {
    outcome.status = writeCosts(options, setup, **log);
    if (!outcome.status.ok()) return outcome;
  }
  outcome.stopped = stopping && step <= options.steps;
  // A run that is stopped before its first update has a beginning to go on
  // from, too.
  if (step > setup.firstStep || (outcome.stopped && step == 1))
    outcome.status = save(step - 1);
  if (outcome.status.ok()) outcome.status = written();
  // Nobody leaves while the first rank writes.
  if (outcome.status.ok() && processes) {
    comm::World& world = *ranks.process()->world();
    outcome.status = first ? world.Publish("run/written", "1")
                           : world.Await("run/written", 0).status();
  }
  if (outcome.stopped && outcome.status.ok())
    (*log)->Say(absl::StrCat(
        "stopped after step ", step - 1, " of ", options.steps,
        options.checkpoint.empty() ? "" : "; go on with --resume"));
  return outcome;
}

}  // namespace heddle::run
