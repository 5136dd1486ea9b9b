// DeepSpeed's schedulers are moved after an update, from "not started": update
// n runs with what they give for iteration n - 2, and update 1 with what they
// give before they start.
#include "api/schedule/schedule.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace heddle {
namespace {

using nlohmann::json;

constexpr double kPi = 3.14159265358979323846;

absl::Status ReadCount(const json& config, const char* key, int64_t low,
                       int64_t* to) {
  if (!config.contains(key) || config[key].is_null()) return absl::OkStatus();
  const json& value = config[key];
  // JSON writers in Python turn 1e3 into 1000.0.
  const double number = value.is_number() ? value.get<double>() : -1;
  if (!(number >= static_cast<double>(low) && number < 1e15 &&
        number == std::floor(number)))
    return absl::InvalidArgumentError(
        absl::StrCat("the schedule's ", key, " is ", value.dump(),
                     ", which is no count of at least ", low));
  *to = static_cast<int64_t>(number);
  return absl::OkStatus();
}

absl::Status ReadNumber(const json& config, const char* key, double* to) {
  if (!config.contains(key) || config[key].is_null()) return absl::OkStatus();
  const json& value = config[key];
  if (!value.is_number() || !std::isfinite(value.get<double>()) ||
      value.get<double>() < 0)
    return absl::InvalidArgumentError(
        absl::StrCat("the schedule's ", key, " is ", value.dump(),
                     ", which is no number of at least 0"));
  *to = value.get<double>();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Schedule> Schedule::Parse(const json& config, int64_t total) {
  Schedule schedule;
  schedule.total_ = total;
  if (config.is_null()) return schedule;
  if (!config.is_object() || !config.contains("kind") ||
      !config["kind"].is_string())
    return absl::InvalidArgumentError(
        "the schedule is no JSON object with a \"kind\"");
  schedule.kind_ = config["kind"].get<std::string>();
  if (schedule.kind_ == "deepspeed") {
    if (absl::Status status = schedule.ReadDeepSpeed(config); !status.ok())
      return status;
    return schedule;
  }
  if (schedule.kind_ != "constant" && schedule.kind_ != "linear" &&
      schedule.kind_ != "cosine")
    return absl::InvalidArgumentError(
        absl::StrCat("the schedule '", schedule.kind_,
                     "' is not constant, linear, cosine or deepspeed"));
  if (absl::Status status = ReadCount(config, "warmup", 0, &schedule.warmup_);
      !status.ok())
    return status;
  if (absl::Status status = ReadCount(config, "total", 1, &schedule.total_);
      !status.ok())
    return status;
  return schedule;
}

absl::Status Schedule::ReadDeepSpeed(const json& config) {
  type_ = config.value("type", "");
  const bool cosine = type_ == "WarmupCosineLR";
  if (type_ != "WarmupLR" && type_ != "WarmupDecayLR" && !cosine)
    return absl::InvalidArgumentError(
        absl::StrCat("the scheduler '", type_,
                     "' is not WarmupLR, WarmupDecayLR or WarmupCosineLR"));
  double base = 0;
  if (absl::Status status = ReadNumber(config, "lr", &base); !status.ok())
    return status;
  warmup_ = 1000;
  if (absl::Status status = ReadCount(config, "warmup_num_steps", 0, &warmup_);
      !status.ok())
    return status;
  warmup_ = std::max<int64_t>(2, warmup_);
  if (type_ != "WarmupLR" && (!config.contains("total_num_steps") ||
                              !config["total_num_steps"].is_number()))
    return absl::InvalidArgumentError(
        absl::StrCat(type_, " needs total_num_steps"));
  if (absl::Status status = ReadCount(config, "total_num_steps", 1, &total_);
      !status.ok())
    return status;
  const std::string shape = config.value("warmup_type", "log");
  if (shape != "log" && shape != "linear")
    return absl::InvalidArgumentError(absl::StrCat(
        "the scheduler's warmup_type '", shape, "' is not log or linear"));
  log_ = shape == "log";
  if (cosine) {
    floor_ = 0.0001;
    if (absl::Status status = ReadNumber(config, "warmup_min_ratio", &low_);
        !status.ok())
      return status;
    return ReadNumber(config, "cos_min_ratio", &floor_);
  }
  if (base <= 0)
    return absl::InvalidArgumentError(
        absl::StrCat(type_,
                     " gives rates, and the optimizer's own lr, which they are "
                     "factors of, is 0; give it one"));
  double low = 0;
  double high = type_ == "WarmupLR" ? base : 0.001;
  if (absl::Status status = ReadNumber(config, "warmup_min_lr", &low);
      !status.ok())
    return status;
  if (absl::Status status = ReadNumber(config, "warmup_max_lr", &high);
      !status.ok())
    return status;
  low_ = low / base;
  high_ = high / base;
  return absl::OkStatus();
}

double Schedule::DeepSpeedFactor(int64_t update) const {
  const int64_t iteration = update - 2;
  const bool cosine = type_ == "WarmupCosineLR";
  if (iteration < 0) return cosine ? 0 : low_;
  const double warmup = static_cast<double>(warmup_);
  double rise = 1;
  if (iteration < warmup_)
    rise = log_
               ? std::log(static_cast<double>(iteration + 1)) / std::log(warmup)
               : static_cast<double>(iteration) / warmup;
  if (iteration < warmup_ || type_ == "WarmupLR")
    return low_ + (high_ - low_) * rise;
  const double span =
      static_cast<double>(std::max<int64_t>(1, total_ - warmup_));
  if (!cosine)
    return low_ +
           (high_ - low_) *
               std::max(0.0, static_cast<double>(total_ - iteration) / span);
  const double progress =
      std::min(1.0, static_cast<double>(iteration - warmup_ + 1) / span);
  return std::max(0.0,
                  floor_ + (1 - floor_) * (1 + std::cos(kPi * progress)) / 2);
}

double Schedule::Factor(int64_t update) const {
  if (kind_ == "deepspeed") return DeepSpeedFactor(update);
  if (update <= warmup_)
    return static_cast<double>(update) / static_cast<double>(warmup_);
  const double progress =
      total_ > warmup_
          ? std::min(1.0, static_cast<double>(update - warmup_) /
                              static_cast<double>(total_ - warmup_))
          : 1;
  if (kind_ == "linear") return 1 - progress;
  if (kind_ == "cosine") return 0.5 * (1 + std::cos(progress * kPi));
  return 1;
}

}  // namespace heddle
