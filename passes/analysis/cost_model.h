// What a step takes on a device that need not be there: launching, FLOPs by the
// device's rate, bytes by its memory's, collectives by its links'. Plain
// arithmetic on a table. Invariant: the compiler that places collectives and
// the tool that predicts their exposure read the same numbers. What would break
// it: a rate written anywhere else.
#ifndef HEDDLE_PASSES_ANALYSIS_COST_MODEL_H_
#define HEDDLE_PASSES_ANALYSIS_COST_MODEL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

namespace heddle {

struct DeviceCost {
  const char* name;
  double launchSeconds;
  double bytesPerSecond;
  // Of matrix products in 16 bits, fp32, fp64; everything else runs at the
  // memory's speed.
  double flops16, flops32, flops64;
  // A collective of W ranks: linkSeconds + W * hopSeconds, and the bytes that
  // reach a rank at linkBytesPerSecond.
  double linkSeconds, hopSeconds, linkBytesPerSecond;
};

// The table's row for a program's target, "cpu" or "cuda".
const DeviceCost& deviceCost(const std::string& target);

// Bytes that a process takes of a device beside what a plan places, and who
// says so; negative: nobody has measured it.
struct DeviceOverhead {
  const char* source;
  int64_t context;
  // Code of the libraries that steps call, loaded as it is first called.
  int64_t modules;
  // cuBLAS with its workspace.
  int64_t blas;
  // What each stream with matrix products of the plan's own has for them.
  int64_t productsPerStream;
  int64_t communicator;
};
const DeviceOverhead& deviceOverhead(const std::string& target);

// A step that runs `flops` and touches `bytes`.
double stepSeconds(const DeviceCost& cost, const std::string& precision,
                   int64_t flops, int64_t bytes);

// A collective of `ranks` that brings `wireBytes` to each.
double collectiveSeconds(const DeviceCost& cost, int64_t ranks,
                         int64_t wireBytes);

// Bytes that reach a rank of `ranks` in a collective whose result (for
// reduce_scatter: operand) has `wholeBytes`.
int64_t wireBytes(const std::string& collective, int64_t ranks,
                  int64_t wholeBytes);

// What a file that heddle-run --measure wrote says.
struct MeasuredCosts {
  // Seconds by a step's signature.
  std::map<std::string, double> steps;
  // By collective, axis and ranks: seconds at the start, and the bytes that
  // reach a rank in one more.
  struct Line {
    double seconds = 0, bytesPerSecond = 0;
  };
  std::map<std::tuple<std::string, std::string, int64_t>, Line> collectives;

  // Nothing where the file does not say.
  std::optional<double> ofStep(const std::string& signature) const;
  std::optional<double> ofCollective(const std::string& collective,
                                     const std::string& axis, int64_t ranks,
                                     int64_t wireBytes) const;
};

// Returns "" or why the file cannot be used.
std::string readMeasuredCosts(const std::string& path, MeasuredCosts& costs);

}  // namespace heddle

#endif  // HEDDLE_PASSES_ANALYSIS_COST_MODEL_H_
