// Error messages come apart at their joints, and no text breaks the JSON.
#include "api/errors/json_error.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace heddle {
namespace {

nlohmann::json Error(const std::string& message) {
  return nlohmann::json::parse(
      JsonError("heddle-run", 1, "NOT_FOUND", message))["error"];
}

TEST(JsonError, HasPlaceReasonAndRemedy) {
  const nlohmann::json error =
      Error("dir/x.plan: no such file; give the path of a plan");
  EXPECT_EQ(error["tool"], "heddle-run");
  EXPECT_EQ(error["exit_code"], 1);
  EXPECT_EQ(error["kind"], "NOT_FOUND");
  EXPECT_EQ(error["where"], "dir/x.plan");
  EXPECT_EQ(error["what"], "no such file");
  EXPECT_EQ(error["remedy"], "give the path of a plan");
}

TEST(JsonError, TakesMlirsDiagnosticsApart) {
  const nlohmann::json error =
      Error("step.mlir:3:5: error: custom op 'x' is unknown\n  %0 = x\n  ^");
  EXPECT_EQ(error["where"], "step.mlir:3:5");
  EXPECT_EQ(error["what"], "custom op 'x' is unknown");
  EXPECT_TRUE(error["remedy"].is_null());
}

TEST(JsonError, WhatHasNoPartsStaysWhole) {
  for (const char* text : {"", ": ", "; ", "two plans were given: a and b",
                           "\xff\xfe not UTF-8 \" \\ \n"}) {
    const nlohmann::json error = Error(text);
    EXPECT_TRUE(error["where"].is_null()) << text;
    EXPECT_TRUE(error["message"].is_string());
  }
}

}  // namespace
}  // namespace heddle
