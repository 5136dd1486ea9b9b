// Reads the optimizer's JSON. Invariant: every key of the object is known; a
// misspelt one is an error that names the nearest, never a default.
#include "passes/graph/optimizer_config.h"

#include <cmath>
#include <tuple>

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

namespace heddle::graph {
namespace {

template <typename... Args>
llvm::Error bad(const char* format, Args&&... args) {
  return llvm::createStringError(
      llvm::inconvertibleErrorCode(),
      llvm::formatv(format, std::forward<Args>(args)...).str());
}

constexpr llvm::StringLiteral kGroupKeys[] = {"betas", "eps", "weight_decay",
                                              "lr_scale"};
constexpr llvm::StringLiteral kTopKeys[] = {
    "groups",     "clip",         "skip_nonfinite",   "loss_average",
    "loss_scale", "master_dtype", "accumulate_dtype", "state_dtype"};
constexpr llvm::StringLiteral kDtypes[] = {"fp64", "fp32", "bf16", "fp16"};

llvm::Error unknownKey(llvm::StringRef key,
                       std::vector<llvm::StringRef> known) {
  llvm::StringRef nearest =
      *llvm::min_element(known, [&](llvm::StringRef a, llvm::StringRef b) {
        return key.edit_distance(a) < key.edit_distance(b);
      });
  return bad(
      "optimizer configuration has the unknown key \"{0}\"; did you mean "
      "\"{1}\"?",
      key, nearest);
}

llvm::Error readNumber(const llvm::json::Object& object, llvm::StringRef key,
                       double& to) {
  const llvm::json::Value* value = object.get(key);
  if (!value) return llvm::Error::success();
  std::optional<double> number = value->getAsNumber();
  if (!number || !std::isfinite(*number) || *number < 0)
    return bad("optimizer configuration: \"{0}\" is not a number of at least 0",
               key);
  to = *number;
  return llvm::Error::success();
}

llvm::Error readGroup(const llvm::json::Object& object, ParamGroup& group) {
  if (const llvm::json::Value* betas = object.get("betas")) {
    const llvm::json::Array* pair = betas->getAsArray();
    std::optional<double> first =
        pair && pair->size() == 2 ? (*pair)[0].getAsNumber() : std::nullopt;
    std::optional<double> second =
        first ? (*pair)[1].getAsNumber() : std::nullopt;
    if (!second || !(*first >= 0 && *first < 1 && *second >= 0 && *second < 1))
      return bad(
          "optimizer configuration: \"betas\" is not a pair of numbers in [0, "
          "1)");
    group.beta1 = *first;
    group.beta2 = *second;
  }
  if (llvm::Error error = readNumber(object, "eps", group.eps)) return error;
  if (llvm::Error error = readNumber(object, "weight_decay", group.weightDecay))
    return error;
  return readNumber(object, "lr_scale", group.lrScale);
}

llvm::Error readChoice(const llvm::json::Object& object, llvm::StringRef key,
                       llvm::ArrayRef<llvm::StringLiteral> choices,
                       std::string& to) {
  const llvm::json::Value* value = object.get(key);
  if (!value || value->kind() == llvm::json::Value::Null)
    return llvm::Error::success();
  std::optional<llvm::StringRef> text = value->getAsString();
  if (!text || !llvm::is_contained(choices, *text))
    return bad("optimizer configuration: \"{0}\" is not one of {1}", key,
               llvm::join(choices, ", "));
  to = text->str();
  return llvm::Error::success();
}

llvm::Error readCoefficients(const llvm::json::Value& value,
                             MuonSettings& muon) {
  if (std::optional<llvm::StringRef> name = value.getAsString()) {
    constexpr llvm::StringLiteral kNames[] = {"keller_jordan", "you",
                                              "polar_express"};
    if (!llvm::is_contained(kNames, *name))
      return bad("optimizer configuration: no coefficients \"{0}\"; use {1}",
                 *name, llvm::join(llvm::ArrayRef(kNames), ", "));
    muon.coefficients = name->str();
    return llvm::Error::success();
  }
  const llvm::json::Array* list = value.getAsArray();
  if (list) {
    for (const llvm::json::Value& entry : *list) {
      const llvm::json::Array* triple = entry.getAsArray();
      if (!triple || triple->size() != 3) break;
      for (const llvm::json::Value& number : *triple)
        if (std::optional<double> n = number.getAsNumber())
          muon.ownCoefficients.push_back(*n);
    }
  }
  if (!list || list->empty() || muon.ownCoefficients.size() != 3 * list->size())
    return bad(
        "optimizer configuration: \"coefficients\" is neither a name nor a "
        "list of triples of numbers");
  return llvm::Error::success();
}

llvm::Error readMuon(const llvm::json::Value& value, MuonSettings& muon) {
  const llvm::json::Object* object = value.getAsObject();
  if (!object) return bad("optimizer configuration: \"muon\" is not an object");
  constexpr llvm::StringLiteral kKeys[] = {
      "momentum",     "nesterov", "momentum_form", "ns",
      "coefficients", "ns_steps", "ns_dtype",      "scale",
      "split",        "eps",      "norm_eps",      "state_dtype"};
  for (const auto& [key, unused] : *object)
    if (!llvm::is_contained(kKeys, llvm::StringRef(key)))
      return unknownKey(key, {std::begin(kKeys), std::end(kKeys)});
  if (llvm::Error error = readNumber(*object, "momentum", muon.momentum))
    return error;
  if (muon.momentum >= 1)
    return bad("optimizer configuration: \"momentum\" is not in [0, 1)");
  if (llvm::Error error = readNumber(*object, "eps", muon.eps)) return error;
  double steps = muon.steps;
  if (llvm::Error error = readNumber(*object, "ns_steps", steps)) return error;
  muon.steps = static_cast<int64_t>(steps);
  if (steps != muon.steps || muon.steps < 1 || muon.steps > 32)
    return bad("optimizer configuration: \"ns_steps\" is not in 1 to 32");
  if (const llvm::json::Value* nesterov = object->get("nesterov")) {
    if (!nesterov->getAsBoolean())
      return bad("optimizer configuration: \"nesterov\" is not true or false");
    muon.nesterov = *nesterov->getAsBoolean();
  }
  constexpr llvm::StringLiteral kForms[] = {"torch", "ema"};
  constexpr llvm::StringLiteral kNs[] = {"gram", "standard"};
  constexpr llvm::StringLiteral kScales[] = {"match_rms", "original",
                                             "spectral", "none"};
  constexpr llvm::StringLiteral kNormEps[] = {"add", "clamp"};
  const std::tuple<llvm::StringRef, llvm::ArrayRef<llvm::StringLiteral>,
                   std::string*>
      choices[] = {{"momentum_form", kForms, &muon.form},
                   {"ns", kNs, &muon.ns},
                   {"scale", kScales, &muon.scale},
                   {"norm_eps", kNormEps, &muon.normEps},
                   {"ns_dtype", kDtypes, &muon.nsDtype},
                   {"state_dtype", kDtypes, &muon.stateDtype}};
  for (auto [key, names, to] : choices)
    if (llvm::Error error = readChoice(*object, key, names, *to)) return error;
  if (const llvm::json::Value* coefficients = object->get("coefficients"))
    if (llvm::Error error = readCoefficients(*coefficients, muon)) return error;
  const llvm::json::Value* split = object->get("split");
  if (!split || split->kind() == llvm::json::Value::Null)
    return llvm::Error::success();
  if (!split->getAsObject())
    return bad("optimizer configuration: \"split\" is not an object");
  for (const auto& [glob, blocks] : *split->getAsObject()) {
    if (!blocks.getAsInteger() || *blocks.getAsInteger() < 1)
      return bad(
          "optimizer configuration: \"split\" of \"{0}\" is no number of "
          "blocks",
          llvm::StringRef(glob));
    muon.split.push_back({llvm::StringRef(glob).str(), *blocks.getAsInteger()});
  }
  llvm::sort(muon.split);  // a JSON object has no order
  return llvm::Error::success();
}

llvm::Error readNames(const llvm::json::Array& list, llvm::StringRef key,
                      std::vector<std::string>& to) {
  for (const llvm::json::Value& name : list) {
    std::optional<llvm::StringRef> text = name.getAsString();
    if (!text)
      return bad(
          "optimizer configuration: \"{0}\" holds something that is not a "
          "name or glob",
          key);
    to.push_back(text->str());
  }
  return llvm::Error::success();
}

llvm::Error readGroups(const llvm::json::Value& value, OptimizerConfig& config,
                       const ParamGroup& defaults) {
  const llvm::json::Array* groups = value.getAsArray();
  if (!groups || groups->empty())
    return bad("optimizer configuration: \"groups\" is not a list of groups");
  for (const llvm::json::Value& entry : *groups) {
    const llvm::json::Object* object = entry.getAsObject();
    const llvm::json::Array* params =
        object ? object->getArray("params") : nullptr;
    if (!params)
      return bad("optimizer configuration: a group has no list \"params\"");
    ParamGroup& group = config.groups.emplace_back(defaults);
    if (llvm::Error error = readNames(*params, "params", group.params))
      return error;
    if (const llvm::json::Array* roles = object->getArray("roles"))
      if (llvm::Error error = readNames(*roles, "roles", group.roles))
        return error;
    if (const llvm::json::Value* muon = object->get("muon")) {
      group.muon.emplace();
      if (llvm::Error error = readMuon(*muon, *group.muon)) return error;
    }
    for (const auto& [key, unused] : *object) {
      std::vector<llvm::StringRef> known(std::begin(kGroupKeys),
                                         std::end(kGroupKeys));
      known.insert(known.end(), {"params", "roles", "muon"});
      if (!llvm::is_contained(known, llvm::StringRef(key)))
        return unknownKey(key, known);
    }
    if (llvm::Error error = readGroup(*object, group)) return error;
  }
  return llvm::Error::success();
}

// A number is the scale; an object has DeepSpeed's parameters of a dynamic one.
llvm::Error readLossScale(const llvm::json::Value& value,
                          LossScaleSettings& scale) {
  if (std::optional<double> fixed = value.getAsNumber()) {
    scale.dynamic = false;
    scale.initial = *fixed;
    if (std::isfinite(*fixed) && *fixed > 0) return llvm::Error::success();
    return bad("optimizer configuration: \"loss_scale\" is not positive");
  }
  const llvm::json::Object* object = value.getAsObject();
  if (!object)
    return bad(
        "optimizer configuration: \"loss_scale\" is neither a number nor an "
        "object");
  constexpr llvm::StringLiteral kKeys[] = {
      "initial_scale_power", "loss_scale_window", "hysteresis",
      "consecutive_hysteresis", "min_loss_scale"};
  for (const auto& [key, unused] : *object)
    if (!llvm::is_contained(kKeys, llvm::StringRef(key)))
      return unknownKey(key, {std::begin(kKeys), std::end(kKeys)});
  double power = 16;
  if (llvm::Error error = readNumber(*object, kKeys[0], power)) return error;
  if (power > 127)
    return bad(
        "optimizer configuration: \"initial_scale_power\" is above 127, which "
        "is no number of fp32");
  scale.initial = std::exp2(power);
  for (auto [key, to] : {std::pair(kKeys[1], &scale.window),
                         std::pair(kKeys[2], &scale.hysteresis)}) {
    const llvm::json::Value* count = object->get(key);
    if (!count) continue;
    if (!count->getAsInteger() || *count->getAsInteger() < 1)
      return bad("optimizer configuration: \"{0}\" is no number of steps", key);
    *to = *count->getAsInteger();
  }
  if (const llvm::json::Value* consecutive = object->get(kKeys[3])) {
    if (!consecutive->getAsBoolean())
      return bad("optimizer configuration: \"{0}\" is not true or false",
                 kKeys[3]);
    scale.consecutiveHysteresis = *consecutive->getAsBoolean();
  }
  if (llvm::Error error = readNumber(*object, kKeys[4], scale.minimum))
    return error;
  if (scale.minimum > 0 && scale.minimum <= scale.initial)
    return llvm::Error::success();
  return bad(
      "optimizer configuration: \"min_loss_scale\" {0} is not above 0 and at "
      "most the initial scale {1}",
      scale.minimum, scale.initial);
}

}  // namespace

llvm::Expected<OptimizerConfig> parseOptimizerConfig(llvm::StringRef json) {
  llvm::Expected<llvm::json::Value> parsed = llvm::json::parse(json);
  if (!parsed)
    return bad("optimizer configuration is not JSON: {0}",
               llvm::toString(parsed.takeError()));
  const llvm::json::Object* object = parsed->getAsObject();
  if (!object) return bad("optimizer configuration is not a JSON object");
  for (const auto& [key, unused] : *object) {
    std::vector<llvm::StringRef> known(std::begin(kTopKeys),
                                       std::end(kTopKeys));
    known.insert(known.end(), std::begin(kGroupKeys), std::end(kGroupKeys));
    if (!llvm::is_contained(known, llvm::StringRef(key)))
      return unknownKey(key, known);
  }

  OptimizerConfig config;
  ParamGroup defaults;
  if (llvm::Error error = readGroup(*object, defaults)) return std::move(error);
  if (const llvm::json::Value* groups = object->get("groups")) {
    if (llvm::Error error = readGroups(*groups, config, defaults))
      return std::move(error);
  } else {
    config.groups.push_back(defaults);
    config.groups.back().params = {"*"};
  }
  if (const llvm::json::Value* clip = object->get("clip");
      clip && clip->kind() != llvm::json::Value::Null) {
    config.clip = 0;
    if (llvm::Error error = readNumber(*object, "clip", *config.clip))
      return std::move(error);
    if (*config.clip == 0)
      return bad(
          "optimizer configuration: \"clip\" is 0; leave it out to switch "
          "clipping off");
  }
  if (const llvm::json::Value* skip = object->get("skip_nonfinite")) {
    if (!skip->getAsBoolean())
      return bad(
          "optimizer configuration: \"skip_nonfinite\" is not true or false");
    config.skipNonfinite = *skip->getAsBoolean();
  }
  if (const llvm::json::Value* scale = object->get("loss_scale");
      scale && scale->kind() != llvm::json::Value::Null)
    if (llvm::Error error = readLossScale(*scale, config.lossScale.emplace()))
      return std::move(error);
  constexpr llvm::StringLiteral kAverages[] = {"tokens", "batches"};
  if (llvm::Error error =
          readChoice(*object, "loss_average", kAverages, config.lossAverage))
    return std::move(error);
  if (llvm::Error error = readChoice(*object, "accumulate_dtype", kDtypes,
                                     config.accumulateDtype))
    return std::move(error);
  if (llvm::Error error =
          readChoice(*object, "master_dtype", kDtypes, config.masterDtype))
    return std::move(error);
  if (llvm::Error error =
          readChoice(*object, "state_dtype", kDtypes, config.stateDtype))
    return std::move(error);
  return config;
}

}  // namespace heddle::graph
