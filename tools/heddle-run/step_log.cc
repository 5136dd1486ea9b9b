// Formats numbers for people and for programs.

#include "tools/heddle-run/step_log.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "runtime/safetensors/safetensors.h"
#include "tools/heddle-run/versions.h"

namespace heddle::run {
namespace {

nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

// The lines of steps before `firstStep`.
std::string linesBefore(const std::string& text, int64_t firstStep) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json entry = nlohmann::json::parse(line, nullptr, false);
    if (entry.is_object() && entry.contains("step") &&
        entry["step"].is_number_integer() && entry["step"] < firstStep)
      kept += line + "\n";
  }
  return kept;
}

}  // namespace

double peakTflops(const std::string& device, const std::string& precision) {
  struct Peak {
    const char* name;
    double half, single, twice;
  };
  // Vendors' figures without sparsity; fp32 is what PyTorch computes by
  // default, without TF32.
  static constexpr Peak kPeaks[] = {
      {"H200", 989, 67, 67},     {"H100 PCIe", 756, 51, 51},
      {"H100", 989, 67, 67},     {"H800", 989, 67, 67},
      {"B200", 2250, 80, 40},    {"A100", 312, 19.5, 19.5},
      {"A800", 312, 19.5, 19.5}, {"L40S", 362, 91.6, 1.4},
      {"A10G", 70, 35, 1.1},     {"L4", 121, 30.3, 0.5}};
  for (const Peak& peak : kPeaks) {
    if (device.find(peak.name) == std::string::npos) continue;
    return precision == "fp64"   ? peak.twice
           : precision == "fp32" ? peak.single
                                 : peak.half;
  }
  return 0;
}

absl::StatusOr<std::unique_ptr<StepLog>> StepLog::Open(
    const Options& options, const std::string& target, int64_t firstStep) {
  auto log = std::unique_ptr<StepLog>(new StepLog());
  log->steps_ = options.steps;
  log->firstStep_ = firstStep;
  log->step_ = firstStep - 1;
  log->cuda_ = target == "cuda";
  log->terminal_ = !options.quiet && isatty(STDOUT_FILENO) != 0;
  log->quiet_ = options.quiet;
  log->begin_ = std::chrono::steady_clock::now();
  if (!options.log.empty()) {
    log->jsonPath_ = options.log;
    const std::string kept =
        options.resume ? linesBefore(readFile(options.log), firstStep) : "";
    log->json_ = std::fopen(options.log.c_str(), "we");
    if (log->json_ == nullptr)
      return absl::InvalidArgumentError(absl::StrCat(
          options.log, ": cannot be written: ", std::strerror(errno)));
    std::fwrite(kept.data(), 1, kept.size(), log->json_);
  }
  if (!options.tensorboard.empty()) {
    absl::StatusOr<std::unique_ptr<EventFile>> events =
        EventFile::Create(options.tensorboard);
    if (!events.ok()) return events.status();
    log->events_ = *std::move(events);
  }
  return log;
}

StepLog::~StepLog() {
  ClearBar();
  if (json_ != nullptr) std::fclose(json_);
}

absl::Status StepLog::Write(const StepReport& report) {
  step_ = report.step;
  const auto known = [](double value, const char* format) {
    char text[32] = "-";
    if (!std::isnan(value)) std::snprintf(text, sizeof(text), format, value);
    return std::string(text);
  };
  Say(absl::StrFormat(
      "step %d/%d  loss %s  grad_norm %s  lr %.3e  %.0f %s  MFU %s  memory "
      "%.2f GiB%s",
      report.step, steps_, known(report.loss, "%.6f"),
      known(report.gradNorm, "%.4f"), report.lr, report.tokensPerSecond,
      cuda_ ? "tok/s/GPU" : "tok/s", known(report.mfu * 100, "%.1f%%"),
      static_cast<double>(report.memoryBytes) / (1 << 30),
      report.skipped ? "  skipped" : ""));
  if (json_ != nullptr) {
    const std::string line =
        nlohmann::json({{"step", report.step},
                        {"loss", number(report.loss)},
                        {"grad_norm", number(report.gradNorm)},
                        {"lr", report.lr},
                        {"tokens_per_second", report.tokensPerSecond},
                        {"mfu", number(report.mfu)},
                        {"memory_bytes", report.memoryBytes},
                        {"skipped", report.skipped}})
            .dump() +
        "\n";
    if (std::fwrite(line.data(), 1, line.size(), json_) != line.size() ||
        std::fflush(json_) != 0)
      return absl::ResourceExhaustedError(
          absl::StrCat(jsonPath_, ": cannot be written; is the disk full?"));
  }
  if (events_ == nullptr) return absl::OkStatus();
  std::vector<std::pair<std::string, double>> scalars = {
      {"train/loss", report.loss},
      {"train/grad_norm", report.gradNorm},
      {"train/lr", report.lr},
      {"train/tokens_per_second", report.tokensPerSecond},
      {"train/mfu", report.mfu},
      {"train/memory_bytes", static_cast<double>(report.memoryBytes)}};
  scalars.erase(std::remove_if(scalars.begin(), scalars.end(),
                               [](const auto& scalar) {
                                 return std::isnan(scalar.second);
                               }),
                scalars.end());
  return events_->Write(report.step,
                        std::chrono::duration<double>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count(),
                        scalars);
}

void StepLog::Say(const std::string& line) {
  if (quiet_) return;
  ClearBar();
  std::printf("%s\n", line.c_str());
  DrawBar();
  std::fflush(stdout);
}

void StepLog::ClearBar() {
  if (drawn_) std::printf("\r\033[K");
  drawn_ = false;
}

void StepLog::DrawBar() {
  if (!terminal_ || step_ >= steps_ || step_ < firstStep_) return;
  constexpr int64_t kWidth = 30;
  const int64_t full = kWidth * step_ / steps_;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_)
          .count();
  const double left = seconds / static_cast<double>(step_ - firstStep_ + 1) *
                      static_cast<double>(steps_ - step_);
  std::printf("[%s%s] %lld/%lld  %.0f s left",
              std::string(static_cast<size_t>(full), '#').c_str(),
              std::string(static_cast<size_t>(kWidth - full), ' ').c_str(),
              static_cast<long long>(step_), static_cast<long long>(steps_),
              left);
  drawn_ = true;
}

}  // namespace heddle::run
