// Every key of the table: what is read arrives, what is refused is refused by
// name, what has no effect is warned about, and neutral values pass in silence.
#include "api/compiler/deepspeed.h"

#include <map>

#include "api/compiler/deepspeed_keys.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace heddle {
namespace {

using nlohmann::json;

struct Outcome {
  std::string error;
  json out;
};

Outcome Read(const json& config, const json& context = json::object()) {
  std::string out;
  Outcome outcome;
  outcome.error = ReadDeepSpeed(config.dump(), context.dump(), &out);
  if (outcome.error.empty()) outcome.out = json::parse(out);
  return outcome;
}

// What a key needs around it to mean anything.
json Around(const std::string& path) {
  json config = json::object();
  const std::string optimizer = "optimizer.params.";
  for (const char* key : {"momentum", "muon_lr", "adam_lr", "ns_method"}) {
    if (path == optimizer + key) config["optimizer"]["type"] = "Muon";
  }
  if (path.rfind("optimizer.", 0) == 0 && !config.contains("optimizer"))
    config["optimizer"]["type"] = "AdamW";
  if (path.rfind("scheduler.", 0) == 0) {
    config["scheduler"]["type"] = "WarmupLR";
    if (path.find("ratio") != std::string::npos) {
      config["scheduler"]["type"] = "WarmupCosineLR";
      config["scheduler"]["params"]["total_num_steps"] = 10;
    }
    if (path == "scheduler.params.total_num_steps")
      config["scheduler"]["type"] = "WarmupDecayLR";
  }
  if (path.rfind("fp16.", 0) == 0) config["fp16"]["enabled"] = true;
  if (path.rfind("bf16.", 0) == 0) config["bf16"]["enabled"] = true;
  if (path == "bf16.bf16_optimizer_states") {
    config["bf16"]["bf16_master_weights_and_grads"] = true;
    config["optimizer"]["type"] = "Adam";
  }
  if (path == "expert_parallel.autoep_size")
    config["expert_parallel"]["enabled"] = true;
  if (path == "expert_parallel.enabled")
    config["expert_parallel"]["autoep_size"] = 4;
  return config;
}

json With(const std::string& path, const json& value) {
  json config = Around(path);
  json* at = &config;
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = path.find('.', begin);
    if (end == std::string::npos) end = path.size();
    at = &(*at)[path.substr(begin, end - begin)];
    begin = end + 1;
  }
  *at = value;
  return config;
}

bool Warns(const Outcome& outcome, const std::string& path) {
  for (const json& warning : outcome.out["warnings"]) {
    if (warning.get<std::string>().rfind(path + " has no effect: ", 0) == 0)
      return true;
  }
  return false;
}

json Unusual(const DeepSpeedKey& key) {
  switch (key.kind) {
    case JsonKind::kBool:
      return std::string(key.neutral) != "[true]";
    case JsonKind::kNumber:
      return 12345;
    case JsonKind::kString:
      return "zzz";
    case JsonKind::kList:
      return json::array({"zzz"});
    default:
      return {{"enabled", true}, {"zzz", 1}};
  }
}

TEST(DeepSpeed, WhatIsRefusedNamesTheKeyAndTheReason) {
  int count = 0;
  for (const DeepSpeedKey& key : DeepSpeedKeys()) {
    if (key.use != KeyUse::kRefused) continue;
    const Outcome outcome = Read(With(key.path, Unusual(key)));
    EXPECT_NE(outcome.error.find(std::string("'") + key.path + "'"),
              std::string::npos)
        << key.path << ": " << outcome.error;
    EXPECT_NE(outcome.error.find(key.reason), std::string::npos) << key.path;
    ++count;
  }
  EXPECT_GT(count, 40);
}

