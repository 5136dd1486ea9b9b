// Ranks of a plan as threads, without LibTorch: every byte that a step touches
// goes through this file's own handlers. The model's gradients are its inputs,
// so the expected parameters are worked out here, in one loop, from all ranks'
// inputs.

#include "runtime/exec/ranks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "runtime/device/cpu.h"
#include "runtime/exec/collective_handler.h"
#include "runtime/exec/executable.h"
#include "runtime/exec/host_kernel_handler.h"
#include "runtime/trace/dump.h"
#include "runtime/trace/verdict.h"
#include "tests/fixtures/plan_builder.h"
#include "tests/fixtures/shadow.h"

namespace heddle::exec {
namespace {

using heddle::testing::DelayedHandler;
using heddle::testing::Delays;
using heddle::testing::ZeroPlan;
using ::testing::HasSubstr;

// dot, add and copies of f64, as ZeroPlan has them.
class DoubleStep final : public PreparedStep {
 public:
  DoubleStep(std::string name, std::vector<const double*> in, double* out,
             int64_t count)
      : name_(std::move(name)), in_(std::move(in)), out_(out), count_(count) {}
  absl::Status Execute(const RunContext&, device::Stream*) override {
    if (name_ == "aten::dot") {
      double sum = 0;
      for (int64_t i = 0; i < count_; ++i) sum += in_[0][i] * in_[1][i];
      *out_ = sum;
    } else if (name_ == "aten::add.Tensor") {
      *out_ = *in_[0] + *in_[1];
    } else {
      std::memcpy(out_, in_[0], sizeof(double) * count_);
    }
    return absl::OkStatus();
  }

 private:
  std::string name_;
  std::vector<const double*> in_;
  double* out_;
  int64_t count_;
};

class DoubleHandler final : public StepHandler {
 public:
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const Memory& memory) override {
    const auto address = [&](int64_t value) {
      return reinterpret_cast<double*>(
          memory.Address(static_cast<uint32_t>(value)));
    };
    std::vector<const double*> in;
    int64_t count = 0;
    for (const plan::Arg& arg : step.args) {
      if (arg.kind != plan::ArgKind::kValue) continue;
      in.push_back(address(arg.i));
      count = plan::ElementCount(plan.values[static_cast<size_t>(arg.i)]);
    }
    return std::unique_ptr<PreparedStep>(
        new DoubleStep(step.name, in, address(step.results[0]), count));
  }
};

// A rank that fails, throws or stalls where it is told to.
struct Fault {
  enum Kind { kStatus, kException, kStall };
  std::atomic<int> rank{-1};
  std::string section;
  Kind kind = kStatus;
  std::atomic<bool> over{false};  // ends a stall
  std::function<bool()> when;     // what it waits for, if anything
};
class FaultyHandler final : public StepHandler {
 public:
  FaultyHandler(std::shared_ptr<StepHandler> handler, int rank, Fault& fault)
      : handler_(std::move(handler)), rank_(rank), fault_(fault) {}
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section& section,
      const plan::Step& step, const Memory& memory) override {
    return handler_->Prepare(plan, section, step, memory);
  }
  absl::Status BeginRun(const plan::Section& section,
                        const RunContext&) override {
    if (fault_.rank != rank_ || fault_.section != section.name)
      return absl::OkStatus();
    while (fault_.when && !fault_.when())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (fault_.kind == Fault::kException)
      throw std::runtime_error("the disk is on fire");
    while (fault_.kind == Fault::kStall && !fault_.over)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (fault_.rank != rank_) return absl::OkStatus();
    return absl::DataLossError("the disk is on fire");
  }

 private:
  std::shared_ptr<StepHandler> handler_;
  const int rank_;
  Fault& fault_;
};

constexpr double kLr = 0.01;
constexpr double kMaxNorm = 0.5;

