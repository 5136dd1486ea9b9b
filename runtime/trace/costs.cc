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

absl::Status WriteCosts(const Costs& costs, const std::string& path) {
  Json operators = Json::array();
  for (const auto& [name, cost] : costs.operators)
    operators.push_back({{"operator", name},
                         {"runs", cost.runs},
                         {"microseconds", cost.microseconds}});
  const Json json = {
      {"format", "heddle.costs"},     {"version", kCostsVersion},
      {"device", costs.device},       {"torch", costs.torch},
      {"precision", costs.precision}, {"operators", std::move(operators)}};
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
    return costs;
  } catch (const Json::exception&) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not what heddle-run --measure writes"));
  }
}

}  // namespace heddle::trace
