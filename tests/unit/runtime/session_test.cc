// Whole plans through the session: results equal ATen's own, memory stays where
// the plan put it.

#include "runtime/torch/session.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/fixtures/plan_builder.h"

namespace heddle::torch_runtime {
namespace {

using heddle::testing::LinearPlan;
using heddle::testing::TrainPlan;

std::unique_ptr<Session> Load(const plan::Plan& plan, uint64_t seed = 0) {
  const std::vector<uint8_t> bytes = plan::Serialize(plan);
  absl::StatusOr<plan::Plan> parsed =
      plan::ParsePlan(bytes.data(), bytes.size());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Load(*std::move(parsed), seed);
  EXPECT_TRUE(session.ok()) << session.status();
  return session.ok() ? *std::move(session) : nullptr;
}

void ExpectPlanned(const Session& session) {
  EXPECT_EQ(session.counters().outside_workspace.load(), 0u);
  EXPECT_EQ(session.counters().unplanned_copies.load(), 0u);
  EXPECT_EQ(session.counters().escaped.load(), 0u);
}

TEST(SessionTest, LinearLayerHasEagersBits) {
  auto session = Load(LinearPlan(4, 3, 5));
  const at::Tensor w = at::randn({5, 3});
  ASSERT_TRUE(session->SetState("parameter", "w", w).ok());
  for (int run = 0; run < 4; ++run) {
    const at::Tensor x = at::randn({4, 3});
    absl::StatusOr<TensorMap> results = session->Run("replay", {{"x", x}});
    ASSERT_TRUE(results.ok()) << results.status();
    const at::Tensor y = x.mm(w.t());
    EXPECT_TRUE(at::equal(results->at("output:y"), y));
    EXPECT_TRUE(at::equal(results->at("loss"), y.sum()));
  }
  ExpectPlanned(*session);
}

TEST(SessionTest, NamesWhatIsWrongWithInputsAndState) {
  auto session = Load(LinearPlan(4, 3, 5));
  EXPECT_EQ(
      session->Run("replay", {{"x", at::zeros({4, 2})}}).status().message(),
      "input x is Float[4, 3] in the plan and Float[4, 2] in this batch");
  EXPECT_EQ(session->Run("replay", {}).status().message(),
            "section replay reads input x, which was not given");
  EXPECT_EQ(
      session->Run("replay", {{"x", at::zeros({4, 3})}, {"z", at::zeros({1})}})
          .status()
          .message(),
      "the plan has no input z; it has x");
  EXPECT_EQ(session->Run("boundary", {}).status().message(),
            "the plan has no section 'boundary'; it has replay");
  EXPECT_EQ(session->SetState("parameter", "v", at::zeros({5, 3})).message(),
            "the plan has no state parameter v; the nearest is parameter w");
  EXPECT_EQ(session->SetState("parameter", "w", at::zeros({3, 5})).message(),
            "state parameter w is Float[5, 3] and was given Float[3, 5]");
}

TEST(SessionTest, RefusesAnotherTorchAndAMissingGpu) {
  plan::Plan plan = LinearPlan(2, 2, 2);
  plan.torch_version = "2.3.1";
  EXPECT_EQ(Session::Load(plan, 0).status().code(),
            absl::StatusCode::kFailedPrecondition);
  plan = LinearPlan(2, 2, 2);
  plan.target = "cuda";
  EXPECT_EQ(Session::Load(plan, 0).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(SessionTest, NamesTheStepThatFails) {
  plan::Plan plan = LinearPlan(2, 2, 2);
  plan.sections[0].steps[0].name = "aten::no_such_operator";
  const absl::Status status = Session::Load(plan, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(status.message()).find("linear (model.py:3)"),
            std::string::npos)
      << status;
}

TEST(SessionTest, TraceGivesEveryStepsResults) {
  auto session = Load(LinearPlan(4, 3, 5));
  const at::Tensor x = at::randn({4, 3});
  absl::StatusOr<std::vector<TracedStep>> trace =
      session->RunTraced("replay", {{"x", x}});
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 2u);
  EXPECT_EQ((*trace)[0].location, "linear (model.py:3)");
  EXPECT_TRUE(at::equal((*trace)[0].results[0], at::zeros({4, 5})));
}

// The same steps by hand, in torch.optim.AdamW's order.
struct Eager {
  at::Tensor w, m, v;
  void Step(const at::Tensor& g, double lr, int step) {
    w.mul_(1 - lr * 0.1);
    m.lerp_(g, 1 - 0.9);
    v.mul_(0.95).addcmul_(g, g, 1 - 0.95);
    const double c1 = 1 - std::pow(0.9, step), c2 = 1 - std::pow(0.95, step);
    w.addcdiv_(m, v.sqrt().div(std::sqrt(c2)).add_(1e-8), -(lr / c1));
  }
};

void TrainAgainstEager(plan::DType dtype, int micro_batches) {
  auto session = Load(TrainPlan(2, 16, dtype));
  const auto options = at::TensorOptions().dtype(ToScalarType(dtype));
  std::vector<Eager> eager;
  for (int l = 0; l < 2; ++l) {
    eager.push_back({at::randn({16, 16}, options), at::zeros({16, 16}, options),
                     at::zeros({16, 16}, options)});
    ASSERT_TRUE(session
                    ->SetState("parameter",
                               "layers." + std::to_string(l) + ".weight",
                               eager.back().w)
                    .ok());
  }
  session->SetScalar("lr", 1e-2);
  session->SetScalar("micro_batches", micro_batches);
  for (int step = 1; step <= 5; ++step) {
    session->SetScalar("step", step);
    std::vector<at::Tensor> sum(2);
    for (int micro = 0; micro < micro_batches; ++micro) {
      const at::Tensor x = at::randn({16, 16}, options);
      absl::StatusOr<TensorMap> results =
          session->Run(micro == 0 ? "micro_first" : "micro_next", {{"x", x}});
      ASSERT_TRUE(results.ok()) << results.status();
      const at::Tensor h = x.mm(eager[0].w.t());
      const at::Tensor y = h.mm(eager[1].w.t());
      EXPECT_TRUE(at::equal(results->at("loss"), y.sum()));
      const at::Tensor g = at::ones_like(y);
      const at::Tensor g1 = g.t().mm(h), g0 = g.mm(eager[1].w).t().mm(x);
      sum[0] = micro == 0 ? g0 : sum[0].add(g0);
      sum[1] = micro == 0 ? g1 : sum[1].add(g1);
    }
    absl::StatusOr<TensorMap> results = session->Run("boundary", {});
    ASSERT_TRUE(results.ok()) << results.status();
    for (int l = 0; l < 2; ++l) {
      eager[l].Step(micro_batches == 1 ? sum[l] : sum[l].div(micro_batches),
                    1e-2, step);
      EXPECT_TRUE(
          at::equal(*session->GetState(
                        "parameter", "layers." + std::to_string(l) + ".weight"),
                    eager[l].w))
          << "step " << step << " layer " << l;
    }
  }
  ExpectPlanned(*session);
}

TEST(SessionTest, TrainsLikeEagerInFp32) {
  TrainAgainstEager(plan::DType::kF32, 1);
}
TEST(SessionTest, TrainsLikeEagerInFp64) {
  TrainAgainstEager(plan::DType::kF64, 1);
}
TEST(SessionTest, AccumulatesMicroBatches) {
  TrainAgainstEager(plan::DType::kF32, 3);
}

TEST(SessionTest, ASkippedStepChangesNothing) {
  auto session = Load(TrainPlan(1, 8));
  const at::Tensor w = at::randn({8, 8});
  ASSERT_TRUE(session->SetState("parameter", "layers.0.weight", w).ok());
  session->SetScalar("lr", 1e-2);
  session->SetScalar("micro_batches", 1);
  session->SetScalar("step", 1);
  ASSERT_TRUE(
      session->Run("micro_first", {{"x", at::full({8, 8}, INFINITY)}}).ok());
  absl::StatusOr<TensorMap> results = session->Run("boundary", {});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_FALSE(results->at("output:finite").item<bool>());
  EXPECT_TRUE(at::equal(*session->GetState("parameter", "layers.0.weight"), w));
  EXPECT_TRUE(at::equal(*session->GetState("exp_avg", "layers.0.weight"),
                        at::zeros({8, 8})));
}

TEST(SessionTest, AMissingScalarIsNamed) {
  auto session = Load(TrainPlan(1, 8));
  session->SetScalar("micro_batches", 1);
  session->SetScalar("lr", 1e-2);
  ASSERT_TRUE(session->Run("micro_first", {{"x", at::zeros({8, 8})}}).ok());
  const absl::Status status = session->Run("boundary", {}).status();
  EXPECT_NE(std::string(status.message()).find("'step' was not set"),
            std::string::npos)
      << status;
}

TEST(SessionTest, StreamsGiveTheSameBits) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    auto one = Load(heddle::testing::RandomPlan(seed, 1, 40));
    auto many = Load(heddle::testing::RandomPlan(seed, 4, 40));
    const at::Tensor w = at::randn({64}), x = at::randn({64});
    for (Session* session : {one.get(), many.get()})
      ASSERT_TRUE(session->SetState("parameter", "w", w).ok());
    for (int run = 0; run < 3; ++run) {
      absl::StatusOr<TensorMap> a = one->Run("replay", {{"x", x}}),
                                b = many->Run("replay", {{"x", x}});
      ASSERT_TRUE(b.ok()) << b.status();
      EXPECT_TRUE(at::equal(a->at("output:y"), b->at("output:y")));
      EXPECT_TRUE(at::equal(a->at("output:z"), b->at("output:z")));
    }
    ExpectPlanned(*many);
  }
}

}  // namespace
}  // namespace heddle::torch_runtime
