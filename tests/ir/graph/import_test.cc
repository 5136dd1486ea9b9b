// What MLIR's parser must not see, and what looks like it and is fine. The
// texts that are refused make mlir-opt write into freed memory (valgrind:
// "Invalid write" in Operation::dropAllReferences), found by mlir_fuzz.
#include "ir/graph/import.h"

#include <gtest/gtest.h>

#include <string>

namespace heddle::graph {
namespace {

void expectForward(const std::string& text, unsigned line,
                   const std::string& name) {
  const Hazard hazard = hazardIn(text);
  EXPECT_EQ(hazard.line, line) << text;
  EXPECT_EQ(hazard.what.rfind(name + " is used before it is defined", 0), 0u)
      << hazard.what;
}

TEST(Import, NamesAreDefinedAboveTheirUses) {
  // A region beside the one that uses it, and one inside.
  expectForward(
      "\"a.a\"() ({\n  \"a.use\"(%5) : (i32) -> ()\n}) : () -> ()\n"
      "\"a.b\"() ({\n  %5 = \"a.def\"() : () -> i32\n  error",
      5, "%5");
  expectForward("\"a.use\"(%5) : (i32) -> ()\n\"a.b\"() ({\n%5 = \"a.def\"()",
                3, "%5");
  // As a second result, one of several, an argument, behind a comment.
  expectForward("\"a.use\"(%x#1) : (i32) -> ()\n%x:2 = \"a.def\"()", 2, "%x");
  expectForward("\"a.use\"(%y)\n%x , // %y\n %y:3 = \"a.def\"()", 3, "%y");
  expectForward("\"a.use\"(%a, %b)\n\"a.b\"() ({\n^bb0 (%c: i32, %b : i32):", 3,
                "%b");
  // MLIR ends a name of digits at the first letter.
  expectForward("sched.copy %5to %6\n\"a.b\"() ({\n%5 = \"a.def\"()", 3, "%5");
  // A region of its own that first looks at an outer name.
  expectForward(
      "%5 = \"a\"() : () -> i32\nsched.plan {\nsched.section {\n"
      "\"a.use\"(%5)\n}\nsched.section {\n%5 = \"b\"()",
      7, "%5");
}

TEST(Import, WhatIsDefinedAboveIsFine) {
  for (const char* text :
       {"%a, %b:2 = \"x\"() : () -> (i32, i32, i32)\n\"y\"(%a, %b#0, %b#1)",
        "\"x\"() ({\n^bb0(%arg0: i32, %arg1: tensor<2x3xf32>):\n"
        "%0 = \"y\"(%arg0, %arg1) : (i32, tensor<2x3xf32>) -> i32\n"
        "\"z\"() ({\n^bb0(%arg2: i32):\n\"u\"(%0, %arg2)\n})\n})",
        // Regions that follow each other begin with the same names.
        "\"x\"() ({\n^bb0(%arg0: i32):\n%0 = \"y\"(%arg0)\n}) : () -> ()\n"
        "\"x\"() ({\n^bb0(%arg0: i32):\n%0 = \"y\"(%arg0)\n}) : () -> ()",
        // Neither comments nor strings use anything.
        "// %0\n\"x\"() {a = \"%0\\\" %0\"} : () -> ()\n%0 = \"y\"()",
        "\"x\"(%never) : (i32) -> ()", "^", "%", "%a =", "%a,", "%a:", "%a:2",
        "}}}) %a", "ML\xefR%a \"x\"(%b) %b = "})
    EXPECT_FALSE(hazardIn(text)) << text << ": " << hazardIn(text).what;
}

TEST(Import, ALongListIsLookedAtOnce) {
  std::string text = "\"x\"(%0";
  for (int i = 1; i < 200000; ++i) text += ", %" + std::to_string(i);
  EXPECT_FALSE(hazardIn(text + ")"));
  EXPECT_EQ(hazardIn(text + ")\n%77 = \"y\"()").line, 2u);
}

TEST(Import, NestingHasALimit) {
  EXPECT_FALSE(hazardIn(std::string(kMaxNesting, '(')));
  EXPECT_EQ(hazardIn("\n" + std::string(kMaxNesting + 1, '[')).line, 2u);
}

}  // namespace
}  // namespace heddle::graph
