// The conformance suite on ranks that are threads, and what only they promise:
// the bits of a reduction, and errors that name the ranks that disagree.
// Without LoopbackGroup's last wait the suite crashes; with the ranks taken in
// another order, or every addition rounded, the tests of the bits fail.

#include "runtime/comm/loopback.h"

#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/comm/reduce.h"
#include "tests/conformance/conformance.h"

namespace heddle::comm::conformance {
namespace {

class ThreadWorld : public BackendWorld {
 public:
  explicit ThreadWorld(int size) : world_(size) {
    for (int r = 0; r < size; ++r) backends_.push_back(world_.RankBackend(r));
  }
  Backend& Rank(int rank) override { return *backends_[rank]; }

 private:
  LoopbackWorld world_;
  std::vector<std::unique_ptr<Backend>> backends_;
};

INSTANTIATE_TEST_SUITE_P(
    Loopback, Conformance,
    ::testing::Combine(
        ::testing::Values(BackendCase{
            "loopback", [](int n) { return std::make_unique<ThreadWorld>(n); },
            true}),
        ::testing::Values(1, 2, 3, 4, 8), ::testing::Bool()),
    CaseName);

// Runs one rank per body and returns what each returned.
std::vector<absl::Status> RunRanks(
    int size, const std::function<absl::Status(Communicator&, int)>& body) {
  LoopbackWorld world(size);
  std::vector<int> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(r);
  std::vector<absl::Status> results(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      auto backend = world.RankBackend(r);
      auto comm = backend->Connect(*MakeGroup("dp", ranks, r));
      results[r] = comm.ok() ? body(**comm, r) : comm.status();
    });
  }
  for (auto& thread : threads) thread.join();
  return results;
}

bool Says(const absl::Status& status, const std::string& what) {
  return std::string(status.message()).find(what) != std::string::npos;
}

// (1e8 + 1) - 1e8 is 0 in f32 taken from the left and 1 in any order that adds
// the large numbers first: the order is that of the ranks, in every slice.
TEST(Loopback, ReducesInRankOrder) {
  constexpr int64_t kCount = 5000;
  for (const absl::Status& status :
       RunRanks(3, [](Communicator& comm, int rank) {
         const float value[3] = {1e8f, 1.0f, -1e8f};
         std::vector<float> data(kCount, value[rank]);
         absl::Status s = comm.Issue(
             AllReduce(data.data(), data.data(), kCount, plan::DType::kF32),
             nullptr);
         for (float x : data) EXPECT_EQ(x, (1e8f + 1.0f) - 1e8f);
         return s;
       }))
    EXPECT_TRUE(status.ok()) << status;
}

// 256 + 1 + 1 in bf16 is 256 if each addition rounds and 258 if F32 is kept to
// the end.
TEST(Loopback, RoundsHalfTypesOnce) {
  for (const absl::Status& status :
       RunRanks(3, [](Communicator& comm, int rank) {
         const uint16_t value = rank == 0 ? 0x4380 : 0x3f80;
         uint16_t sum = 0;
         absl::Status s = comm.Issue(
             AllReduce(&value, &sum, 1, plan::DType::kBF16), nullptr);
         EXPECT_EQ(sum, 0x4381);
         return s;
       }))
    EXPECT_TRUE(status.ok()) << status;
}

TEST(Loopback, BFloat16RoundsToNearestEven) {
  const auto sum = [](float a, float b) {
    // Two f32 that are bf16 already, added in F32.
    uint32_t x, y;
    std::memcpy(&x, &a, 4);
    std::memcpy(&y, &b, 4);
    uint16_t in[2] = {static_cast<uint16_t>(x >> 16),
                      static_cast<uint16_t>(y >> 16)};
    uint16_t out = 0;
    const void* inputs[] = {&in[0], &in[1]};
    void* outputs[] = {&out};
    ReduceRange(plan::DType::kBF16, Reduction::kSum, inputs, outputs, 0, 1);
    return out;
  };
  EXPECT_EQ(sum(256, 1), 0x4380);  // 257 is between 256 and 258: even
  EXPECT_EQ(sum(258, 1), 0x4382);  // 259 is between 258 and 260: even
  EXPECT_EQ(sum(256, 1.5f), 0x4381);
  EXPECT_EQ(sum(INFINITY, 1), 0x7f80);
  EXPECT_GT(sum(INFINITY, -INFINITY) & 0x7fff, 0x7f80);
}

