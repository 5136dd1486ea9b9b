// The conformance suite on gloo, with a thread for each rank; that its sums
// have the bits of the loopback ranks; failures of ranks that are threads.

#include <random>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <vector>

#include "runtime/comm/loopback.h"
#include "runtime/torch/gloo_communicator.h"
#include "runtime/torch/store_rendezvous.h"
#include "tests/conformance/conformance.h"
#include "tests/conformance/failures.h"

namespace heddle::comm::conformance {
namespace {

class GlooWorld : public BackendWorld {
 public:
  explicit GlooWorld(int size) {
    auto store = c10::make_intrusive<c10d::HashStore>();
    for (int r = 0; r < size; ++r)
      backends_.push_back(
          torch_runtime::CreateGlooBackend(store, absl::Seconds(60), nullptr));
  }
  Backend& Rank(int rank) override { return *backends_[rank]; }

 private:
  std::vector<std::unique_ptr<Backend>> backends_;
};

INSTANTIATE_TEST_SUITE_P(
    Gloo, Conformance,
    ::testing::Combine(::testing::Values(BackendCase{
                           "gloo",
                           [](int n) { return std::make_unique<GlooWorld>(n); },
                           true}),
                       ::testing::Values(1, 2, 3, 4, 8),
                       ::testing::Values(false)),
    CaseName);
INSTANTIATE_TEST_SUITE_P(
    GlooOnStreams, Conformance,
    ::testing::Combine(::testing::Values(BackendCase{
                           "gloo",
                           [](int n) { return std::make_unique<GlooWorld>(n); },
                           true}),
                       ::testing::Values(3), ::testing::Values(true)),
    CaseName);

TEST(Gloo, RefusesMemoryOfADevice) {
  GlooWorld world(1);
  ExpectRefusesDeviceMemory(world.Rank(0));
}

// Random normal numbers, whose sums depend on the order.
std::vector<std::vector<float>> RandomSums(
    int size, const std::function<Backend&(int)>& backend) {
  std::vector<std::vector<float>> sums(size);
  std::vector<int> all;
  for (int r = 0; r < size; ++r) all.push_back(r);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      auto comm = backend(r).Connect(*MakeGroup("dp", all, r));
      std::mt19937 random(r);
      std::normal_distribution<float> normal;
      std::vector<float> data(10007);
      for (float& x : data) x = normal(random);
      sums[r].resize(data.size());
      const absl::Status status =
          (*comm)->Issue(AllReduce(data.data(), sums[r].data(), data.size(),
                                   plan::DType::kF32),
                         nullptr);
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return sums;
}

TEST(Gloo, SumsHaveTheBitsOfLoopback) {
  constexpr int kRanks = 5;
  GlooWorld gloo(kRanks);
  LoopbackWorld loopback(kRanks);
  std::vector<std::unique_ptr<Backend>> backends;
  for (int r = 0; r < kRanks; ++r) backends.push_back(loopback.RankBackend(r));
  const auto a =
      RandomSums(kRanks, [&](int r) -> Backend& { return gloo.Rank(r); });
  const auto b =
      RandomSums(kRanks, [&](int r) -> Backend& { return *backends[r]; });
  EXPECT_EQ(a, b);
}

class GlooRanks : public Ranks {
 public:
  GlooRanks() : store_(c10::make_intrusive<c10d::HashStore>()) {}
  std::shared_ptr<Store> RankStore(int) override {
    return torch_runtime::WrapStore(store_);
  }
  World::MakeBackend RankBackend(int) override {
    return [this](trace::FlightRecorder* recorder)
               -> absl::StatusOr<std::unique_ptr<Backend>> {
      return torch_runtime::CreateGlooBackend(transport_, absl::Seconds(3),
                                              recorder);
    };
  }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::Store> transport_ =
      c10::make_intrusive<c10d::HashStore>();
};

TEST(GlooFailures, EveryVerdictIsRight) {
  RunThreadCases("gloo, threads", CaseCount(4, 24),
                 {Injury::kStall, Injury::kThrow},
                 [](int) { return std::make_unique<GlooRanks>(); });
}

}  // namespace
}  // namespace heddle::comm::conformance