class World {
 public:
  World(plan::Plan plan, uint32_t seed, comm::WorldOptions options = {})
      : delays_(seed),
        group_(RankGroup::OfThreads(static_cast<int>(plan::WorldSize(plan)),
                                    std::move(options))),
        plan_(std::move(plan)) {
    for (int r = 0; r < group_->size(); ++r) {
      auto world = group_->World(r);
      EXPECT_TRUE(world.ok()) << world.status();
      worlds_.push_back(*world);
      auto communicators = Communicators::Connect(plan_, *world);
      EXPECT_TRUE(communicators.ok()) << communicators.status();
      communicators_.push_back(*communicators);
      HandlerTable handlers;
      const auto add = [&](plan::StepKind kind,
                           std::shared_ptr<StepHandler> handler) {
        handlers[kind] = DelayedHandler(std::move(handler), delays_);
      };
      add(plan::StepKind::kAten, std::make_shared<DoubleHandler>());
      add(plan::StepKind::kCopy, std::make_shared<DoubleHandler>());
      add(plan::StepKind::kKernel, CreateHostKernelHandler());
      handlers[plan::StepKind::kCollective] = std::make_shared<FaultyHandler>(
          CreateCollectiveHandler(*communicators), r, fault_);
      devices_.push_back(device::CreateCpuDevice());
      auto executable = Executable::Load(
          plan_, *devices_.back(), std::move(handlers), 0, nullptr, {r, r > 0});
      EXPECT_TRUE(executable.ok()) << executable.status();
      executables_.push_back(*std::move(executable));
      executables_.back()->SetScalar("lr", kLr);
    }
  }

  int size() const { return group_->size(); }
  bool stalled() const { return group_->stalled(); }
  bool in_use() const { return executables_[0].use_count() > 1; }
  Fault& fault() { return fault_; }
  // Whether every rank but this one is inside a collective.
  bool OthersWait(int rank) const {
    for (int q = 0; q < group_->size(); ++q) {
      if (q != rank && trace::WaitingText(worlds_[q]->recorder().Snapshot()) ==
                           trace::WaitingText({}))
        return false;
    }
    return true;
  }
  uint64_t wire(plan::CollectiveKind kind, int rank) {
    return communicators_[rank]->count(kind).bytes;
  }

  double* Input(int rank, size_t i) {
    return reinterpret_cast<double*>(
        executables_[rank]->memory().Address(plan_.inputs[i].value));
  }
  // Where a rank holds elements of the i-th tensor of a kind: calls with the
  // address, the first element and how many.
  template <typename Body>
  void Pieces(int rank, const std::string& kind, size_t i, Body body) {
    for (const plan::StateEntry& entry : plan_.state) {
      if (entry.kind != kind || i-- != 0) continue;
      auto* data = reinterpret_cast<double*>(
          executables_[rank]->memory().Address(entry.value));
      if (entry.bounds.empty())
        return body(data, int64_t{0},
                    plan::ElementCount(plan_.values[entry.value]));
      const int64_t begin = std::max(entry.bounds[rank], entry.slot_offset);
      const int64_t end =
          std::min(entry.bounds[rank + 1], entry.slot_offset + entry.sizes[0]);
      if (begin < end)
        body(data + begin - entry.bounds[rank], begin - entry.slot_offset,
             end - begin);
      return;
    }
    FAIL() << "no " << kind << " " << i;
  }

  absl::Status Run(const std::string& section) {
    return group_->Run(
        [section, executables = executables_](int rank) {
          return executables[rank]->Run(section);
        },
        true);
  }
  void SetScalar(const std::string& name, double value) {
    for (auto& executable : executables_) executable->SetScalar(name, value);
  }
  double Result(int rank, const std::string& section, size_t i) {
    const plan::Section* s = plan::FindSection(plan_, section);
    double value;
    std::memcpy(&value,
                executables_[rank]->memory().Address(s->results[i].value),
                sizeof(value));
    return value;
  }

 private:
  Delays delays_;
  Fault fault_;
  std::shared_ptr<RankGroup> group_;
  std::vector<std::shared_ptr<comm::World>> worlds_;
  plan::Plan plan_;
  std::vector<std::unique_ptr<device::Device>> devices_;
  std::vector<std::shared_ptr<Communicators>> communicators_;
  std::vector<std::shared_ptr<Executable>> executables_;
};

double Draw(int64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed * 2654435761u + 17));
  return std::uniform_real_distribution<double>(-1, 1)(random);
}

