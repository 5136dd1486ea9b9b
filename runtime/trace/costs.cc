// Costs <-> JSON. Invariant: what is written is read back equal, and a file of
// another kind is an error, not a set of costs without operators.
#include "runtime/trace/costs.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/dump.h"

namespace heddle::trace {

using Json = nlohmann::json;

std::map<std::string, Cost> CostMeter::Medians() const {
  std::map<std::string, Cost> medians;
  for (const auto& [name, runs] : runs_) {
    std::vector<double> sorted = runs;
    const auto middle =
        sorted.begin() + static_cast<int64_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    medians[name] = {static_cast<int64_t>(runs.size()), 1e6 * *middle};
  }
  return medians;
}

const CollectiveCost* Costs::Find(const std::string& collective,
                                  const std::string& axis,
                                  int64_t ranks) const {
  for (const CollectiveCost& cost : collectives) {
    if (cost.collective == collective && cost.axis == axis &&
        cost.ranks == ranks)
      return &cost;
  }
  return nullptr;
}

void FitLine(const std::vector<std::pair<int64_t, double>>& seconds,
             CollectiveCost* cost) {
  // Sums of 1, x, x^2, y and xy, each over y^2.
  double n = 0, x = 0, xx = 0, y = 0, xy = 0;
  for (const auto& [bytes, time] : seconds) {
    const double b = static_cast<double>(bytes), weight = 1 / (time * time);
    n += weight;
    x += weight * b;
    xx += weight * b * b;
    y += weight * time;
    xy += weight * b * time;
  }
  double slope = (n * xy - x * y) / (n * xx - x * x);
  double start = (y - slope * x) / n;
  if (start < 0) {
    start = 0;
    slope = xy / xx;
  }
  // Larger was not slower: all of it is latency, as far as anybody can tell.
  if (!(slope > 0)) {
    start = y / n;
    slope = 1e-15;
  }
  cost->microseconds = 1e6 * start;
  cost->bytes_per_second = 1 / slope;
}

absl::Status WriteCosts(const Costs& costs, const std::string& path) {
  Json operators = Json::array();
  for (const auto& [name, cost] : costs.operators)
    operators.push_back({{"operator", name},
                         {"runs", cost.runs},
                         {"microseconds", cost.microseconds}});
  Json json = {
      {"format", "heddle.costs"},     {"version", kCostsVersion},
      {"device", costs.device},       {"torch", costs.torch},
      {"precision", costs.precision}, {"operators", std::move(operators)},
      {"memory", costs.memory}};
  for (const CollectiveCost& cost : costs.collectives)
    json["collectives"].push_back(
        {{"collective", cost.collective},
         {"axis", cost.axis},
         {"ranks", cost.ranks},
         {"microseconds", cost.microseconds},
         {"bytes_per_second", cost.bytes_per_second}});
  return WriteWhole(path,
                    json.dump(1, ' ', false, Json::error_handler_t::replace));
}

absl::StatusOr<Costs> ReadCosts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return absl::NotFoundError(absl::StrCat(path, ": cannot read the file"));
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  const Json json = Json::parse(text, nullptr, false);
  try {
    if (json.at("format").get<std::string>() != "heddle.costs")
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": not what heddle-run --measure writes"));
    if (const int version = json.at("version").get<int>();
        version != kCostsVersion)
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": costs of version ", version, ", this reads ",
                       kCostsVersion, "; measure again"));
    Costs costs;
    json.at("device").get_to(costs.device);
    json.at("torch").get_to(costs.torch);
    json.at("precision").get_to(costs.precision);
    for (const Json& entry : json.at("operators"))
      costs.operators[entry.at("operator").get<std::string>()] = {
          entry.at("runs").get<int64_t>(),
          entry.at("microseconds").get<double>()};
    for (const Json& entry : json.value("collectives", Json::array())) {
      CollectiveCost cost;
      entry.at("collective").get_to(cost.collective);
      entry.at("axis").get_to(cost.axis);
      entry.at("ranks").get_to(cost.ranks);
      entry.at("microseconds").get_to(cost.microseconds);
      entry.at("bytes_per_second").get_to(cost.bytes_per_second);
      if (!(cost.microseconds >= 0) || !(cost.bytes_per_second > 0))
        return absl::InvalidArgumentError(absl::StrCat(
            path, ": ", cost.collective, " along ", cost.axis, " of ",
            cost.ranks, " ranks has a time that cannot be; measure again"));
      costs.collectives.push_back(std::move(cost));
    }
    if (json.contains("memory")) json.at("memory").get_to(costs.memory);
    return costs;
  } catch (const Json::exception&) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not what heddle-run --measure writes"));
  }
}

}  // namespace heddle::trace
