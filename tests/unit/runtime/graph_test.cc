// When a section runs as a graph: on a device that records work in lists, so
// that every decision is seen without a GPU.

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device/cpu.h"
#include "runtime/exec/executable.h"
#include "runtime/exec/section_graph.h"
#include "tests/fixtures/plan_builder.h"

namespace heddle::exec {
namespace {

using heddle::testing::BoolArg;
using heddle::testing::PlanBuilder;
using heddle::testing::RuntimeArg;
using heddle::testing::ValueArg;

// What the device was asked to do, in order.
struct Journal {
  std::vector<std::string> entries;
  bool capturing = false;
  bool fails = false;

  std::string Take() {
    std::string text;
    for (const std::string& entry : entries) text += entry + ";";
    entries.clear();
    return text;
  }
};

class ListGraph final : public device::Graph {
 public:
  ListGraph(Journal& journal, int updates)
      : journal_(journal), updates(updates) {}
  absl::Status Launch(device::Stream&) override {
    journal_.entries.push_back("launch");
    return absl::OkStatus();
  }

 private:
  Journal& journal_;

 public:
  int updates;
};

class ListStream final : public device::Stream {
 public:
  void Enqueue(std::function<void()> work) override { work(); }
  void Record(device::Event&) override {}
  void Wait(device::Event&) override {}
  absl::Status Synchronize() override { return absl::OkStatus(); }
};

class ListDevice final : public device::Device {
 public:
  explicit ListDevice(Journal& journal)
      : journal_(journal), host_(device::CreateCpuDevice()) {}
  const char* target() const override { return "cuda"; }
  device::Allocator& allocator() override { return host_->allocator(); }
  absl::StatusOr<std::unique_ptr<device::Stream>> CreateStream(
      const std::string&) override {
    return std::unique_ptr<device::Stream>(new ListStream());
  }
  absl::StatusOr<std::unique_ptr<device::Event>> CreateEvent() override {
    return host_->CreateEvent();
  }
  absl::Status CopyToHost(void* to, const void* from, size_t bytes) override {
    return host_->CopyToHost(to, from, bytes);
  }
  absl::Status CopyFromHost(void* to, const void* from, size_t bytes) override {
    return host_->CopyFromHost(to, from, bytes);
  }
  bool asynchronous() const override { return true; }
  absl::Status BeginCapture(device::Stream&) override {
    journal_.entries.push_back("begin");
    journal_.capturing = true;
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<device::Graph>> EndCapture(
      device::Stream&, std::unique_ptr<device::Graph> previous) override {
    journal_.entries.push_back(previous == nullptr ? "end" : "update");
    journal_.capturing = false;
    if (journal_.fails) return absl::InternalError("the device cannot");
    return std::unique_ptr<device::Graph>(new ListGraph(journal_, 0));
  }

 private:
  Journal& journal_;
  std::unique_ptr<device::Device> host_;
};

class ListHandler final : public StepHandler {
 public:
  explicit ListHandler(Journal& journal) : journal_(journal) {}
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan&, const plan::Section& section, const plan::Step&,
      const Memory&) override {
    struct Step final : PreparedStep {
      Step(Journal& journal, std::string section)
          : journal(journal), section(std::move(section)) {}
      absl::Status Execute(const RunContext& context,
                           device::Stream*) override {
        EXPECT_EQ(context.capturing, journal.capturing);
        journal.entries.push_back(section);
        return absl::OkStatus();
      }
      Journal& journal;
      std::string section;
    };
    return std::unique_ptr<PreparedStep>(new Step(journal_, section.name));
  }
  uint64_t MemoryVersion() const override { return version; }

  uint64_t version = 0;

