// First every key is looked up in the table, then the ones that are read become
// options.
#include "api/compiler/deepspeed.h"

#include <cmath>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "api/compiler/deepspeed_keys.h"
#include "api/schedule/schedule.h"
#include "nlohmann/json.hpp"

namespace heddle {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& message) {
  return absl::InvalidArgumentError(
      absl::StrCat("DeepSpeed configuration: ", message));
}

// Parses and finds keys that stand twice in one object, of which a JSON parser
// silently keeps one.
absl::StatusOr<json> Parse(const std::string& text) {
  std::vector<std::set<std::string>> open;
  std::string twice;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key && twice.empty() &&
        !open.back().insert(parsed.get<std::string>()).second)
      twice = parsed.get<std::string>();
    return true;
  };
  // The parser recurses; no configuration nests this deep.
  int depth = 0;
  for (char c : text) {
    depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
    if (depth > 64) return Bad("it nests deeper than 64 levels");
  }
  json parsed;
  try {
    parsed = json::parse(text, watch, /*allow_exceptions=*/true,
                         /*ignore_comments=*/true);
  } catch (const json::parse_error& error) {
    // "[json.exception.parse_error.101] parse error at line 3, column 1: ..."
    const std::string what = error.what();
    return Bad("it is not JSON: " + what.substr(what.find("] ") + 2));
  }
  if (!parsed.is_object()) return Bad("it is not a JSON object");
  if (!twice.empty())
    return Bad(absl::StrCat("the key '", twice, "' is there twice"));
  return parsed;
}

bool IsNeutral(const DeepSpeedKey& key, const json& value) {
  if (key.kind == JsonKind::kSwitch) {
    return value.is_object() &&
           (!value.contains("enabled") || value["enabled"] == false);
  }
  if (*key.neutral == 0) return false;
  for (const json& neutral : json::parse(key.neutral)) {
    if (value == neutral) return true;
    if (value.is_string() && neutral.is_string() &&
        absl::AsciiStrToLower(value.get<std::string>()) ==
            neutral.get<std::string>())
      return true;
  }
  return false;
}

// Numbers of elements that bound what is on its way, DeepSpeed's name and
// Heddle's, and the least. Both count elements.
struct Limit {
  const char* path;
  const char* option;
  int64_t least;
};
constexpr Limit kLimits[] = {
    {"zero_optimization.stage3_prefetch_bucket_size", "prefetch", 0},
    {"zero_optimization.stage3_max_live_parameters", "max_live", 0},
    {"zero_optimization.reduce_bucket_size", "reducing", 1}};

const char* Expected(JsonKind kind, const json& value) {
  switch (kind) {
    case JsonKind::kBool:
      return value.is_boolean() ? nullptr : "true or false";
    case JsonKind::kNumber:
      return value.is_number() ? nullptr : "a number";
    case JsonKind::kString:
      return value.is_string() ? nullptr : "a string";
    case JsonKind::kList:
      return value.is_array() ? nullptr : "a list";
    case JsonKind::kSection:
    case JsonKind::kSwitch:
      return value.is_object() ? nullptr : "an object";
    case JsonKind::kAny:
      return nullptr;
  }
  return nullptr;
}

class Reader {
 public:
  Reader(json config, json context)
      : config_(std::move(config)), context_(std::move(context)) {}

  absl::StatusOr<json> Read() {
    if (absl::Status status = Check(&config_, ""); !status.ok()) return status;
    using Part = absl::Status (Reader::*)();
    for (Part part :
         {&Reader::ReadPrecision, &Reader::ReadPlan, &Reader::ReadBatch,
          &Reader::ReadOptimizer, &Reader::ReadSchedule}) {
      if (absl::Status status = (this->*part)(); !status.ok()) return status;
    }
    out_["warnings"] = warnings_;
    return out_;
  }

