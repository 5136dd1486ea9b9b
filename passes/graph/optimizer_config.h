// The optimizer's configuration as graph-append-optimizer takes it. Invariant:
// a parsed configuration has every value set and in range.
#ifndef HEDDLE_PASSES_GRAPH_OPTIMIZER_CONFIG_H_
#define HEDDLE_PASSES_GRAPH_OPTIMIZER_CONFIG_H_

#include <optional>
#include <string>
#include <vector>

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace heddle::graph {

struct ParamGroup {
  std::vector<std::string> params;  // globs over parameter names
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weightDecay = 0.01;
  double lrScale = 1.0;
};

// Empty names mean: the wider of fp32 and the parameter's own.
struct OptimizerConfig {
  std::vector<ParamGroup> groups;
  std::optional<double> clip;
  bool skipNonfinite = false;
  std::string lossAverage;
  std::string accumulateDtype;
  std::string masterDtype;
  std::string stateDtype;
};

llvm::Expected<OptimizerConfig> parseOptimizerConfig(llvm::StringRef json);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_OPTIMIZER_CONFIG_H_
