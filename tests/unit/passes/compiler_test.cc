// The compiler's C API: a program becomes a plan that parses, options and
// programs that are wrong become messages.
#include "api/compiler/compiler.h"

#include <string>

#include "gtest/gtest.h"
#include "runtime/plan/plan.h"

namespace heddle {
namespace {

constexpr char kStep[] = R"mlir("builtin.module"() ({
  "graph.step"() <{arg_roles = [#graph.param<["w"], true, "matrix">, #graph.input<"x">], format_version = 1 : i64, precision = "fp32",
                   result_roles = [#graph.loss, #graph.gradient<"w">], target = "cpu", torch_version = "2.11.0"}> ({
  ^bb0(%w: tensor<4xf32>, %x: tensor<4xf32>):
    %p = "graph.mul.Tensor"(%w, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("layer"("model.py":7:0))
    %l = "graph.sum"(%p) : (tensor<4xf32>) -> tensor<f32>
    %g = "graph.clone"(%x) <{memory_format = "preserve"}> : (tensor<4xf32>) -> tensor<4xf32>
    "graph.return"(%l, %g) : (tensor<f32>, tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
)mlir";

struct Outcome {
  int code;
  std::string plan, error;
};

Outcome compile(const std::string& step, const std::string& options) {
  HeddleBuffer plan{nullptr, 0}, error{nullptr, 0};
  Outcome outcome{heddle_compile(step.data(), step.size(), nullptr, 0,
                                 options.c_str(), &plan, &error),
                  {},
                  {}};
  if (plan.data) outcome.plan.assign(plan.data, plan.size);
  if (error.data) outcome.error.assign(error.data, error.size);
  heddle_free(&plan);
  heddle_free(&error);
  return outcome;
}

std::string quoted(const std::string& path) { return "\"" + path + "\""; }

TEST(Compile, ReplayPlanReturnsLossAndGradient) {
  Outcome outcome = compile(kStep, R"({"mode": "replay"})");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  auto plan =
      plan::ParsePlan(reinterpret_cast<const uint8_t*>(outcome.plan.data()),
                      outcome.plan.size());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const plan::Section* replay = plan::FindSection(*plan, "replay");
  ASSERT_NE(replay, nullptr);
  ASSERT_EQ(replay->results.size(), 2u);
  EXPECT_EQ(replay->results[0].kind, "loss");
  EXPECT_EQ(replay->results[1].name, "w");
  EXPECT_EQ(plan::LocationText(*plan, replay->steps[0]), "layer (model.py:7)");
}

TEST(Compile, TrainingPlanHasItsSectionsAndState) {
  Outcome outcome = compile(
      kStep,
      R"({"mode": "train", "clip": 1.0, "optimizer": {"kind": "adamw", "weight_decay": 0.1}, "master_dtype": "fp64"})");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  auto plan =
      plan::ParsePlan(reinterpret_cast<const uint8_t*>(outcome.plan.data()),
                      outcome.plan.size());
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const char* section : {"micro_first", "micro_next", "boundary"})
    EXPECT_NE(plan::FindSection(*plan, section), nullptr) << section;
  std::string kinds;
  for (const plan::StateEntry& entry : plan->state) kinds += entry.kind + " ";
  EXPECT_EQ(kinds, "parameter accumulator master exp_avg exp_avg_sq ");
}

TEST(Compile, EqualProgramsGiveEqualBytes) {
  EXPECT_EQ(compile(kStep, "{}").plan, compile(kStep, "{}").plan);
}

TEST(Compile, UnknownOptionNamesTheNearest) {
  EXPECT_NE(compile(kStep, R"({"accumulate_dtpye": "fp32"})")
                .error.find("did you mean 'accumulate_dtype'?"),
            std::string::npos);
  EXPECT_NE(compile(kStep, R"({"optimizer": {"weight_decey": 0.1}})")
                .error.find("weight_decay"),
            std::string::npos);
}

TEST(Compile, WhatComesLaterIsRefusedByName) {
  EXPECT_NE(compile(kStep, R"({"mesh": "ep:2"})").error.find("mesh=ep:2"),
            std::string::npos);
  EXPECT_NE(compile(kStep, R"({"ep": 2})").error.find("ep=2"),
            std::string::npos);
  EXPECT_NE(compile(kStep, R"({"sp": 2})").error.find("sp=2"),
            std::string::npos);
}

TEST(Compile, WrongKindsAreNamed) {
  for (const char* options :
       {R"({"mode": 3})", R"({"zero": "one"})", R"({"optimizer": []})",
        R"({"config": 1})", "[]", "{"}) {
    Outcome outcome = compile(kStep, options);
    EXPECT_EQ(outcome.code, 1) << options;
    EXPECT_FALSE(outcome.error.empty()) << options;
    EXPECT_TRUE(outcome.plan.empty()) << options;
  }
}

TEST(Compile, SyntaxErrorsSayWhere) {
  Outcome outcome = compile(std::string(kStep).substr(0, 400), "{}");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.error.find("step.mlir:"), std::string::npos)
      << outcome.error;
}

TEST(Compile, AFailingPassSaysHowToReplayIt) {
  const std::string directory = testing::TempDir();
  Outcome outcome =
      compile(kStep, R"({"loss_average": "tokens", "reproducer_dir": )" +
                         quoted(directory) + "}");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.error.find("reproduce with: heddle-opt " + directory),
            std::string::npos)
      << outcome.error;
}

TEST(RunPasses, PrintsTheResult) {
  HeddleBuffer text{nullptr, 0}, error{nullptr, 0};
  ASSERT_EQ(
      heddle_run_passes(kStep, sizeof(kStep) - 1,
                        "builtin.module(graph-lower-to-sched{mode=replay})",
                        &text, &error),
      0);
  EXPECT_NE(std::string(text.data, text.size).find("sched.section"),
            std::string::npos);
  heddle_free(&text);
  EXPECT_EQ(heddle_run_passes(kStep, sizeof(kStep) - 1,
                              "builtin.module(no-such-pass)", &text, &error),
            1);
  EXPECT_NE(std::string(error.data, error.size).find("no-such-pass"),
            std::string::npos);
  heddle_free(&error);
}

}  // namespace
}  // namespace heddle
