// What operators and collectives of a plan took, measured where it ran:
// heddle-run writes it, whoever predicts times reads it. The file is JSON,
// {"format": "heddle.costs", "version": 1, "device", "torch", "precision",
//  "operators": [{"operator", "runs", "microseconds"}],
//  "collectives": [{"collective", "axis", "ranks", "microseconds",
//                   "bytes_per_second"}],
//  "memory": {"workspaces", "products", "process": bytes}}; one rank has no
// collectives.

#ifndef HEDDLE_RUNTIME_TRACE_COSTS_H_
#define HEDDLE_RUNTIME_TRACE_COSTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::trace {

inline constexpr int kCostsVersion = 1;

struct Cost {
  int64_t runs = 0;
  double microseconds = 0;  // median
};

// A collective along an axis of so many ranks takes `microseconds`, and the
// bytes that reach a rank at `bytes_per_second`.
struct CollectiveCost {
  std::string collective;
  std::string axis;
  int64_t ranks = 0;
  double microseconds = 0;
  double bytes_per_second = 0;

  double Seconds(int64_t wire_bytes) const {
    return 1e-6 * microseconds +
           static_cast<double>(wire_bytes) / bytes_per_second;
  }
};

struct Costs {
  std::string device;
  std::string torch;
  std::string precision;
  // By plan::SignatureText of the step.
  std::map<std::string, Cost> operators;
  std::vector<CollectiveCost> collectives;
  // Bytes that the run reserved beside the plan's: "workspaces" for what
  // operators and kernels allocate inside, "products" for the library of matrix
  // products, "process" for the rest that its device counted: context, modules,
  // libraries, communicators. Empty in files of runs that did not say.
  std::map<std::string, int64_t> memory;

  // Nullptr where the file does not say.
  const CollectiveCost* Find(const std::string& collective,
                             const std::string& axis, int64_t ranks) const;
};

// Latency and bandwidth of `cost` from seconds by bytes that reach a rank: the
// line with the least sum of squared relative errors among those that rise and
// begin at zero or above. Some bytes must differ; all seconds are positive.
void FitLine(const std::vector<std::pair<int64_t, double>>& seconds,
             CollectiveCost* cost);

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
