// The order of all passes, for the compiler library and for heddle-opt alike.
// Invariant: --train-pipeline and heddle_compile run the passes that are
// written here and no others. What would break it: a caller that builds a
// pipeline of its own.
#ifndef HEDDLE_PASSES_PIPELINES_H_
#define HEDDLE_PASSES_PIPELINES_H_

#include <cstdint>
#include <limits>
#include <string>

#include "mlir/IR/DialectRegistry.h"
#include "mlir/Pass/PassManager.h"

namespace heddle {

struct TrainingPipelineOptions {
  std::string mode = "train";  // train | replay
  std::string mesh = "dp:1";   // axes and their sizes: "dp:4,ep:2"
  int zero = 0;                // ZeRO stage
  bool overlap = true;  // collectives beside computation, where ranks share
  // How far: elements of parameters ahead of their use, of parameters gathered,
  // of gradients on their way (sched-place-collectives).
  int64_t prefetch = 500'000'000;
  int64_t maxLive = std::numeric_limits<int64_t>::max();
  int64_t reducing = 500'000'000;
  int64_t memory = 0;        // bytes of the plan on a rank; 0: not limited
  int64_t deviceMemory = 0;  // bytes of a rank's device, if known
  bool unshard = true;       // keep parameters gathered where `memory` allows
  std::string costs;         // file of heddle-run --measure; empty: the table
  std::string reduceDtype;   // of gradients on the wire in stages 2 and 3
  int ep = 1;                // ranks that share the experts
  int sp = 1;                // ranks that share a sequence
  std::string optimizer = "{}";  // JSON of graph-append-optimizer
  std::string sidecar;           // constants of the step
  std::string
      evalSidecar;  // constants of the evaluation program; empty: sidecar
  // auto: kernels for whole functions where the target is cuda and the mode
  // train; always: also on the CPU, whose kernels are slow references; never.
  std::string fuse = "auto";
  std::string config = "{}";  // JSON object recorded in the plan
  std::string stopAfter;      // graph | dist | sched; empty: run all
  std::string output;         // file the plan is written to; empty: none
  std::string savePhases;  // directory for step.<phase>.mlir; empty: not saved
};

// Reads "zero=0 mesh=dp:1 ..."; a value with spaces stands in single quotes or
// braces. Returns "" or an error that names the nearest known key.
std::string parseTrainingOptions(llvm::StringRef text,
                                 TrainingPipelineOptions& options);

// What of `options` says how collectives are placed and differs from the
// defaults, as parseTrainingOptions reads it: " overlap=off memory=4096", "".
std::string placementFlags(const TrainingPipelineOptions& options);

// "" or why this compiler cannot do what is asked.
std::string checkTrainingOptions(const TrainingPipelineOptions& options);

// From a captured step to a placed and verified schedule (or to where
// `stopAfter` says). `options` must have passed checkTrainingOptions.
void buildTrainingPipeline(mlir::OpPassManager& manager,
                           const TrainingPipelineOptions& options);

// Every dialect of the project.
void registerDialects(mlir::DialectRegistry& registry);
// Every pass of the project and --train-pipeline, for command lines. Call once.
void registerPassesAndPipelines();

// The known name nearest to `name`, or "" if none is near.
std::string nearestName(llvm::StringRef name,
                        llvm::ArrayRef<llvm::StringRef> known);

}  // namespace heddle

#endif  // HEDDLE_PASSES_PIPELINES_H_