TEST(DeepSpeed, WhatHasNoEffectIsAWarningByName) {
  int count = 0;
  for (const DeepSpeedKey& key : DeepSpeedKeys()) {
    if (key.use != KeyUse::kNoEffect) continue;
    const Outcome outcome = Read(With(key.path, Unusual(key)));
    EXPECT_EQ(outcome.error, "") << key.path;
    EXPECT_TRUE(Warns(outcome, key.path)) << key.path;
    EXPECT_NE(std::string(key.reason), "") << key.path;
    ++count;
  }
  EXPECT_GT(count, 70);
}

TEST(DeepSpeed, NeutralValuesPassInSilence) {
  for (const DeepSpeedKey& key : DeepSpeedKeys()) {
    if (key.use == KeyUse::kRead) continue;
    json neutral = key.kind == JsonKind::kSwitch
                       ? json::array({{{"enabled", false}, {"zzz", 1}}})
                   : *key.neutral ? json::parse(key.neutral)
                                  : json::array();
    for (const json& value : neutral) {
      const Outcome outcome = Read(With(key.path, value));
      EXPECT_EQ(outcome.error, "") << key.path << " " << value;
      EXPECT_FALSE(Warns(outcome, key.path)) << key.path << " " << value;
    }
  }
}

TEST(DeepSpeed, WrongKindsAreNamed) {
  for (const DeepSpeedKey& key : DeepSpeedKeys()) {
    if (key.kind == JsonKind::kAny) continue;
    const json wrong =
        key.kind == JsonKind::kString ? json(3) : json("not that");
    const Outcome outcome = Read(With(key.path, wrong));
    EXPECT_NE(outcome.error.find(key.path), std::string::npos)
        << key.path << ": " << outcome.error;
  }
}

// Where a key that is read arrives.
struct Arrival {
  json value;
  const char* pointer;
  json expected;
};

