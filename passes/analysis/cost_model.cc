// The table of devices and its arithmetic. GPU rows are what well-written
// kernels and rings reach, not the data sheet's peaks: 0.65 of dense matrix
// throughput, 0.85 of the memory's bandwidth, 340 GB/s of a rank's NVLinks
// without multicast. Latencies fit the measured 8, 17 and 30 microseconds of
// gathers on 2, 4 and 8 ranks; a larger world continues the line.
#include "passes/analysis/cost_model.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "nlohmann/json.hpp"

namespace heddle {

const DeviceCost& deviceCost(const std::string& target) {
  static constexpr DeviceCost gpu = {
      "H200 (141 GB, SXM)", 3e-6,   4.8e12 * 0.85, 989e12 * 0.65, 67e12 * 0.65,
      67e12 * 0.65,         0.8e-6, 3.65e-6,       340e9};
  static constexpr DeviceCost host = {
      "host, 2 cores", 2e-6, 2e10, 1e11, 1e11, 5e10, 10e-6, 5e-6, 4e9};
  return target == "cuda" ? gpu : host;
}

const DeviceOverhead& deviceOverhead(const std::string& target) {
  // What tests/gpu/check_memory.py found; nobody has measured a communicator's.
  static constexpr DeviceOverhead gpu = {
      "an H200 with driver 580.159, CUDA 13.0 and PyTorch 2.11",
      int64_t{5236} * (1 << 20) / 10,
      94 << 20,
      66 << 20,
      32 << 20,
      -1};
  static constexpr DeviceOverhead host = {"a host has none", 0, 0, 0, 0, 0};
  return target == "cuda" ? gpu : host;
}

double stepSeconds(const DeviceCost& cost, const std::string& precision,
                   int64_t flops, int64_t bytes) {
  const double rate = precision == "fp64"   ? cost.flops64
                      : precision == "fp32" ? cost.flops32
                                            : cost.flops16;
  return cost.launchSeconds +
         std::max(static_cast<double>(flops) / rate,
                  static_cast<double>(bytes) / cost.bytesPerSecond);
}

double collectiveSeconds(const DeviceCost& cost, int64_t ranks,
                         int64_t wireBytes) {
  if (ranks <= 1) return cost.launchSeconds;
  return cost.linkSeconds + static_cast<double>(ranks) * cost.hopSeconds +
         static_cast<double>(wireBytes) / cost.linkBytesPerSecond;
}

int64_t wireBytes(const std::string& collective, int64_t ranks,
                  int64_t wholeBytes) {
  if (collective == "broadcast") return wholeBytes;
  const int64_t once = wholeBytes / ranks * (ranks - 1);
  return collective == "all_reduce" ? 2 * once : once;
}

std::optional<double> MeasuredCosts::ofStep(
    const std::string& signature) const {
  auto known = steps.find(signature);
  if (known == steps.end()) return std::nullopt;
  return known->second;
}

std::optional<double> MeasuredCosts::ofCollective(const std::string& collective,
                                                  const std::string& axis,
                                                  int64_t ranks,
                                                  int64_t wireBytes) const {
  auto known = collectives.find({collective, axis, ranks});
  if (known == collectives.end()) return std::nullopt;
  return known->second.seconds +
         static_cast<double>(wireBytes) / known->second.bytesPerSecond;
}

std::string readMeasuredCosts(const std::string& path, MeasuredCosts& costs) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return path + ": cannot read the file of costs";
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  try {
    if (json.at("format").get<std::string>() == "heddle.costs") {
      if (const int version = json.at("version").get<int>(); version != 1)
        return path + ": costs of version " + std::to_string(version) +
               ", this reads 1; measure again";
      for (const nlohmann::json& entry : json.at("operators"))
        costs.steps[entry.at("operator").get<std::string>()] =
            entry.at("microseconds").get<double>() * 1e-6;
      for (const nlohmann::json& entry :
           json.value("collectives", nlohmann::json::array())) {
        MeasuredCosts::Line line{entry.at("microseconds").get<double>() * 1e-6,
                                 entry.at("bytes_per_second").get<double>()};
        if (!(line.seconds >= 0) || !(line.bytesPerSecond > 0))
          return path + ": a collective's time cannot be; measure again";
        costs.collectives[{entry.at("collective").get<std::string>(),
                           entry.at("axis").get<std::string>(),
                           entry.at("ranks").get<int64_t>()}] = line;
      }
      return "";
    }
  } catch (const nlohmann::json::exception&) {
  }
  return path + ": not what heddle-run --measure writes";
}

}  // namespace heddle