 private:
  // The table's verdict on every key of `object`; "auto" is replaced.
  absl::Status Check(json* object, const std::string& prefix) {
    std::vector<std::string> gone;
    for (auto& [name, value] : object->items()) {
      const std::string path = prefix + name;
      const DeepSpeedKey* key = FindDeepSpeedKey(path);
      if (key == nullptr)
        return Bad(absl::StrCat("unknown key '", path, "'",
                                NearestDeepSpeedKey(path)));
      if (value == "auto" && key->use == KeyUse::kNoEffect) {
        Warn(*key);
        continue;
      }
      // Heddle's own limits, whoever asks.
      if (value == "auto" &&
          std::any_of(std::begin(kLimits), std::end(kLimits),
                      [&](const Limit& limit) { return path == limit.path; })) {
        gone.push_back(name);
        continue;
      }
      if (value == "auto") {
        const json& resolved = context_["auto"];
        if (!resolved.is_object() || !resolved.contains(path))
          return Bad(absl::StrCat("'", path,
                                  "' is \"auto\", which only a Trainer can "
                                  "resolve; write a value"));
        value = resolved[path];
      }
      // null is what DeepSpeed takes for "not given".
      if (value.is_null()) {
        gone.push_back(name);
        continue;
      }
      if (path == "zero_optimization" && value.is_boolean())
        return Bad(
            "'zero_optimization' is true or false, a form that DeepSpeed gave "
            "up; write {\"stage\": 1}");
      if (const char* expected = Expected(key->kind, value);
          expected != nullptr)
        return Bad(absl::StrCat("'", path, "' is ", value.dump(), " and not ",
                                expected));
      if (key->kind == JsonKind::kSection) {
        if (absl::Status status = Check(&value, path + "."); !status.ok())
          return status;
        continue;
      }
      if (key->use == KeyUse::kRead || IsNeutral(*key, value)) continue;
      if (key->use == KeyUse::kRefused)
        return Bad(absl::StrCat("'", path, "' cannot be ", value.dump(), ": ",
                                key->reason));
      Warn(*key);
    }
    for (const std::string& name : gone) object->erase(name);
    return absl::OkStatus();
  }

  void Warn(const DeepSpeedKey& key) {
    warnings_.push_back(absl::StrCat(key.path, " has no effect: ", key.reason));
  }

  // The value at a path, or null.
  json At(const std::string& path) const {
    const json* at = &config_;
    for (size_t begin = 0; begin <= path.size();) {
      size_t end = path.find('.', begin);
      if (end == std::string::npos) end = path.size();
      const std::string name = path.substr(begin, end - begin);
      if (!at->is_object() || !at->contains(name)) return nullptr;
      at = &(*at)[name];
      begin = end + 1;
    }
    return *at;
  }
  // The same, an empty object for null.
  json Object(const std::string& path) const {
    json value = At(path);
    return value.is_null() ? json::object() : value;
  }
  bool Flag(const std::string& path, bool otherwise = false) const {
    const json value = At(path);
    return value.is_boolean() ? value.get<bool>() : otherwise;
  }
  absl::StatusOr<double> Number(const std::string& path, double otherwise,
                                double low) const {
    const json value = At(path);
    if (value.is_null()) return otherwise;
    const double number = value.get<double>();
    if (!std::isfinite(number) || number < low)
      return Bad(absl::StrCat("'", path, "' is ", value.dump(),
                              ", which is no number of at least ", low));
    return number;
  }
  // An integer, or `otherwise`; DeepSpeed's users write 5e8 too.
  absl::StatusOr<int64_t> Count(const std::string& path, int64_t otherwise,
                                int64_t low) const {
    absl::StatusOr<double> number =
        Number(path, static_cast<double>(otherwise), static_cast<double>(low));
    if (!number.ok()) return number.status();
    if (*number != std::floor(*number) || *number > 1e15)
      return Bad(
          absl::StrCat("'", path, "' is ", At(path).dump(), ", no integer"));
    return static_cast<int64_t>(*number);
  }
  absl::StatusOr<json> Dtype(const std::string& path) const {
    const json value = At(path);
    if (value.is_null()) return value;
    const std::string name = absl::AsciiStrToLower(value.get<std::string>());
    if (name == "fp32" || name == "fp16" || name == "bf16") return json(name);
    return Bad(absl::StrCat("'", path, "' is ", value.dump(),
                            ", which is not fp32, fp16 or bf16"));
  }
  void Plan(const char* option, json value) {
    if (!value.is_null()) out_["plan"][option] = std::move(value);
  }