TEST(DeepSpeed, WhatIsReadArrives) {
  const std::map<std::string, Arrival> arrivals = {
      {"train_batch_size", {6, "/batch/total", 6}},
      {"train_micro_batch_size_per_gpu", {3, "/batch/micro_batch", 3}},
      {"gradient_accumulation_steps", {2, "/batch/accumulation", 2}},
      {"optimizer.type", {"aDaMw", "/optimizer/kind", "adamw"}},
      {"optimizer.params.lr", {0.25, "/optimizer/lr", 0.25}},
      {"optimizer.params.betas",
       {{0.5, 0.75}, "/optimizer/betas", {0.5, 0.75}}},
      {"optimizer.params.eps", {1e-4, "/optimizer/eps", 1e-4}},
      {"optimizer.params.weight_decay", {0.5, "/optimizer/weight_decay", 0.5}},
      {"optimizer.params.torch_adam", {true, "/optimizer/weight_decay", 0.01}},
      {"optimizer.params.adam_w_mode", {false, "/optimizer/kind", "adamw"}},
      {"optimizer.params.momentum", {0.5, "/optimizer/momentum", 0.5}},
      {"optimizer.params.muon_lr", {0.5, "/optimizer/lr", 0.5}},
      {"optimizer.params.adam_lr", {0.5, "/optimizer/adamw/lr", 0.5}},
      {"optimizer.params.ns_method", {"standard", "/optimizer/ns", "standard"}},
      {"scheduler.type", {"WarmupLR", "/schedule/type", "WarmupLR"}},
      {"scheduler.params.warmup_min_lr", {0.5, "/schedule/warmup_min_lr", 0.5}},
      {"scheduler.params.warmup_max_lr", {0.5, "/schedule/warmup_max_lr", 0.5}},
      {"scheduler.params.warmup_num_steps",
       {7, "/schedule/warmup_num_steps", 7}},
      {"scheduler.params.warmup_type",
       {"linear", "/schedule/warmup_type", "linear"}},
      {"scheduler.params.total_num_steps", {9, "/schedule/total_num_steps", 9}},
      {"scheduler.params.warmup_min_ratio",
       {0.5, "/schedule/warmup_min_ratio", 0.5}},
      {"scheduler.params.cos_min_ratio", {0.5, "/schedule/cos_min_ratio", 0.5}},
      {"fp16.enabled", {true, "/plan/precision", "fp16"}},
      {"fp16.loss_scale", {128, "/plan/loss_scale", 128}},
      {"fp16.initial_scale_power",
       {8, "/plan/loss_scale/initial_scale_power", 8}},
      {"fp16.loss_scale_window",
       {50, "/plan/loss_scale/loss_scale_window", 50}},
      {"fp16.hysteresis", {4, "/plan/loss_scale/hysteresis", 4}},
      {"fp16.consecutive_hysteresis",
       {true, "/plan/loss_scale/consecutive_hysteresis", true}},
      {"fp16.min_loss_scale", {2, "/plan/loss_scale/min_loss_scale", 2}},
      {"fp16.fp16_master_weights_and_grads",
       {true, "/plan/master_dtype", "fp16"}},
      {"bf16.enabled", {true, "/plan/precision", "bf16"}},
      {"bf16.bf16_master_weights_and_grads",
       {true, "/plan/accumulate_dtype", "bf16"}},
      {"bf16.bf16_optimizer_states", {true, "/optimizer/state_dtype", "bf16"}},
      {"data_types.grad_accum_dtype",
       {"bf16", "/plan/accumulate_dtype", "bf16"}},
      {"gradient_clipping", {0.5, "/plan/clip", 0.5}},
      {"communication_data_type", {"FP16", "/plan/reduce_dtype", "fp16"}},
      {"zero_optimization.stage", {3, "/plan/zero", 3}},
      {"zero_optimization.overlap_comm", {false, "/plan/overlap", false}},
      {"zero_optimization.stage3_prefetch_bucket_size",
       {5e7, "/plan/prefetch", 50000000}},
      {"zero_optimization.stage3_max_live_parameters",
       {1e9, "/plan/max_live", 1000000000}},
      {"zero_optimization.reduce_bucket_size",
       {5e8, "/plan/reducing", 500000000}},
      {"compile.passes", {{"z3", "prefetch"}, "/plan/unshard", false}},
      {"data_parallel_size", {4, "/plan/dp", 4}},
      {"sequence_parallel_size", {2, "/plan/sp", 2}},
      {"expert_parallel.enabled", {true, "/plan/ep", 4}},
      {"expert_parallel.autoep_size", {8, "/plan/ep", 8}},
  };
  for (const DeepSpeedKey& key : DeepSpeedKeys()) {
    if (key.use != KeyUse::kRead || key.kind == JsonKind::kSection) continue;
    const auto arrival = arrivals.find(key.path);
    ASSERT_NE(arrival, arrivals.end()) << key.path << " has no case here";
    const Outcome outcome = Read(With(key.path, arrival->second.value));
    ASSERT_EQ(outcome.error, "") << key.path;
    EXPECT_EQ(outcome.out.value(json::json_pointer(arrival->second.pointer),
                                json("absent")),
              arrival->second.expected)
        << key.path << ": " << outcome.out;
  }
}