// x of one rank, micro-batch and step.
double InputOf(int64_t step, int64_t micro, size_t tensor, int64_t element) {
  return Draw(((step * 64 + micro) * 64 + static_cast<int64_t>(tensor)) * 8192 +
              element);
}

struct Trained {
  std::vector<std::vector<double>> parameters;
  std::vector<double> losses;
  std::vector<double> norms;
};

// `micros` micro-batches a rank and step.
Trained Train(World& world, const std::vector<int64_t>& sizes, int steps,
              int micros) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (int r = 0; r < world.size(); ++r) {
      world.Pieces(r, "parameter", i,
                   [&](double* data, int64_t first, int64_t count) {
                     for (int64_t k = 0; k < count; ++k)
                       data[k] = InputOf(1000, 0, i, first + k);
                   });
    }
  }
  Trained trained;
  world.SetScalar("micro_batches", world.size() * micros);
  for (int step = 1; step <= steps; ++step) {
    world.SetScalar("step", step);
    double loss = 0;
    for (int m = 0; m < micros; ++m) {
      for (int r = 0; r < world.size(); ++r) {
        for (size_t i = 0; i < sizes.size(); ++i) {
          for (int64_t k = 0; k < sizes[i]; ++k)
            world.Input(r, i)[k] = InputOf(step, r * micros + m, i, k);
        }
      }
      const char* section = m == 0 ? "micro_first" : "micro_next";
      const absl::Status status = world.Run(section);
      EXPECT_TRUE(status.ok()) << status;
      for (int r = 0; r < world.size(); ++r)
        loss += world.Result(r, section, 0);
    }
    const absl::Status status = world.Run("boundary");
    EXPECT_TRUE(status.ok()) << status;
    trained.losses.push_back(loss);
    trained.norms.push_back(world.Result(world.size() - 1, "boundary", 0));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<double> whole(static_cast<size_t>(sizes[i]), NAN);
    for (int r = 0; r < world.size(); ++r) {
      world.Pieces(r, "parameter", i,
                   [&](const double* data, int64_t first, int64_t count) {
                     std::copy(data, data + count, whole.begin() + first);
                   });
    }
    trained.parameters.push_back(std::move(whole));
  }
  return trained;
}

// The same training in one loop: the mean of all micro-batches' gradients,
// clipped by its norm, AdamW.
Trained Expected(const std::vector<int64_t>& sizes, int steps, int micros) {
  Trained trained;
  std::vector<std::vector<double>> m, v;
  for (size_t i = 0; i < sizes.size(); ++i) {
    trained.parameters.emplace_back();
    for (int64_t k = 0; k < sizes[i]; ++k)
      trained.parameters[i].push_back(InputOf(1000, 0, i, k));
    m.emplace_back(sizes[i], 0.0);
    v.emplace_back(sizes[i], 0.0);
  }
  for (int step = 1; step <= steps; ++step) {
    double loss = 0, square = 0;
    std::vector<std::vector<double>> gradients;
    for (size_t i = 0; i < sizes.size(); ++i) {
      gradients.emplace_back(sizes[i], 0.0);
      for (int64_t k = 0; k < sizes[i]; ++k) {
        for (int n = 0; n < micros; ++n) {
          const double x = InputOf(step, n, i, k);
          loss += trained.parameters[i][k] * x;
          gradients[i][k] += x / micros;
        }
        square += gradients[i][k] * gradients[i][k];
      }
    }
    const double norm = std::sqrt(square);
    const double factor = std::min(1.0, kMaxNorm / (norm + 1e-6));
    for (size_t i = 0; i < sizes.size(); ++i) {
      for (int64_t k = 0; k < sizes[i]; ++k) {
        const double g = gradients[i][k] * factor;
        double& p = trained.parameters[i][k];
        p *= 1 - kLr * 0.1;
        m[i][k] = 0.9 * m[i][k] + 0.1 * g;
        v[i][k] = 0.95 * v[i][k] + 0.05 * g * g;
        p -= kLr * (m[i][k] / (1 - std::pow(0.9, step))) /
             (std::sqrt(v[i][k] / (1 - std::pow(0.95, step))) + 1e-8);
      }
    }
    trained.losses.push_back(loss);
    trained.norms.push_back(norm);
  }
  return trained;
}

