// What a profiler sees of a section: a range for it and one for each step,
// closed on every way out.
// Bites: with Push and Pop called by hand around Execute, the failing and the
// throwing step leave ranges open.

#include "runtime/trace/range.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/device/cpu.h"
#include "runtime/exec/executable.h"
#include "tests/fixtures/plan_builder.h"

namespace heddle::exec {
namespace {

using heddle::testing::PlanBuilder;
using heddle::testing::ValueArg;

// Ranges of all threads, each thread's in a stack of its own.
class Recorder final : public trace::RangeSink {
 public:
  Recorder() { trace::SetRangeSink(this); }
  ~Recorder() override { trace::SetRangeSink(nullptr); }
  void Push(const char* name) override {
    std::lock_guard<std::mutex> lock(mutex_);
    text_ += std::string(name) + "(";
    ++open_[std::this_thread::get_id()];
  }
  void Pop() override {
    std::lock_guard<std::mutex> lock(mutex_);
    text_ += ")";
    EXPECT_GT(open_[std::this_thread::get_id()]--, 0);
  }
  std::string text() const { return text_; }
  int open() const {
    int all = 0;
    for (const auto& [thread, count] : open_) all += count;
    return all;
  }

 private:
  std::mutex mutex_;
  std::string text_;
  std::map<std::thread::id, int> open_;
};

enum class End { kGood, kFails, kThrows };

class Handler final : public StepHandler {
 public:
  explicit Handler(End end) : end_(end) {}
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan&, const plan::Section&, const plan::Step& step,
      const Memory&) override {
    struct Prepared final : PreparedStep {
      explicit Prepared(End end) : end(end) {}
      absl::Status Execute(const RunContext&, device::Stream*) override {
        if (end == End::kThrows) throw std::runtime_error("inside");
        return end == End::kFails ? absl::InternalError("inside")
                                  : absl::OkStatus();
      }
      const End end;
    };
    return std::unique_ptr<PreparedStep>(
        new Prepared(step.name == "second" ? end_ : End::kGood));
  }

 private:
  const End end_;
};

// What is seen of a section of two steps, whose second one ends so; the steps
// may have a stream each, which are threads.
std::string Seen(End end, bool streams = false) {
  PlanBuilder b("train");
  const uint32_t g = b.Input("g", plan::DType::kF32, {4});
  const uint16_t other = streams ? b.Stream("gather") : 0;
  b.BeginSection("micro_first");
  for (const char* name : {"first", "second"}) {
    const uint32_t w = b.State("accumulator", name, plan::DType::kF32, {4});
    b.Step(plan::StepKind::kKernel, name, {ValueArg("src", g)},
           {static_cast<int32_t>(w)},
           name == std::string("second") ? other : 0);
  }
  auto device = device::CreateCpuDevice();
  absl::StatusOr<std::unique_ptr<Executable>> loaded = Executable::Load(
      b.Finish(), *device,
      {{plan::StepKind::kKernel, std::make_shared<Handler>(end)}}, 0);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  Recorder recorder;
  try {
    EXPECT_EQ((*loaded)->Run("micro_first").ok(), end == End::kGood);
  } catch (const std::runtime_error&) {
    EXPECT_EQ(end, End::kThrows);
  }
  EXPECT_EQ(recorder.open(), 0);
  return recorder.text();
}

TEST(RangeTest, SectionsAndStepsAreSeen) {
  EXPECT_EQ(Seen(End::kGood), "micro_first(first()second())");
}

TEST(RangeTest, EveryWayOutCloses) {
  EXPECT_EQ(Seen(End::kFails), "micro_first(first()second())");
  EXPECT_EQ(Seen(End::kThrows), "micro_first(first()second())");
}

// Ranges of both threads, in whatever order; Seen finds none open.
TEST(RangeTest, EveryWayOutOfAStreamCloses) {
  for (End end : {End::kGood, End::kFails}) {
    const std::string seen = Seen(end, /*streams=*/true);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), '('),
              std::count(seen.begin(), seen.end(), ')'))
        << seen;
    EXPECT_NE(seen.find("second("), std::string::npos) << seen;
  }
}

TEST(RangeTest, WithoutAProfilerNobodyWatches) {
  EXPECT_FALSE(trace::Watched());
  Recorder recorder;
  EXPECT_TRUE(trace::Watched());
}

// The one that saw a range open sees it close.
TEST(RangeTest, ASinkThatIsReplacedKeepsItsOwn) {
  Recorder first;
  {
    const trace::Range range("a");
    trace::SetRangeSink(nullptr);
  }
  EXPECT_EQ(first.text(), "a()");
}

}  // namespace
}  // namespace heddle::exec