// The keys that people's files have, written out: none may fall out of the
// table, whatever becomes of it.
TEST(DeepSpeed, KnowsTheKeysInUse) {
  for (const char* key :
       {"train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "optimizer.type",
        "optimizer.params",
        "optimizer.params.lr",
        "optimizer.params.momentum",
        "optimizer.params.weight_decay",
        "optimizer.params.muon_lr",
        "optimizer.params.adam_lr",
        "optimizer.params.ns_method",
        "scheduler.type",
        "scheduler.params",
        "bf16.enabled",
        "fp16.enabled",
        "gradient_clipping",
        "zero_optimization.stage",
        "zero_optimization.overlap_comm",
        "zero_optimization.reduce_scatter",
        "zero_optimization.contiguous_gradients",
        "zero_optimization.reduce_bucket_size",
        "zero_optimization.allgather_bucket_size",
        "zero_optimization.stage3_prefetch_bucket_size",
        "zero_optimization.stage3_param_persistence_threshold",
        "zero_optimization.stage3_max_live_parameters",
        "zero_optimization.sub_group_size",
        "zero_optimization.offload_param",
        "zero_optimization.offload_optimizer",
        "zero_optimization.save_muon_momentum_buffer_in_memory",
        "compile.deepcompile",
        "compile.passes",
        "compile.offload_parameters",
        "compile.offload_opt_states",
        "compile.offload_activation",
        "compile.free_activation",
        "compile.double_buffer",
        "compile.symmetric_memory",
        "compile.debug_log",
        "expert_parallel.enabled",
        "expert_parallel.autoep_size",
        "expert_parallel.expert_tensor_parallel_size",
        "expert_parallel.preset_model",
        "expert_parallel.use_grouped_mm",
        "expert_parallel.moe_layer_pattern",
        "expert_parallel.router_pattern",
        "expert_parallel.expert_pattern",
        "expert_parallel.expert_w1",
        "expert_parallel.expert_w2",
        "expert_parallel.expert_w3",
        "expert_parallel.score_func",
        "expert_parallel.score_apply",
        "expert_parallel.route_norm",
        "expert_parallel.route_scale",
        "expert_parallel.top_k",
        "expert_parallel.num_expert_groups",
        "expert_parallel.shared_experts_pattern",
        "sequence_parallel_size",
        "data_parallel_size",
        "tensor_parallel.autotp_size",
        "steps_per_print",
        "wall_clock_breakdown",
        "comms_logger",
        "flops_profiler",
        "tensorboard",
        "wandb",
        "csv_monitor",
        "comet",
        "checkpoint.load_universal",
        "checkpoint.tag_validation"}) {
    EXPECT_NE(FindDeepSpeedKey(key), nullptr) << key;
  }
}

TEST(DeepSpeed, BatchSizesAgree) {
  const json two = {{"world_size", 2}};
  const auto batch = [](const json& config, const json& context) {
    return Read(config, context).out["batch"];
  };
  EXPECT_EQ(
      batch({{"train_batch_size", 24}, {"train_micro_batch_size_per_gpu", 3}},
            two),
      (json{{"total", 24}, {"micro_batch", 3}, {"accumulation", 4}}));
  EXPECT_EQ(
      batch({{"train_batch_size", 24}, {"gradient_accumulation_steps", 3}},
            two),
      (json{{"total", 24}, {"micro_batch", 4}, {"accumulation", 3}}));
  EXPECT_EQ(batch({{"train_micro_batch_size_per_gpu", 3}}, two),
            (json{{"total", 6}, {"micro_batch", 3}, {"accumulation", 1}}));
  EXPECT_NE(Read({{"train_batch_size", 24},
                  {"train_micro_batch_size_per_gpu", 3},
                  {"gradient_accumulation_steps", 2}},
                 two)
                .error.find("3 * 2 * 2"),
            std::string::npos);
  EXPECT_NE(
      Read({{"train_batch_size", 7}, {"train_micro_batch_size_per_gpu", 2}},
           two)
          .error.find("no multiple of 4"),
      std::string::npos);
}

TEST(DeepSpeed, DefaultsAreDeepSpeeds) {
  const json adam = Read({{"optimizer", {{"type", "Adam"}}}}).out["optimizer"];
  EXPECT_EQ(adam, (json{{"kind", "adamw"},
                        {"lr", 1e-3},
                        {"betas", {0.9, 0.999}},
                        {"eps", 1e-8},
                        {"weight_decay", 0.0}}));
  const json muon =
      Read({{"optimizer", {{"type", "Muon"}, {"params", {{"lr", 0.1}}}}}})
          .out["optimizer"];
  EXPECT_EQ(muon["lr"], 0.1);
  EXPECT_EQ(muon["adamw"]["lr"], 0.1);
  EXPECT_EQ(muon["momentum"], 0.95);
  EXPECT_EQ(muon["ns"], "gram");
  EXPECT_EQ(muon["scale"], "original");
  const json scaling =
      Read({{"fp16", {{"enabled", true}}}}).out["plan"]["loss_scale"];
  EXPECT_EQ(scaling["initial_scale_power"], 16);
  EXPECT_EQ(scaling["loss_scale_window"], 1000);
  EXPECT_EQ(scaling["hysteresis"], 2);
  EXPECT_EQ(Read(json::object()).out["plan"],
            (json{{"loss_average", "batches"}, {"zero", 0}}));
}

