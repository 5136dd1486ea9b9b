// Compiled steps of three ranks with random delays before their steps: the same
// bits under every seed, and none that hangs.

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/exec/ranks.h"
#include "runtime/torch/session.h"
#include "tests/fixtures/compiled_plan.h"
#include "tests/fixtures/shadow.h"

namespace heddle::torch_runtime {
namespace {

using heddle::testing::Compiled;
using heddle::testing::CompilePlan;
using heddle::testing::DelayedHandler;
using heddle::testing::Delays;
using heddle::testing::Describe;

// Fixed numbers for a tensor: the same on every call.
at::Tensor Numbers(const plan::Value& value, size_t seed) {
  int64_t count = 1;
  for (int64_t size : value.sizes) count *= size;
  if (value.dtype == plan::DType::kI64)
    return at::arange(count, at::kLong)
        .add(static_cast<int64_t>(seed))
        .remainder(37)
        .view(value.sizes);
  return at::arange(count, at::kFloat)
      .mul(0.37 + 0.11 * static_cast<double>(seed % 7))
      .sin()
      .square()
      .add(0.1)
      .view(value.sizes);
}

class World {
 public:
  explicit World(const plan::Plan& plan)
      : plan_(plan),
        group_(exec::RankGroup::OfThreads(
            static_cast<int>(plan::WorldSize(plan)), {})) {
    for (int r = 0; r < group_->size(); ++r) {
      auto world = group_->World(r);
      EXPECT_TRUE(world.ok()) << world.status();
      auto communicators = exec::Communicators::Connect(plan, *world);
      EXPECT_TRUE(communicators.ok()) << communicators.status();
      Rank rank;
      rank.place = {r, r > 0};
      rank.communicators = *communicators;
      rank.threads = 1;
      rank.wrap = [this](std::shared_ptr<exec::StepHandler> handler) {
        return DelayedHandler(std::move(handler), delays_);
      };
      auto session = Session::Load(plan, 0, std::move(rank));
      EXPECT_TRUE(session.ok()) << session.status();
      sessions_.push_back(*std::move(session));
    }
  }

  // One update of two micro-batches a rank from the same start: every rank's
  // results and all state.
  std::vector<at::Tensor> Train(uint32_t seed) {
    for (size_t i = 0; i < plan_.state.size(); ++i) {
      const plan::StateEntry& entry = plan_.state[i];
      plan::Value whole = plan_.values[entry.value];
      if (!entry.bounds.empty()) whole.sizes = entry.sizes;
      const bool starts = entry.kind == "parameter" || entry.kind == "buffer";
      const at::Tensor numbers = Numbers(whole, i);
      for (auto& session : sessions_) {
        const absl::Status status =
            session->SetState(entry.kind, entry.names[0],
                              starts ? numbers : at::zeros_like(numbers));
        EXPECT_TRUE(status.ok()) << status;
      }
    }
    delays_.Restart(seed);
    std::vector<at::Tensor> seen;
    size_t micro = 0;
    for (const std::string section : {"micro_first", "micro_next", "boundary"})
      Run(section, micro++, &seen);
    for (const plan::StateEntry& entry : plan_.state) {
      for (auto& session : sessions_)
        seen.push_back(*session->GetState(entry.kind, entry.names[0]));
    }
    return seen;
  }

 private:
  void Run(const std::string& section, size_t micro,
           std::vector<at::Tensor>* seen) {
    for (size_t r = 0; r < sessions_.size(); ++r) {
      Session& session = *sessions_[r];
      session.SetScalar("step", 1);
      session.SetScalar("lr", 0.01);
      session.SetScalar("label_count", 30);
      session.SetScalar("micro_batches", 6);
      TensorMap inputs;
      for (const plan::Binding& input : plan_.inputs) {
        if (section != "boundary")
          inputs[input.name] =
              Numbers(plan_.values[input.value], 3 * r + micro);
      }
      const absl::Status status = session.BindInputs(section, inputs);
      EXPECT_TRUE(status.ok()) << status;
    }
    const absl::Status status = group_->Run(
        [&](int rank) { return sessions_[rank]->Execute(section); }, true);
    EXPECT_TRUE(status.ok()) << status;
    for (auto& session : sessions_) {
      const absl::StatusOr<TensorMap> results = session->Results(section);
      EXPECT_TRUE(results.ok()) << results.status();
      for (const auto& [name, tensor] : *results) seen->push_back(tensor);
    }
  }

  const plan::Plan& plan_;
  Delays delays_{0};
  std::shared_ptr<exec::RankGroup> group_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

TEST(DelaysTest, DoNotChangeABit) {
  const char* full = std::getenv("HEDDLE_TEST_FULL");
  const uint32_t seeds = full != nullptr && full[0] == '1' ? 100 : 25;
  const Compiled kPlans[] = {
      {1, 3, false}, {2, 3, true}, {3, 3, false}, {3, 3, true}};
  at::set_num_threads(1);
  for (const Compiled& how : kPlans) {
    SCOPED_TRACE(Describe(how));
    const absl::StatusOr<plan::Plan> plan = CompilePlan(how);
    ASSERT_TRUE(plan.ok()) << plan.status();
    World world(*plan);
    const std::vector<at::Tensor> first = world.Train(0);
    for (uint32_t seed = 1; seed <= seeds; ++seed) {
      const std::vector<at::Tensor> now = world.Train(seed);
      ASSERT_EQ(now.size(), first.size());
      for (size_t i = 0; i < now.size(); ++i)
        ASSERT_TRUE(now[i].equal(first[i]))
            << "seed " << seed << ", tensor " << i;
    }
  }
}

}  // namespace
}  // namespace heddle::torch_runtime
