// Ranks that are threads: failures, the handshake, and what a world refuses.
// With World::Stalled always false the first stall hangs the test.

#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/loopback.h"
#include "tests/conformance/failures.h"

namespace heddle::comm::conformance {
namespace {

class LoopbackRanks : public Ranks {
 public:
  explicit LoopbackRanks(int size)
      : world_(size), store_(CreateProcessStore()) {}
  std::shared_ptr<Store> RankStore(int) override { return store_; }
  World::MakeBackend RankBackend(int rank) override {
    return [this, rank](trace::FlightRecorder* recorder)
               -> absl::StatusOr<std::unique_ptr<Backend>> {
      return world_.RankBackend(rank, recorder);
    };
  }

 private:
  LoopbackWorld world_;
  std::shared_ptr<Store> store_;
};

TEST(LoopbackFailures, EveryVerdictIsRight) {
  RunThreadCases(
      "loopback", CaseCount(12, 80),
      {Injury::kStall, Injury::kThrow, Injury::kLeave, Injury::kWrongCount},
      [](int size) { return std::make_unique<LoopbackRanks>(size); });
}

std::vector<absl::Status> Agreements(const std::vector<std::string>& texts) {
  LoopbackRanks ranks(static_cast<int>(texts.size()));
  std::vector<absl::Status> results(texts.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < texts.size(); ++r) {
    threads.emplace_back([&, r] {
      WorldOptions options;
      options.deadline = absl::Seconds(2);
      const int rank = static_cast<int>(r);
      auto world = World::Create(rank, static_cast<int>(texts.size()),
                                 ranks.RankStore(rank), ranks.RankBackend(rank),
                                 options);
      // "" stands for a rank that never comes to the handshake.
      if (!texts[r].empty()) {
        results[r] = (*world)->Agree({texts[r]});
        if (results[r].ok()) results[r] = (*world)->Agree({texts[r]});
      } else {
        absl::SleepFor(absl::Seconds(3));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return results;
}

TEST(Handshake, EqualProgramsAgree) {
  for (const absl::Status& s : Agreements({"a\nb", "a\nb", "a\nb"}))
    EXPECT_TRUE(s.ok()) << s;
}

TEST(Handshake, NamesTheRankAndTheFirstDifferentLine) {
  for (const absl::Status& s :
       Agreements({"mesh dp=4\nzero=2\nclip=1", "mesh dp=4\nzero=2\nclip=1",
                   "mesh dp=4\nzero=3\nclip=2", "x"}))
    EXPECT_EQ(s, absl::FailedPreconditionError(
                     "rank 2 would run something else than rank 0; the first "
                     "difference is in line 3: 'zero=3' on rank 2, 'zero=2' on "
                     "rank 0"));
}

TEST(Handshake, NamesTheRankThatDoesNotCome) {
  const auto results = Agreements({"a", "", "a"});
  for (int r : {0, 2})
    EXPECT_NE(results[r].message().find("rank 1 has not said"),
              absl::string_view::npos)
        << results[r];
}

TEST(World, RefusesWhatCannotBe) {
  LoopbackRanks ranks(2);
  EXPECT_FALSE(
      World::Create(2, 2, ranks.RankStore(0), ranks.RankBackend(0), {}).ok());
  WorldOptions options;
  options.deadline = absl::ZeroDuration();
  EXPECT_FALSE(
      World::Create(0, 2, ranks.RankStore(0), ranks.RankBackend(0), options)
          .ok());
  auto world =
      World::Create(0, 2, ranks.RankStore(0), ranks.RankBackend(0), {});
  ASSERT_TRUE(world.ok());
  EXPECT_FALSE((*world)->Connect("dp", {1}).ok());
}

}  // namespace
}  // namespace heddle::comm::conformance
