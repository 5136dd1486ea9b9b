// A schedule as a plan's configuration holds it -> the factor on the base
// learning rate of every update. Invariant: a pure function of the update's
// number, so that a resumed run has the unbroken run's rates.
#ifndef HEDDLE_API_SCHEDULE_SCHEDULE_H_
#define HEDDLE_API_SCHEDULE_SCHEDULE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace heddle {

class Schedule {
 public:
  // `config`: {"kind": "constant" | "linear" | "cosine", "warmup": W,
  // "total": T}: from 0 linearly to 1 at update W, then as the kind says, to 0
  // at update T; or {"kind": "deepspeed", "type": "WarmupLR" | "WarmupDecayLR"
  // | "WarmupCosineLR", "lr": base, and DeepSpeed's parameters}. `total` stands
  // in where a decaying schedule has none. InvalidArgument names what is wrong.
  static absl::StatusOr<Schedule> Parse(const nlohmann::json& config,
                                        int64_t total);

  // `update` counts from 1.
  double Factor(int64_t update) const;

  const std::string& kind() const { return kind_; }

 private:
  double DeepSpeedFactor(int64_t update) const;
  absl::Status ReadDeepSpeed(const nlohmann::json& config);

  std::string kind_ = "constant";
  int64_t warmup_ = 0;
  int64_t total_ = 0;
  // DeepSpeed's: factors at the warm-up's two ends, and the floor of a cosine.
  std::string type_;
  bool log_ = true;
  double low_ = 0;
  double high_ = 1;
  double floor_ = 0;
};

}  // namespace heddle

#endif  // HEDDLE_API_SCHEDULE_SCHEDULE_H_
