// The NCCL communicator over a table that runs on host memory: the conformance
// suite, injected errors and hangs, worlds that do not fit together. If
// status() does not ask NCCL for errors, ranks whose stream ran on end as if
// all was well.

#include <thread>
#include <vector>

#include "runtime/comm/nccl/nccl_communicator.h"
#include "runtime/device/cpu.h"
#include "tests/conformance/conformance.h"
#include "tests/conformance/failures.h"
#include "tests/conformance/fake_nccl.h"

namespace heddle::comm::conformance {
namespace {

class FakeRanks : public Ranks, public BackendWorld {
 public:
  explicit FakeRanks(int size) : store_(CreateProcessStore()) {
    auto world = std::make_shared<FakeNcclWorld>(size);
    for (int r = 0; r < size; ++r) {
      libraries_.push_back(CreateFakeNccl(world));
      backends_.push_back(Make(r, nullptr));
    }
  }
  Backend& Rank(int rank) override { return *backends_[rank]; }
  std::shared_ptr<Store> RankStore(int) override { return store_; }
  World::MakeBackend RankBackend(int rank) override {
    return [this, rank](trace::FlightRecorder* recorder)
               -> absl::StatusOr<std::unique_ptr<Backend>> {
      return Make(rank, recorder);
    };
  }
  bool streamed() const override { return true; }
  void BreakTransport(int rank, bool hang) override {
    FakeNccl::Fault fault = FakeNccl::Fault::kHang;
    // Half of the errors come from the call, half after it.
    if (!hang)
      fault = rank % 2 == 0 ? FakeNccl::Fault::kCall : FakeNccl::Fault::kAsync;
    libraries_[rank]->Inject(fault);
  }

 private:
  std::unique_ptr<Backend> Make(int rank, trace::FlightRecorder* recorder) {
    return nccl::CreateNcclBackend(libraries_[rank], store_, 0,
                                   absl::Seconds(5), recorder);
  }

  std::shared_ptr<Store> store_;
  std::vector<std::shared_ptr<FakeNccl>> libraries_;
  std::vector<std::unique_ptr<Backend>> backends_;
};

INSTANTIATE_TEST_SUITE_P(
    FakeNccl, Conformance,
    ::testing::Combine(::testing::Values(BackendCase{
                           "nccl",
                           [](int n) { return std::make_unique<FakeRanks>(n); },
                           false}),
                       ::testing::Values(1, 2, 3, 4, 8),
                       ::testing::Values(true)),
    CaseName);

TEST(NcclFailures, EveryVerdictIsRight) {
  RunThreadCases(
      "fake NCCL", CaseCount(12, 72),
      {Injury::kStall, Injury::kThrow, Injury::kTransport, Injury::kHang},
      [](int size) { return std::make_unique<FakeRanks>(size); });
}

TEST(Nccl, RanksThatCountDifferentlyDoNotWaitForEachOther) {
  FakeRanks ranks(3);
  auto first = ranks.Rank(0).Connect(*MakeGroup("dp", {0, 1}, 0));
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(ranks.Rank(1).Connect(*MakeGroup("dp", {0, 1, 2}, 1)).status(),
            absl::FailedPreconditionError(
                "group dp has 3 ranks on rank 1 and 2 on rank 0"));
}

TEST(Nccl, NeedsAStream) {
  FakeRanks ranks(1);
  auto comm = ranks.Rank(0).Connect(*MakeGroup("dp", {0}, 0));
  float x = 1;
  EXPECT_EQ(
      (*comm)->Issue(AllReduce(&x, &x, 1, plan::DType::kF32), nullptr).code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace heddle::comm::conformance