void ExpectClose(const Trained& a, const Trained& b) {
  const auto close = [](const std::vector<double>& x,
                        const std::vector<double>& y) {
    ASSERT_EQ(x.size(), y.size());
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_NEAR(x[i], y[i], 1e-12 * (1 + std::abs(y[i]))) << i;
  };
  close(a.losses, b.losses);
  close(a.norms, b.norms);
  for (size_t i = 0; i < a.parameters.size(); ++i)
    close(a.parameters[i], b.parameters[i]);
}

// Fails if rank strides are not resolved (Memory::Offset without the
// coordinate), if the gather after the update is left out, and if the parts of
// the norm are not added up.
TEST(RanksTest, ManyRanksTrainAsOneLoop) {
  const std::vector<int64_t> kSizes = {13, 1, 40, 3};
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int stage : {1, 3}) {
      for (const bool uneven : {false, true}) {
        SCOPED_TRACE(::testing::Message() << ranks << " ranks, stage " << stage
                                          << (uneven ? ", uneven" : ""));
        World world(ZeroPlan(kSizes, ranks, stage, uneven, kMaxNorm), 0);
        const int micros = ranks % 2 == 0 ? 3 : 1;
        ExpectClose(Train(world, kSizes, 4, micros),
                    Expected(kSizes, 4, micros * ranks));
      }
    }
  }
}

TEST(RanksTest, MoreRanksThanElements) {
  for (const int stage : {1, 3}) {
    World world(ZeroPlan({1, 2}, 8, stage, true, kMaxNorm), 0);
    ExpectClose(Train(world, {1, 2}, 3, 1), Expected({1, 2}, 3, 8));
  }
}

TEST(RanksTest, DelaysDoNotChangeABit) {
  const std::vector<int64_t> kSizes = {13, 40, 3};
  for (const bool apart : {false, true}) {
    Trained first;
    for (uint32_t seed = 0; seed < 25; ++seed) {
      World world(
          ZeroPlan(kSizes, 3, 3, false, kMaxNorm, plan::DType::kF64, apart),
          seed);
      Trained trained = Train(world, kSizes, 2, 2);
      if (seed == 0) {
        first = std::move(trained);
        continue;
      }
      EXPECT_EQ(trained.losses, first.losses) << seed;
      EXPECT_EQ(trained.norms, first.norms) << seed;
      EXPECT_EQ(trained.parameters, first.parameters) << seed;
    }
  }
}

// The others wait in a collective that the failed rank never reaches, or are on
// their way to it. Nobody waits for the deadline, which the test would not live
// to see. Without World::Fail's dump before its alarm, and the watchdogs' made
// slow, the verdict names no cause.
TEST(RanksTest, AFailingRankEndsTheOthers) {
  comm::WorldOptions options;
  options.deadline = absl::Hours(10);
  for (const bool apart : {false, true}) {
    for (int rank = 0; rank < 4; ++rank) {
      World world(
          ZeroPlan({13, 40}, 4, 3, false, kMaxNorm, plan::DType::kF64, apart),
          static_cast<uint32_t>(rank), options);
      Train(world, {13, 40}, 1, 1);
      const bool last = rank % 2 == 0;
      world.fault().section = "micro_first";
      world.fault().kind = rank < 2 ? Fault::kStatus : Fault::kException;
      if (last) world.fault().when = [&] { return world.OthersWait(rank); };
      world.fault().rank = rank;
      const absl::Status status = world.Run("micro_first");
      const std::string message(status.message());
      EXPECT_THAT(message, HasSubstr(absl::StrCat("rank ", rank, " failed: ")));
      EXPECT_THAT(message, HasSubstr("the disk is on fire"));
      if (last) {
        EXPECT_THAT(message, HasSubstr("the disk is on fire; ranks "));
        EXPECT_THAT(message, HasSubstr(" waited in all_gather f64"));
      }
      world.fault().rank = -1;
      EXPECT_THAT(std::string(world.Run("micro_first").message()),
                  HasSubstr(absl::StrCat("load the plan again (rank ", rank)));
    }
  }
}

