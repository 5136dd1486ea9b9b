// What operators of a plan took, measured where it ran: heddle-run writes it,
// whoever predicts times reads it. The file is JSON,
// {"format": "heddle.costs", "version": 1, "device", "torch", "precision",
//  "operators": [{"operator", "runs", "microseconds"}]}.

#ifndef HEDDLE_RUNTIME_TRACE_COSTS_H_
#define HEDDLE_RUNTIME_TRACE_COSTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::trace {

inline constexpr int kCostsVersion = 1;

struct Cost {
  int64_t runs = 0;
  double microseconds = 0;  // median
};

struct Costs {
  std::string device;
  std::string torch;
  std::string precision;
  // By plan::SignatureText of the step.
  std::map<std::string, Cost> operators;
};

// Median of each operator's runs, all of them kept until then.
class CostMeter {
 public:
  void Add(const std::string& operator_signature, double seconds) {
    runs_[operator_signature].push_back(seconds);
  }
  std::map<std::string, Cost> Medians() const;

 private:
  std::map<std::string, std::vector<double>> runs_;
};

// Whole or not at all.
absl::Status WriteCosts(const Costs& costs, const std::string& path);
// NotFound or InvalidArgument name the file; another version is refused.
absl::StatusOr<Costs> ReadCosts(const std::string& path);

}  // namespace heddle::trace

#endif  // HEDDLE_RUNTIME_TRACE_COSTS_H_
