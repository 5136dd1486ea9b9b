// Which steps are over when another starts, for streams joined by events.
#include "passes/analysis/step_order.h"

#include "gtest/gtest.h"
#include "ir/graph/GraphDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Parser/Parser.h"

namespace heddle {
namespace {

class StepOrder : public testing::Test {
 protected:
  StepOrder() {
    context.loadDialect<graph::GraphDialect, sched::SchedDialect>();
  }

  // `steps` is the body of a section with the input %x and the scratch values
  // %a, %b (256 bytes apart) and %c (over %a's bytes).
  sched::SectionOp section(const std::string& steps) {
    const std::string text =
        R"(sched.plan "replay" streams ["s0", "s1", "s2"] attributes {config = "{}", precision = "fp32", target = "cpu", torch_version = "2.11.0"} {
      %xb = sched.buffer input device step_input 16 bytes at 0
      %x = sched.value %xb : <tensor<4xf32>>
      sched.section "replay" attributes {events = 4 : i64} {
        %ab = sched.buffer scratch device temporary 16 bytes at 0
        %a = sched.value %ab : <tensor<4xf32>>
        %a0 = sched.value %ab : <tensor<2xf32, #graph.layout<[1], 0, 16>>>
        %a1 = sched.value %ab : <tensor<2xf32, #graph.layout<[1], 2, 16>>>
        %bb = sched.buffer scratch device temporary 16 bytes at 256
        %b = sched.value %bb : <tensor<4xf32>>
        %cb = sched.buffer scratch device temporary 16 bytes at 0
        %c = sched.value %cb : <tensor<4xf32>>
      )" +
        steps + "}}";
    module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
    EXPECT_TRUE(module);
    return *(*module->getOps<sched::PlanOp>().begin())
                .getBody()
                .front()
                .getOps<sched::SectionOp>()
                .begin();
  }

  static std::string copy(
      const std::string& from, const std::string& to,
      const std::string& order = "",
      const std::string& type = "!sched.ref<tensor<4xf32>>") {
    return "sched.copy " + from + " to " + to + " " + order + " : " + type +
           " to " + type + "\n";
  }

  mlir::MLIRContext context;
  mlir::OwningOpRef<mlir::ModuleOp> module;
};

TEST_F(StepOrder, ReadsOfOneValueDoNotConflict) {
  auto steps = stepsOf(section(copy("%x", "%a") + copy("%x", "%b")));
  EXPECT_FALSE(conflict(accessesOf(steps[0]), accessesOf(steps[1])));
}

TEST_F(StepOrder, BuffersOnTheSameBytesConflict) {
  auto steps = stepsOf(section(copy("%x", "%a") + copy("%x", "%c")));
  EXPECT_TRUE(conflict(accessesOf(steps[0]), accessesOf(steps[1])));
}

TEST_F(StepOrder, DisjointHalvesOfABufferDoNotConflict) {
  const std::string half0 =
                        "!sched.ref<tensor<2xf32, #graph.layout<[1], 0, 16>>>",
                    half1 =
                        "!sched.ref<tensor<2xf32, #graph.layout<[1], 2, 16>>>";
  auto steps = stepsOf(
      section("sched.copy %a0 to %a1 : " + half0 + " to " + half1 + "\n" +
              "sched.copy %a1 to %a1 : " + half1 + " to " + half1 + "\n"));
  llvm::SmallVector<Access> first = accessesOf(steps[0]),
                            second = accessesOf(steps[1]);
  EXPECT_EQ(first[0].end, second[0].begin);
  EXPECT_FALSE(conflict({first[0]}, {second[1]}));
  EXPECT_TRUE(conflict(first, second));
}

TEST_F(StepOrder, AWaitBringsWhatTheSignallerKnew) {
  // Stream 2 waits for stream 1, which waited for stream 0: both are over.
  auto steps = stepsOf(section(copy("%x", "%a", "signal 0") +
                               copy("%a", "%b", "stream 1 wait [0] signal 1") +
                               copy("%b", "%c", "stream 2 wait [1]")));
  StreamClock clock(3);
  for (auto [i, step] : llvm::enumerate(steps)) {
    clock.start(i, step);
    if (i == 2) {
      EXPECT_TRUE(clock.over(0, 0));
      EXPECT_TRUE(clock.over(1, 1));
    }
    clock.finish();
  }
}

TEST_F(StepOrder, WithoutAWaitNothingIsKnownOfOtherStreams) {
  auto steps =
      stepsOf(section(copy("%x", "%a") + copy("%x", "%b", "stream 1")));
  StreamClock clock(3);
  clock.start(0, steps[0]);
  clock.finish();
  clock.start(1, steps[1]);
  EXPECT_FALSE(clock.over(0, 0));
}

TEST_F(StepOrder, ResultsLiveUntilTheEnd) {
  auto body = section(copy("%x", "%a") + copy("%a", "%b") +
                      "sched.result \"output\" \"a\" %a : <tensor<4xf32>>\n");
  auto lifetimes = lifetimesOf(body);
  auto buffers =
      llvm::to_vector(body.getBody().front().getOps<sched::BufferOp>());
  EXPECT_EQ(lifetimes.lookup(buffers[0]).last, 2);
  EXPECT_EQ(lifetimes.lookup(buffers[1]).first, 1);
  EXPECT_EQ(lifetimes.lookup(buffers[1]).last, 1);
}

}  // namespace
}  // namespace heddle