 private:
  Journal& journal_;
};

// micro_first of one step, boundary of one step with a run-time scalar.
plan::Plan SmallPlan(int32_t rng_id = -1) {
  PlanBuilder b("train");
  b.plan().target = "cuda";
  const uint32_t g = b.Input("g", plan::DType::kF32, {4});
  const uint32_t a = b.State("accumulator", "w", plan::DType::kF32, {4});
  const uint32_t w = b.State("parameter", "w", plan::DType::kF32, {4});
  b.BeginSection("micro_first");
  b.Step(plan::StepKind::kKernel, "accumulate",
         {ValueArg("dst", a), ValueArg("src", g), BoolArg("first", true)},
         {static_cast<int32_t>(a)})
      .rng_id = rng_id;
  b.BeginSection("boundary");
  b.Step(plan::StepKind::kKernel, "adamw",
         {ValueArg("param", w), ValueArg("grad", a), RuntimeArg("lr", "lr")},
         {static_cast<int32_t>(w)});
  return b.Finish();
}

struct Fixture {
  explicit Fixture(const plan::Plan& plan, GraphMode mode = GraphMode::kAuto)
      : device(journal), handler(std::make_shared<ListHandler>(journal)) {
    absl::StatusOr<std::unique_ptr<Executable>> loaded =
        Executable::Load(plan, device, {{plan::StepKind::kKernel, handler}}, 0);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    executable = *std::move(loaded);
    set = executable->SetGraphs(mode);
  }
  std::string Run(const std::string& section) {
    const absl::Status status = executable->Run(section);
    return journal.Take() + (status.ok() ? "" : std::string(status.message()));
  }

  Journal journal;
  ListDevice device;
  std::shared_ptr<ListHandler> handler;
  std::unique_ptr<Executable> executable;
  absl::Status set;
};

TEST(GraphTest, ASectionIsCapturedInItsThirdRunAndThenOnlyLaunched) {
  Fixture f(SmallPlan());
  EXPECT_EQ(f.Run("micro_first"), "micro_first;");
  EXPECT_EQ(f.executable->GraphState("micro_first"),
            "from its run 3 on; so far 1");
  EXPECT_EQ(f.Run("micro_first"), "micro_first;");
  EXPECT_EQ(f.Run("micro_first"), "begin;micro_first;end;launch;");
  EXPECT_EQ(f.Run("micro_first"), "launch;");
  EXPECT_EQ(f.executable->GraphState("micro_first"), "yes");
}

// Bites: without has_scalars the fourth run launches the third one's lr.
TEST(GraphTest, RunTimeScalarsAreCapturedAnew) {
  Fixture f(SmallPlan());
  f.Run("boundary");
  f.Run("boundary");
  EXPECT_EQ(f.Run("boundary"), "begin;boundary;end;launch;");
  EXPECT_EQ(f.Run("boundary"), "begin;boundary;update;launch;");
}

// Bites: without the version a graph would go on using the old workspace.
TEST(GraphTest, AGraphDiesWhenMemoryMoves) {
  Fixture f(SmallPlan());
  for (int run = 0; run < 4; ++run) f.Run("micro_first");
  f.handler->version = 1;
  EXPECT_EQ(f.Run("micro_first"), "begin;micro_first;update;launch;");
  EXPECT_EQ(f.Run("micro_first"), "launch;");
}

TEST(GraphTest, AFailedCaptureRunsWithoutAndSaysWhy) {
  Fixture f(SmallPlan());
  f.journal.fails = true;
  f.Run("micro_first");
  f.Run("micro_first");
  EXPECT_EQ(f.Run("micro_first"), "begin;micro_first;end;micro_first;");
  EXPECT_EQ(f.Run("micro_first"), "micro_first;");
  EXPECT_EQ(f.executable->GraphState("micro_first"), "no: the device cannot");
}

TEST(GraphTest, AFailedCaptureIsAnErrorWhereAGraphIsAskedFor) {
  Fixture f(SmallPlan(), GraphMode::kOn);
  f.journal.fails = true;
  f.Run("micro_first");
  f.Run("micro_first");
  EXPECT_EQ(f.Run("micro_first"),
            "begin;micro_first;end;cuda_graph=True cannot be kept: the device "
            "cannot");
}

TEST(GraphTest, SwitchedOffThereIsNone) {
  Fixture f(SmallPlan(), GraphMode::kOff);
  for (int run = 0; run < 4; ++run)
    EXPECT_EQ(f.Run("micro_first"), "micro_first;");
  EXPECT_EQ(f.executable->GraphState("micro_first"),
            "no: graphs are switched off");
}

TEST(GraphTest, RandomSectionsHaveNoneAndCannotBeAskedFor) {
  Fixture automatic(SmallPlan(0));
  EXPECT_TRUE(automatic.set.ok());
  for (int run = 0; run < 4; ++run)
    EXPECT_EQ(automatic.Run("micro_first"), "micro_first;");
  Fixture on(SmallPlan(0), GraphMode::kOn);
  EXPECT_EQ(on.set.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(on.set.message().find("section micro_first: step 0 accumulate "
                                  "draws random numbers"),
            std::string::npos)
      << on.set;
}

}  // namespace
}  // namespace heddle::exec