TEST(DeepSpeed, AutoIsResolvedOrRefused) {
  const json config = {
      {"optimizer", {{"type", "AdamW"}, {"params", {{"lr", "auto"}}}}},
      {"zero_optimization",
       {{"reduce_bucket_size", "auto"}, {"sub_group_size", "auto"}}}};
  EXPECT_NE(Read(config).error.find("'optimizer.params.lr' is \"auto\""),
            std::string::npos);
  const Outcome resolved =
      Read(config, {{"auto", {{"optimizer.params.lr", 0.5}}}});
  EXPECT_EQ(resolved.error, "");
  EXPECT_EQ(resolved.out["optimizer"]["lr"], 0.5);
  EXPECT_TRUE(Warns(resolved, "zero_optimization.sub_group_size"));
  EXPECT_FALSE(resolved.out["plan"].contains("reducing"));
}

TEST(DeepSpeed, WhatIsWrongIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"zero_optimisation": {}})", "did you mean 'zero_optimization'?"},
      {R"({"zero_optimization": {"stge": 1}})",
       "did you mean 'zero_optimization.stage'?"},
      {R"({"zero_optimization": true})", "write {\"stage\": 1}"},
      {R"({"zero_optimization": {"stage": 4}})", "stages are 0 to 3"},
      {R"({"zero_optimization": {"reduce_bucket_size": 0}})",
       "'zero_optimization.reduce_bucket_size'"},
      {R"({"gradient_clipping": 1, "gradient_clipping": 2})", "there twice"},
      {R"({"fp16": {"enabled": true}, "bf16": {"enabled": true}})",
       "are both true"},
      {R"({"bfloat16": {}, "bf16": {}})", "old name"},
      {R"({"optimizer": {"type": "Lamb"}})", "\"Lamb\" is not Heddle's"},
      {R"({"optimizer": {"params": {}}})", "'optimizer' has no 'type'"},
      {R"({"optimizer": {"type": "Adam", "params": {"momentum": 1}}})",
       "is no option of Adam"},
      {R"({"optimizer": {"type": "Adam", "params": {"adam_w_mode": false, "weight_decay": 1}}})",
       "adam_w_mode"},
      {R"({"scheduler": {"type": "OneCycle"}})", "'OneCycle' is not"},
      {R"({"scheduler": {"type": "WarmupDecayLR"}})", "needs total_num_steps"},
      {R"({"scheduler": {"type": "WarmupLR", "params": {"warmup_type": "x"}}})",
       "not log or linear"},
      {R"({"compile": {"passes": ["autosp"]}})", "sequence_parallel_size"},
      {"[1]", "not a JSON object"},
      {"{", "not JSON: parse error at line 1, column 2"},
      {"{\n \"bf16\": {\"enabled\": true,}}", "line 2, column 27"},
      {"", "not JSON"},
  };
  for (const auto& [text, message] : cases) {
    std::string out;
    const std::string error = ReadDeepSpeed(text, "", &out);
    EXPECT_NE(error.find(message), std::string::npos) << text << ": " << error;
    EXPECT_EQ(out, "");
  }
  std::string out;
  EXPECT_NE(ReadDeepSpeed(std::string(100000, '['), "", &out).find("deeper"),
            std::string::npos);
  EXPECT_EQ(
      ReadDeepSpeed("{/* a comment */ \"gradient_clipping\": null}", "", &out),
      "");
}

}  // namespace
}  // namespace heddle
