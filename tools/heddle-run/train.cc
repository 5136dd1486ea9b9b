// One optimizer step is prologue for every micro-batch (guards, label counts),
// micro_first, micro_next..., boundary.

#include "tools/heddle-run/train.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/torch/session.h"
#include "tools/heddle-run/checkpoint.h"
#include "tools/heddle-run/data.h"

namespace heddle::run {
namespace {

struct Setup {
  std::unique_ptr<torch_runtime::Session> session;
  std::optional<safetensors::Weights> weights;
  std::optional<Data> data;
  double lr = 0;
  std::string schedule = "constant";
  int64_t warmup = 0;
  bool byTokens = false;
  int64_t firstStep = 1;
};

struct StepResult {
  double loss = std::numeric_limits<double>::quiet_NaN();
  double gradNorm = std::numeric_limits<double>::quiet_NaN();
  bool skipped = false;
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
  const nlohmann::json schedule =
      config.contains("schedule") ? config["schedule"] : nlohmann::json();
  if (schedule.is_object()) {
    setup->schedule = schedule.value("kind", "constant");
    setup->warmup = schedule.value("warmup", int64_t{0});
  } else if (schedule.is_string()) {
    setup->schedule = schedule.get<std::string>();
  }
  if (!options.schedule.empty()) setup->schedule = options.schedule;
  if (options.warmup >= 0) setup->warmup = options.warmup;
  if (setup->schedule != "constant" && setup->schedule != "linear" &&
      setup->schedule != "cosine")
    return absl::InvalidArgumentError(
        absl::StrCat(options.plan, ": the plan's schedule '", setup->schedule,
                     "' is not constant, linear or cosine; give --schedule"));
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
  absl::StatusOr<std::unique_ptr<torch_runtime::Session>> session =
      torch_runtime::Session::Load(*std::move(plan),
                                   static_cast<uint64_t>(options.seed));
  if (!session.ok())
    return absl::Status(
        session.status().code(),
        absl::StrCat(options.plan, ": ", session.status().message()));
  setup->session = *std::move(session);
  if (absl::Status status =
          loadWeights(*setup->session, *setup->weights, options.weights);
      !status.ok())
    return status;
  if (!options.checkpoint.empty()) {
    if (absl::Status status = prepareDirectory(options.checkpoint);
        !status.ok())
      return status;
  }
  if (!options.resume) return absl::OkStatus();
  absl::StatusOr<int64_t> step = resume(*setup->session, options.checkpoint);
  if (!step.ok()) return step.status();
  setup->firstStep = *step + 1;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> runStep(const Options& options, Setup& setup,
                                   int64_t step, double lr) {
  torch_runtime::Session& session = *setup.session;
  const int64_t first = (step - 1) * options.microBatches;
  session.SetScalar("lr", lr);
  session.SetScalar("step", static_cast<double>(step));
  session.SetScalar("micro_batches", static_cast<double>(options.microBatches));
  double labels = 0;
  if (plan::FindSection(session.plan(), "prologue") != nullptr) {
    for (int64_t micro = 0; micro < options.microBatches; ++micro) {
      absl::StatusOr<torch_runtime::TensorMap> results =
          session.Run("prologue", setup.data->batch(first + micro));
      if (!results.ok()) return results.status();
      if (const auto count = results->find("output:label_count");
          count != results->end())
        labels += count->second.item<double>();
    }
    session.SetScalar("label_count", labels);
  }
  StepResult out;
  double sum = 0;
  for (int64_t micro = 0; micro < options.microBatches; ++micro) {
    absl::StatusOr<torch_runtime::TensorMap> results =
        session.Run(micro == 0 ? "micro_first" : "micro_next",
                    setup.data->batch(first + micro));
    if (!results.ok()) return results.status();
    sum += results->at("loss").item<double>();
  }
  if (setup.byTokens && labels == 0) {
    out.skipped = true;
    return out;
  }
  out.loss = sum / (setup.byTokens ? labels
                                   : static_cast<double>(options.microBatches));
  absl::StatusOr<torch_runtime::TensorMap> results =
      session.Run("boundary", {});
  if (!results.ok()) return results.status();
  if (const auto norm = results->find("output:grad_norm");
      norm != results->end())
    out.gradNorm = norm->second.item<double>();
  if (const auto finite = results->find("output:finite");
      finite != results->end())
    out.skipped = !finite->second.item<bool>();
  return out;
}

nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace

double scheduleFactor(const std::string& schedule, int64_t step, int64_t warmup,
                      int64_t total) {
  if (step <= warmup)
    return static_cast<double>(step) / static_cast<double>(warmup);
  const double progress = total > warmup
                              ? static_cast<double>(step - warmup) /
                                    static_cast<double>(total - warmup)
                              : 1;
  if (schedule == "linear") return std::max(0.0, 1 - progress);
  if (schedule == "cosine")
    return 0.5 *
           (1 + std::cos(std::min(progress, 1.0) * 3.14159265358979323846));
  return 1;
}

Outcome train(const Options& options, const std::atomic<bool>& stop) {
  Outcome outcome;
  Setup setup;
  outcome.status = prepare(options, &setup);
  if (!outcome.status.ok()) return outcome;
  std::ofstream log;
  if (!options.log.empty()) {
    log.open(options.log, options.resume ? std::ios::app : std::ios::trunc);
    if (!log) {
      outcome.status = absl::InvalidArgumentError(
          absl::StrCat(options.log, ": cannot be written"));
      return outcome;
    }
  }
  const plan::Plan& plan = setup.session->plan();
  uint64_t memory = plan.state_bytes + plan.constant_bytes;
  for (const plan::Section& section : plan.sections)
    memory = std::max(
        memory, plan.state_bytes + plan.constant_bytes + section.scratch_bytes);
  outcome.started = true;
  int64_t saved = -1;
  int64_t step = setup.firstStep;
  const auto save = [&](int64_t at) -> absl::Status {
    if (options.checkpoint.empty() || saved == at) return absl::OkStatus();
    absl::StatusOr<std::string> path =
        saveCheckpoint(*setup.session, *setup.weights, options.weights,
                       options.checkpoint, at);
    if (!path.ok()) return path.status();
    saved = at;
    std::printf("checkpoint %s\n", path->c_str());
    return absl::OkStatus();
  };
  for (; step <= options.steps && !stop; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const double lr = setup.lr * scheduleFactor(setup.schedule, step,
                                                setup.warmup, options.steps);
    absl::StatusOr<StepResult> result = runStep(options, setup, step, lr);
    if (!result.ok()) {
      outcome.status = absl::Status(
          result.status().code(),
          absl::StrCat("step ", step, ": ", result.status().message()));
      return outcome;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
            .count();
    const double rate = static_cast<double>(setup.data->tokensPerBatch() *
                                            options.microBatches) /
                        seconds;
    // A plan without clipping may not compute the norm.
    char norm[32] = "-";
    if (!std::isnan(result->gradNorm))
      std::snprintf(norm, sizeof(norm), "%.4f", result->gradNorm);
    std::printf(
        "step %lld/%lld  loss %.6f  grad_norm %s  lr %.3e  %.0f tok/s  memory "
        "%.1f MiB%s\n",
        static_cast<long long>(step), static_cast<long long>(options.steps),
        result->loss, norm, lr, rate, static_cast<double>(memory) / (1 << 20),
        result->skipped ? "  skipped" : "");
    std::fflush(stdout);
    if (log.is_open()) {
      log << nlohmann::json({{"step", step},
                             {"loss", number(result->loss)},
                             {"grad_norm", number(result->gradNorm)},
                             {"lr", lr},
                             {"tokens_per_second", rate},
                             {"memory_bytes", memory},
                             {"skipped", result->skipped}})
                 .dump()
          << std::endl;
      if (!log) {
        outcome.status = absl::ResourceExhaustedError(absl::StrCat(
            options.log, ": cannot be written; is the disk full?"));
        return outcome;
      }
    }
    if (options.checkpointEvery > 0 && step % options.checkpointEvery == 0) {
      outcome.status = save(step);
      if (!outcome.status.ok()) return outcome;
    }
  }
  if (stop)
    std::printf("stopped after step %lld\n", static_cast<long long>(step - 1));
  if (step > setup.firstStep) outcome.status = save(step - 1);
  return outcome;
}

}  // namespace heddle::run