TEST(Loopback, NamesTheRanksThatDisagree) {
  for (const absl::Status& status :
       RunRanks(3, [](Communicator& comm, int rank) {
         float in[8] = {}, out[8] = {};
         const int64_t count = rank == 2 ? 4 : 8;
         return comm.Issue(AllReduce(in, out, count, plan::DType::kF32),
                           nullptr);
       })) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(Says(status,
                     "rank 0 issues all_reduce f32 sum 8 and rank 2 "
                     "all_reduce f32 sum 4"))
        << status;
  }
  for (const absl::Status& status :
       RunRanks(2, [](Communicator& comm, int rank) {
         float in[8] = {}, out[8] = {};
         Collective c = AllToAll(in, out, 0, plan::DType::kF32);
         c.send_counts = {1, 2};
         c.recv_counts = {1, rank == 0 ? 2 : 3};
         return comm.Issue(c, nullptr);
       }))
    EXPECT_TRUE(Says(status, "sends")) << status;
}

TEST(Loopback, DeviceCountBeyondTheSlotIsAnErrorOnAllRanks) {
  for (const absl::Status& status :
       RunRanks(2, [](Communicator& comm, int rank) {
         float in[4] = {}, out[4] = {};
         int64_t send[2] = {1, rank == 0 ? 3 : 2}, received[2];
         Collective c = AllToAll(in, out, 2, plan::DType::kF32);
         c.device_send_counts = send;
         c.device_recv_counts = received;
         return comm.Issue(c, nullptr);
       }))
    EXPECT_TRUE(Says(status,
                     "rank 0 sends 3 elements to rank 1; a slot holds "
                     "2"))
        << status;
}

// Rank 1 never comes; the others are waiting when it aborts.
TEST(Loopback, AbortEndsThoseWhoWait) {
  const std::vector<absl::Status> results =
      RunRanks(3, [](Communicator& comm, int rank) {
        float x = 1, sum = 0;
        if (rank == 1) {
          std::this_thread::sleep_for(std::chrono::milliseconds(30));
          comm.Abort(absl::CancelledError("enough"));
          comm.Abort(absl::InternalError("a second reason"));
        }
        return comm.Issue(AllReduce(&x, &sum, 1, plan::DType::kF32), nullptr);
      });
  for (const absl::Status& status : results)
    EXPECT_EQ(status, absl::CancelledError("enough"));
}

TEST(Loopback, ARankThatLeavesEndsThoseWhoWait) {
  const std::vector<absl::Status> results =
      RunRanks(3, [](Communicator& comm, int rank) {
        if (rank == 2) return absl::OkStatus();
        float x = 1, sum = 0;
        return comm.Issue(AllReduce(&x, &sum, 1, plan::DType::kF32), nullptr);
      });
  EXPECT_TRUE(Says(results[0], "rank 2 has left")) << results[0];
  EXPECT_TRUE(Says(results[1], "rank 2 has left")) << results[1];
}

TEST(Loopback, RefusesMemoryOfADevice) {
  ThreadWorld world(1);
  ExpectRefusesDeviceMemory(world.Rank(0));
}

TEST(Loopback, GroupsAreCheckedWhenMade) {
  LoopbackWorld world(2);
  auto backend = world.RankBackend(0);
  auto group = MakeGroup("dp", {0, 1}, 0);
  ASSERT_TRUE(group.ok());
  auto first = backend->Connect(*group);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(backend->Connect(*group).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Says(backend->Connect(*MakeGroup("dp", {0}, 0)).status(),
                   "group dp is [0] for rank 0 and [0,1] for another"));
  EXPECT_TRUE(Says(backend->Connect(*MakeGroup("x", {0, 5}, 0)).status(),
                   "names rank 5 in a world of 2"));
  EXPECT_TRUE(Says(MakeGroup("x", {0, 0}, 0).status(), "names a rank twice"));
  EXPECT_TRUE(Says(MakeGroup("x", {1}, 0).status(), "rank 0 is not in group"));
}

}  // namespace
}  // namespace heddle::comm::conformance