// A thread that does not come back is left behind; the caller gets the others'
// verdict, and the dumps tell the same. Never returns if Threads::Run waits for
// all, or if the deadline does not reach the watchdogs.
TEST(RanksTest, AStallingRankEndsTheOthersWithinTheDeadline) {
  comm::WorldOptions options;
  options.deadline = absl::Seconds(2);
  options.dump_directory = absl::StrCat(std::getenv("TEST_TMPDIR"), "/dumps");
  plan::Plan plan = ZeroPlan({13, 40}, 3, 3, false, kMaxNorm);
  plan.locations[0] = {"model.layers.3", "model.py:88"};
  World world(std::move(plan), 0, options);
  Train(world, {13, 40}, 1, 1);
  world.fault().section = "micro_first";
  world.fault().kind = Fault::kStall;
  world.fault().rank = 1;
  const absl::Time begin = absl::Now();
  const absl::Status status = world.Run("micro_first");
  EXPECT_LT(absl::Now() - begin, 2 * options.deadline);
  EXPECT_GT(absl::Now() - begin, options.deadline / 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("rank 1 is missing: all_gather f64"));
  EXPECT_THAT(message, HasSubstr("of group dp.compute.0 [0,1,2]"));
  EXPECT_THAT(
      message,
      HasSubstr("all_gather along dp in model.layers.3 at model.py:88"));
  EXPECT_TRUE(world.stalled());
  const auto dumps = trace::ReadDumps(options.dump_directory);
  ASSERT_TRUE(dumps.ok()) << dumps.status();
  EXPECT_EQ(dumps->size(), 3u);
  for (const auto& [rank, dump] : *dumps)
    EXPECT_THAT(message, HasSubstr(dump.verdict)) << rank;
  EXPECT_EQ(trace::Judge(3, *dumps).ranks, std::vector<int>{1});
  // What the thread is still in stays alive until it comes back.
  EXPECT_TRUE(world.in_use());
  world.fault().over = true;
  while (world.in_use()) absl::SleepFor(absl::Milliseconds(1));
}

// Long work that ends in time is not a stall: the deadline counts from the last
// progress.
TEST(RanksTest, ASlowRankIsWaitedFor) {
  comm::WorldOptions options;
  options.deadline = absl::Seconds(4);
  World world(ZeroPlan({13}, 2, 3, false, kMaxNorm), 0, options);
  Train(world, {13}, 1, 1);
  world.fault().section = "micro_first";
  world.fault().kind = Fault::kStall;
  world.fault().rank = 1;
  std::thread later([&] {
    absl::SleepFor(options.deadline / 4);
    world.fault().rank = -1;
    world.fault().over = true;
  });
  const absl::Status status = world.Run("micro_first");
  later.join();
  EXPECT_TRUE(status.ok()) << status;
}

TEST(RanksTest, CountsTheBytesOnTheWire) {
  // 13 and 3 elements in slots of 16 and 4: parts of 5 doubles on 4 ranks.
  World world(ZeroPlan({13, 3}, 4, 3, false, kMaxNorm), 0);
  Train(world, {13, 3}, 2, 3);
  constexpr uint64_t kPart = 5 * 8;
  for (int r = 0; r < 4; ++r) {
    EXPECT_EQ(world.wire(plan::CollectiveKind::kAllGather, r),
              2 * 3 * 3 * kPart);
    EXPECT_EQ(world.wire(plan::CollectiveKind::kReduceScatter, r),
              2 * 3 * 3 * kPart);
    // Two parameters' sums of squares, twice 3/4 of them.
    EXPECT_EQ(world.wire(plan::CollectiveKind::kAllReduce, r), 2u * 24);
    EXPECT_EQ(world.wire(plan::CollectiveKind::kBroadcast, r), 0u);
  }
}

TEST(RanksTest, CoordinatesCountTheLastAxisFastest) {
  plan::Plan plan;
  plan.mesh = {{"dp", 3}, {"ep", 2}};
  EXPECT_EQ(CoordinateOf(plan, 5, "dp"), 2);
  EXPECT_EQ(CoordinateOf(plan, 5, "ep"), 1);
  EXPECT_EQ(CoordinateOf(plan, 4, "ep"), 0);
  EXPECT_EQ(CoordinateOf(plan, 3, "sp"), 0);
}

}  // namespace
}  // namespace heddle::exec