  absl::Status ReadPrecision() {
    out_["plan"] = json::object();
    const bool half = Flag("fp16.enabled");
    const bool brain = Flag("bf16.enabled");
    if (half && brain)
      return Bad("'fp16.enabled' and 'bf16.enabled' are both true");
    if (brain) {
      Plan("precision", "bf16");
      const bool narrow = Flag("bf16.bf16_master_weights_and_grads");
      if (narrow) {
        Plan("master_dtype", "bf16");
        Plan("accumulate_dtype", "bf16");
      }
      if (Flag("bf16.bf16_optimizer_states")) {
        if (!narrow)
          return Bad(
              "'bf16.bf16_optimizer_states' needs "
              "'bf16.bf16_master_weights_and_grads'");
        stateDtype_ = "bf16";
      }
    }
    if (!half) return absl::OkStatus();
    Plan("precision", "fp16");
    if (Flag("fp16.fp16_master_weights_and_grads")) {
      Plan("master_dtype", "fp16");
      Plan("accumulate_dtype", "fp16");
    }
    absl::StatusOr<double> scale = Number("fp16.loss_scale", 0, 0);
    if (!scale.ok()) return scale.status();
    if (*scale > 0) {
      Plan("loss_scale", *scale);
      return absl::OkStatus();
    }
    const std::pair<const char*, std::pair<int64_t, int64_t>> dynamic[] = {
        {"initial_scale_power", {16, 0}},
        {"loss_scale_window", {1000, 1}},
        {"hysteresis", {2, 1}},
        {"min_loss_scale", {1, 0}}};
    json scaling = {
        {"consecutive_hysteresis", Flag("fp16.consecutive_hysteresis")}};
    for (const auto& [name, range] : dynamic) {
      absl::StatusOr<int64_t> value =
          Count(absl::StrCat("fp16.", name), range.first, range.second);
      if (!value.ok()) return value.status();
      scaling[name] = *value;
    }
    Plan("loss_scale", scaling);
    return absl::OkStatus();
  }

  absl::Status ReadPlan() {
    // DeepSpeed averages over micro-batches and ranks, whatever their labels.
    Plan("loss_average", "batches");
    absl::StatusOr<int64_t> stage = Count("zero_optimization.stage", 0, 0);
    if (!stage.ok()) return stage.status();
    if (*stage > 3)
      return Bad(absl::StrCat("'zero_optimization.stage' is ", *stage,
                              "; stages are 0 to 3"));
    Plan("zero", *stage);
    if (const json overlap = At("zero_optimization.overlap_comm");
        !overlap.is_null())
      Plan("overlap", overlap);
    for (const Limit& limit : kLimits) {
      if (At(limit.path).is_null()) continue;
      absl::StatusOr<int64_t> elements = Count(limit.path, 0, limit.least);
      if (!elements.ok()) return elements.status();
      Plan(limit.option, *elements);
    }
    absl::StatusOr<double> clip = Number("gradient_clipping", 0, 0);
    if (!clip.ok()) return clip.status();
    if (*clip > 0) Plan("clip", *clip);
    const std::pair<const char*, const char*> dtypes[] = {
        {"communication_data_type", "reduce_dtype"},
        {"data_types.grad_accum_dtype", "accumulate_dtype"}};
    for (const auto& [path, option] : dtypes) {
      absl::StatusOr<json> dtype = Dtype(path);
      if (!dtype.ok()) return dtype.status();
      Plan(option, *dtype);
    }
    for (const auto& [path, option] :
         {std::pair<const char*, const char*>{"data_parallel_size", "dp"},
          {"sequence_parallel_size", "sp"}}) {
      if (At(path).is_null()) continue;
      absl::StatusOr<int64_t> size = Count(path, 1, 1);
      if (!size.ok()) return size.status();
      Plan(option, *size);
    }
    if (Flag("expert_parallel.enabled")) {
      absl::StatusOr<int64_t> size = Count("expert_parallel.autoep_size", 1, 1);
      if (!size.ok()) return size.status();
      Plan("ep", *size);
    }
    return ReadPasses();
  }

  // A list of passes is the whole list: what it leaves out does not run.
  absl::Status ReadPasses() {
    const json passes =
        At("compile.passes").is_array() ? At("compile.passes") : json::array();
    const auto has = [&](const char* name) {
      return std::find(passes.begin(), passes.end(), name) != passes.end();
    };
    for (const json& pass : passes) {
      if (pass == "z1" || pass == "z3")
        warnings_.push_back(absl::StrCat(
            "compile.passes ", pass.dump(),
            " has no effect: Heddle's passes follow from the stage"));
      else if (pass != "prefetch" && pass != "selective_gather")
        return Bad(absl::StrCat("'compile.passes' has ", pass.dump(),
                                ", which Heddle does not have; say "
                                "sequence_parallel_size instead of autosp"));
    }
    if (passes.empty()) return absl::OkStatus();
    if (!has("prefetch")) Plan("prefetch", 0);
    Plan("unshard", has("selective_gather"));
    return absl::OkStatus();
  }

