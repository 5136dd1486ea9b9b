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

// Names are those of the kernels; empty ones mean: what fits the precision.
struct MuonSettings {
  double momentum = 0.95;
  bool nesterov = true;
  std::string form = "torch";
  std::string ns = "gram";
  std::string coefficients = "keller_jordan";
  std::vector<double> ownCoefficients;  // three numbers an iteration
  int64_t steps = 5;
  std::string nsDtype;
  std::string scale = "match_rms";
  double eps = 1e-7;
  std::string normEps = "add";
  std::string stateDtype;
  // Globs over names, and into how many blocks of rows their matrices fall.
  std::vector<std::pair<std::string, int64_t>> split;
};

struct ParamGroup {
  std::vector<std::string> params;  // globs over parameter names
  std::vector<std::string> roles;   // kinds of parameter; empty: all
  std::optional<MuonSettings> muon;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weightDecay = 0.01;
  double lrScale = 1.0;
};

// How fp16's loss is scaled; optim.loss_scale says what each means. Not
// dynamic: by `initial`, always.
struct LossScaleSettings {
  bool dynamic = true;
  double initial = 65536;
  int64_t window = 1000;
  int64_t hysteresis = 2;
  bool consecutiveHysteresis = false;
  double minimum = 1;
};

// Empty names mean: the wider of fp32 and the parameter's own.
struct OptimizerConfig {
  std::vector<ParamGroup> groups;
  std::optional<double> clip;
  bool skipNonfinite = false;
  std::optional<LossScaleSettings> lossScale;
  std::string lossAverage;
  std::string accumulateDtype;
  std::string masterDtype;
  std::string stateDtype;
};

llvm::Expected<OptimizerConfig> parseOptimizerConfig(llvm::StringRef json);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_GRAPH_OPTIMIZER_CONFIG_H_