  // train_batch_size = micro-batch * accumulation * ranks; two give the third.
  absl::Status ReadBatch() {
    int64_t world = context_.value("world_size", int64_t{1});
    int64_t values[3] = {0, 0, 0};
    const char* const names[3] = {"train_batch_size",
                                  "train_micro_batch_size_per_gpu",
                                  "gradient_accumulation_steps"};
    for (int i = 0; i < 3; ++i) {
      absl::StatusOr<int64_t> value =
          At(names[i]).is_null() ? 0 : Count(names[i], 0, 1);
      if (!value.ok()) return value.status();
      values[i] = *value;
    }
    auto& [total, micro, steps] = values;
    const auto derive = [&](int64_t& to, int64_t by,
                            const char* name) -> absl::Status {
      if (total % by != 0)
        return Bad(absl::StrCat("'train_batch_size' ", total,
                                " is no multiple of ", by, ", which '", name,
                                "' and ", world, " ranks make"));
      to = total / by;
      return absl::OkStatus();
    };
    if (total && micro && steps) {
      if (total != micro * steps * world)
        return Bad(absl::StrCat("'train_batch_size' ", total,
                                " is not train_micro_batch_size_per_gpu * "
                                "gradient_accumulation_steps * ranks = ",
                                micro, " * ", steps, " * ", world));
    } else if (total && micro) {
      if (absl::Status status = derive(steps, micro * world, names[1]);
          !status.ok())
        return status;
    } else if (total) {
      if (!steps) steps = 1;
      if (absl::Status status = derive(micro, steps * world, names[2]);
          !status.ok())
        return status;
    } else if (micro) {
      if (!steps) steps = 1;
      total = micro * steps * world;
    }
    const auto known = [](int64_t value) {
      return value ? json(value) : json();
    };
    out_["batch"] = {{"total", known(total)},
                     {"micro_batch", known(micro)},
                     {"accumulation", known(steps)}};
    return absl::OkStatus();
  }

  absl::Status ReadOptimizer() {
    out_["optimizer"] = nullptr;
    if (At("optimizer").is_null()) {
      if (!stateDtype_.empty())
        return Bad("'bf16.bf16_optimizer_states' needs an 'optimizer' here");
      return absl::OkStatus();
    }
    const json type = At("optimizer.type");
    if (type.is_null()) return Bad("'optimizer' has no 'type'");
    const std::string name = absl::AsciiStrToLower(type.get<std::string>());
    const bool muon = name == "muon";
    if (!muon && name != "adam" && name != "adamw")
      return Bad(absl::StrCat("'optimizer.type' ", type.dump(),
                              " is not Heddle's; use AdamW, Adam or Muon"));
    const std::set<std::string> adamOnly = {"torch_adam", "adam_w_mode",
                                            "bias_correction", "amsgrad"};
    const std::set<std::string> muonOnly = {"momentum", "muon_lr", "adam_lr",
                                            "ns_method"};
    const json params = Object("optimizer.params");
    for (const auto& [key, unused] : params.items()) {
      if ((muon ? adamOnly : muonOnly).count(key) != 0)
        return Bad(absl::StrCat("'optimizer.params.", key, "' is no option of ",
                                type.get<std::string>()));
    }
    absl::StatusOr<json> optimizer = muon ? ReadMuon() : ReadAdam(name);
    if (!optimizer.ok()) return optimizer.status();
    out_["optimizer"] = *std::move(optimizer);
    if (!stateDtype_.empty()) out_["optimizer"]["state_dtype"] = stateDtype_;
    return absl::OkStatus();
  }

  absl::StatusOr<json> Betas(double first, double second) const {
    const json betas = At("optimizer.params.betas");
    if (betas.is_null()) return json::array({first, second});
    bool fine = betas.size() == 2;
    for (const json& beta : betas)
      fine = fine && beta.is_number() && beta.get<double>() >= 0 &&
             beta.get<double>() < 1;
    if (!fine)
      return Bad(absl::StrCat("'optimizer.params.betas' is ", betas.dump(),
                              ", which is no pair of numbers in [0, 1)"));
    return betas;
  }

  absl::StatusOr<json> ReadAdam(const std::string& name) const {
    // Where torch's own AdamW is asked for its defaults hold, else FusedAdam's.
    const double decay = Flag("optimizer.params.torch_adam") ? 0.01 : 0;
    absl::StatusOr<json> betas = Betas(0.9, 0.999);
    if (!betas.ok()) return betas.status();
    json out = {{"kind", "adamw"}, {"betas", *betas}};
    const std::pair<const char*, double> numbers[] = {
        {"lr", 1e-3}, {"eps", 1e-8}, {"weight_decay", decay}};
    for (const auto& [key, otherwise] : numbers) {
      absl::StatusOr<double> value =
          Number(absl::StrCat("optimizer.params.", key), otherwise, 0);
      if (!value.ok()) return value.status();
      out[key] = *value;
    }
    if (name == "adam" && !Flag("optimizer.params.adam_w_mode", true) &&
        out["weight_decay"] != 0.0)
      return Bad(
          "'optimizer.params.adam_w_mode' is false: Heddle decouples weight "
          "decay from the gradient; use adam_w_mode true or weight_decay 0");
    return out;
  }

  absl::StatusOr<json> ReadMuon() const {
    absl::StatusOr<json> betas = Betas(0.9, 0.95);
    if (!betas.ok()) return betas.status();
    const json shared = At("optimizer.params.lr");
    const double lr = shared.is_null() ? -1 : shared.get<double>();
    const std::pair<const char*, double> numbers[] = {
        {"muon_lr", lr < 0 ? 0.02 : lr},
        {"adam_lr", lr < 0 ? 3e-4 : lr},
        {"momentum", 0.95},
        {"weight_decay", 0},
        {"eps", 1e-10}};
    json value;
    for (const auto& [key, otherwise] : numbers) {
      absl::StatusOr<double> number =
          Number(absl::StrCat("optimizer.params.", key), otherwise, 0);
      if (!number.ok()) return number.status();
      value[key] = *number;
    }
    const json method = At("optimizer.params.ns_method");
    const std::string ns = method.is_null() ? "gram" : method;
    if (ns != "gram" && ns != "standard")
      return Bad(absl::StrCat("'optimizer.params.ns_method' is ", method.dump(),
                              "; methods are gram, standard"));
    return json{{"kind", "muon"},
                {"lr", value["muon_lr"]},
                {"momentum", value["momentum"]},
                {"weight_decay", value["weight_decay"]},
                {"ns", ns},
                {"momentum_form", "ema"},
                {"nesterov", true},
                {"coefficients", "keller_jordan"},
                {"ns_steps", 5},
                {"scale", "original"},
                {"adamw",
                 {{"lr", value["adam_lr"]},
                  {"betas", *betas},
                  {"eps", value["eps"]},
                  {"weight_decay", value["weight_decay"]}}}};
  }

  absl::Status ReadSchedule() {
    out_["schedule"] = nullptr;
    if (At("scheduler").is_null()) return absl::OkStatus();
    const json type = At("scheduler.type");
    if (type.is_null()) return Bad("'scheduler' has no 'type'");
    const std::string name = type.get<std::string>();
    const std::set<std::string> cosineOnly = {"warmup_min_ratio",
                                              "cos_min_ratio"};
    const std::set<std::string> ratesOnly = {"warmup_min_lr", "warmup_max_lr"};
    json schedule = {{"kind", "deepspeed"}, {"type", name}};
    const json params = Object("scheduler.params");
    for (const auto& [key, value] : params.items()) {
      const bool known =
          name == "WarmupCosineLR"
              ? ratesOnly.count(key) == 0
              : cosineOnly.count(key) == 0 &&
                    (key != "total_num_steps" || name == "WarmupDecayLR");
      if (!known)
        return Bad(absl::StrCat("'scheduler.params.", key, "' is no option of ",
                                name));
      schedule[key] = value;
    }
    schedule["lr"] =
        out_["optimizer"].is_null() ? json(1e-3) : out_["optimizer"]["lr"];
    absl::StatusOr<Schedule> parsed = Schedule::Parse(schedule, 1);
    if (!parsed.ok())
      return Bad(absl::StrCat("'scheduler': ", parsed.status().message()));
    out_["schedule"] = std::move(schedule);
    return absl::OkStatus();
  }

  json config_;
  json context_;
  json out_ = json::object();
  std::vector<std::string> warnings_;
  std::string stateDtype_;
};

}  // namespace

std::string ReadDeepSpeed(const std::string& text, const std::string& context,
                          std::string* out) {
  json around = json::parse(context.empty() ? "{}" : context, nullptr, false);
  if (!around.is_object() ||
      (around.contains("world_size") &&
       (!around["world_size"].is_number_integer() || around["world_size"] < 1)))
    return "the context of a DeepSpeed configuration must be a JSON object "
           "whose world_size is at least 1";
  absl::StatusOr<json> config = Parse(text);
  if (!config.ok()) return std::string(config.status().message());
  if (config->contains("bfloat16")) {
    if (config->contains("bf16"))
      return "DeepSpeed configuration: 'bf16' and its old name 'bfloat16' are "
             "both there";
    (*config)["bf16"] = (*config)["bfloat16"];
    config->erase("bfloat16");
  }
  absl::StatusOr<json> read =
      Reader(*std::move(config), std::move(around)).Read();
  if (!read.ok()) return std::string(read.status().message());
  *out = read->dump(-1, ' ', false, json::error_handler_t::replace);
  return "";
}

}  // namespace heddle
