// Flight records, their files and verdicts, and ranges.

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/trace/costs.h"
#include "runtime/trace/dump.h"
#include "runtime/trace/flight_recorder.h"
#include "runtime/trace/range.h"
#include "runtime/trace/verdict.h"

namespace heddle::trace {
namespace {

Record Of(const std::string& group, const std::string& signature = "x") {
  Record r;
  r.group = group;
  r.signature = signature;
  r.bytes = 32;
  r.op = "zero.gather";
  r.module = "model.layers.3";
  r.source = "model.py:88";
  return r;
}

// Issues one collective and leaves it in `state`.
void Do(FlightRecorder& recorder, const std::string& group, State state,
        const std::string& signature = "x") {
  const uint64_t ticket = recorder.Enqueued(Of(group, signature));
  if (state != State::kEnqueued) recorder.Started(ticket);
  if (state == State::kFinished) recorder.Finished(ticket);
  if (state == State::kFailed) recorder.Failed(ticket, "connection closed");
}

class World {
 public:
  explicit World(int size) {
    for (int r = 0; r < size; ++r)
      recorders_.push_back(std::make_unique<FlightRecorder>(r, size));
  }
  World& Group(const std::string& name, const std::vector<int>& ranks) {
    for (int r : ranks) recorders_[r]->AddGroup(name, ranks);
    return *this;
  }
  FlightRecorder& operator[](int rank) { return *recorders_[rank]; }
  // Without the ranks in `silent`.
  Verdict Judged(const std::vector<int>& silent = {}) {
    std::map<int, Dump> dumps;
    for (auto& r : recorders_) {
      const Dump dump = r->Snapshot();
      if (std::count(silent.begin(), silent.end(), dump.rank) == 0)
        dumps[dump.rank] = dump;
    }
    return Judge(static_cast<int>(recorders_.size()), dumps);
  }

 private:
  std::vector<std::unique_ptr<FlightRecorder>> recorders_;
};

using Ranks = std::vector<int>;

TEST(FlightRecorder, KeepsTheNewestAndWhateverWaits) {
  FlightRecorder recorder(0, 1, 4);
  recorder.AddGroup("dp", {0});
  const uint64_t waiting = recorder.Enqueued(Of("dp"));
  for (int i = 0; i < 10; ++i) Do(recorder, "dp", State::kFinished);
  EXPECT_EQ(recorder.Snapshot().records.size(), 11u);
  EXPECT_TRUE(recorder.pending());
  recorder.Started(waiting);
  recorder.Finished(waiting);
  EXPECT_FALSE(recorder.pending());
  Do(recorder, "dp", State::kFinished);
  const Dump dump = recorder.Snapshot();
  ASSERT_EQ(dump.records.size(), 4u);
  EXPECT_EQ(dump.records.back().sequence, 12);
  EXPECT_EQ(dump.groups[0].finished, 12);
  // A ticket that has left the ring is ignored.
  recorder.Finished(waiting);
  EXPECT_EQ(recorder.Snapshot().groups[0].finished, 12);
}

TEST(Dump, ComesBackAsItWas) {
  FlightRecorder recorder(2, 4);
  recorder.AddGroup("dp", {0, 2});
  recorder.SetBackend("gloo");
  recorder.SetFailure("bad \xff byte");
  Do(recorder, "dp", State::kFinished);
  Do(recorder, "dp", State::kFailed);
  Do(recorder, "dp", State::kEnqueued);
  const std::string text = DumpJson(recorder.Snapshot());
  const auto dump = ParseDump(text);
  ASSERT_TRUE(dump.ok()) << dump.status();
  EXPECT_EQ(DumpJson(*dump), text);
  EXPECT_EQ(dump->records[1].error, "connection closed");
  EXPECT_EQ(dump->groups[0].ranks, (Ranks{0, 2}));
}

TEST(Dump, BadInputIsAnError) {
  const std::string good = DumpJson(FlightRecorder(0, 1).Snapshot());
  for (size_t cut = 0; cut + 2 < good.size(); cut += 7)
    EXPECT_FALSE(ParseDump(good.substr(0, cut)).ok());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return ParseDump(text).status();
  };
  EXPECT_EQ(with("\"version\": 1", "\"version\": 7").message(),
            "a dump of version 7; this Heddle reads version 1");
  EXPECT_FALSE(with("\"rank\": 0", "\"rank\": 1").ok());
  EXPECT_FALSE(with("\"groups\": []", "\"groups\": [3]").ok());
  EXPECT_FALSE(with("\"records\": []", "\"records\": {\"a\": 1}").ok());
  EXPECT_FALSE(with("\"world\": 1", "\"world\": \"1\"").ok());
}

TEST(Dump, FilesAppearWholeAndAreReadTogether) {
  char pattern[] = "/tmp/heddle_dumps_XXXXXX";
  const std::string folder = std::string(mkdtemp(pattern)) + "/new";
  EXPECT_EQ(ReadDumps(folder).status().code(), absl::StatusCode::kNotFound);
  for (int rank : {0, 2})
    ASSERT_TRUE(WriteDump(FlightRecorder(rank, 3).Snapshot(), folder).ok());
  auto dumps = ReadDumps(folder);
  ASSERT_TRUE(dumps.ok()) << dumps.status();
  EXPECT_EQ(dumps->size(), 2u);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_EQ(entry.path().extension(), ".json");
    ++files;
  }
  EXPECT_EQ(files, 2);
  std::ofstream(folder + "/flight-recorder.rank1.json") << "{}";
  EXPECT_EQ(ReadDumps(folder).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteDump(FlightRecorder(1, 5).Snapshot(), folder).ok());
  EXPECT_EQ(ReadDumps(folder).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(WriteDump(FlightRecorder(1, 5).Snapshot(), "/proc/no").ok());
  std::filesystem::remove_all(pattern);
}

TEST(Verdict, NothingWaits) {
  World world(2);
  world.Group("dp", {0, 1});
  for (int r : {0, 1}) Do(world[r], "dp", State::kFinished);
  EXPECT_EQ(world.Judged().finding, Finding::kNothing);
}

TEST(Verdict, NamesThePlaceAndWhoIsNotThere) {
  World world(3);
  world.Group("dp", {0, 1, 2});
  for (int r : {0, 1, 2})
    Do(world[r], "dp", State::kFinished, "all_reduce f32 sum 4");
  for (int r : {0, 2})
    Do(world[r], "dp", State::kStarted, "all_gather bf16 16");
  const Verdict v = world.Judged();
  EXPECT_EQ(v.finding, Finding::kMissing);
  EXPECT_EQ(v.ranks, Ranks{1});
  EXPECT_EQ(v.sequence, 2);
  EXPECT_EQ(v.text.find("rank 1 is missing: all_gather bf16 16 #2 of group dp "
                        "[0,1,2] (32 bytes; zero.gather in model.layers.3 at "
                        "model.py:88) has waited "),
            0u)
      << v.text;
  EXPECT_NE(v.text.find("rank 1 was last in #1 and has not come to this one"),
            std::string::npos);
}

TEST(Verdict, ASilentRankIsToBlameRatherThanALateOne) {
  World world(4);
  world.Group("dp", {0, 1, 2, 3});
  for (int r : {0, 1}) Do(world[r], "dp", State::kFailed);
  const Verdict v = world.Judged({3});
  EXPECT_EQ(v.ranks, Ranks{3});
  EXPECT_NE(v.text.find("rank 3 gave no sign of life"), std::string::npos);
}

// 0 waits in dp for 1, which waits in ep for 2, which waits nowhere.
TEST(Verdict, FollowsTheChain) {
  World world(3);
  world.Group("dp", {0, 1}).Group("ep", {1, 2});
  Do(world[0], "dp", State::kStarted);
  Do(world[1], "ep", State::kStarted);
  const Verdict v = world.Judged();
  EXPECT_EQ(v.ranks, Ranks{2});
  EXPECT_EQ(v.group, "ep");
}

// The others wait longer for 0 and 2 than 0 waits for 2, but 0 would come.
// Fails if the collective that has waited longest is blamed instead.
TEST(Verdict, PrefersTheCollectiveThatLacksOnlyTheCulprit) {
  World world(4);
  world.Group("world", {0, 1, 2, 3}).Group("even", {0, 2});
  for (int r : {1, 3}) Do(world[r], "world", State::kStarted);
  Do(world[0], "even", State::kStarted);
  const Verdict v = world.Judged();
  EXPECT_EQ(v.ranks, Ranks{2});
  EXPECT_EQ(v.group, "even");
}

TEST(Verdict, RanksThatWaitForEachOther) {
  World world(2);
  world.Group("dp", {0, 1}).Group("ep", {0, 1});
  Do(world[0], "dp", State::kStarted);
  Do(world[1], "ep", State::kStarted);
  const Verdict v = world.Judged();
  EXPECT_EQ(v.finding, Finding::kCycle);
  EXPECT_EQ(v.ranks, (Ranks{0, 1}));
}

TEST(Verdict, TheFewerAreTakenForWrong) {
  World world(3);
  world.Group("dp", {0, 1, 2});
  Do(world[0], "dp", State::kStarted, "all_reduce f32 sum 4");
  Do(world[1], "dp", State::kStarted, "all_gather f32 4");
  Do(world[2], "dp", State::kStarted, "all_gather f32 4");
  const Verdict v = world.Judged();
  EXPECT_EQ(v.finding, Finding::kMismatch);
  EXPECT_EQ(v.ranks, Ranks{0});
}

TEST(Verdict, ARankThatLeftOrFailedOrHangs) {
  World world(2);
  world.Group("dp", {0, 1});
  Do(world[0], "dp", State::kStarted);
  world[1].SetLeft();
  EXPECT_NE(world.Judged().text.find("rank 1 has left the run after #0"),
            std::string::npos);
  world[1].SetFailure("out of memory");
  EXPECT_EQ(world.Judged().finding, Finding::kFailed);
  EXPECT_EQ(world.Judged().text.find("rank 1 failed: out of memory; rank 0 "
                                     "waited in x #1 of group dp"),
            0u)
      << world.Judged().text;
  World both(2);
  both.Group("dp", {0, 1});
  for (int r : {0, 1}) Do(both[r], "dp", State::kStarted);
  EXPECT_EQ(both.Judged().finding, Finding::kStuck);
  EXPECT_EQ(both.Judged().ranks, (Ranks{0, 1}));
}

TEST(Verdict, EnqueuedBehindWorkThatDoesNotEnd) {
  World world(2);
  world.Group("dp", {0, 1});
  Do(world[0], "dp", State::kStarted);
  Do(world[1], "dp", State::kEnqueued);
  EXPECT_NE(world.Judged().text.find(
                "rank 1 has enqueued it behind work that does not end"),
            std::string::npos)
      << world.Judged().text;
}

TEST(Verdict, TravelsAsText) {
  const Verdict v{Finding::kMissing, {1, 2}, "dp", 7, "a \"text\"\n"};
  const auto back = ParseVerdict(VerdictJson(v));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(VerdictJson(*back), VerdictJson(v));
  EXPECT_FALSE(ParseVerdict("{}").ok());
  EXPECT_FALSE(ParseVerdict("").ok());
}

class Recorder : public RangeSink {
 public:
  void Push(const char* name) override {
    seen.push_back(std::string("push ") + name);
  }
  void Pop() override { seen.push_back("pop"); }
  std::vector<std::string> seen;
};

// Without the destructor's pop the throwing scope leaves its range open.
TEST(Range, IsClosedOnEveryWayOut) {
  Recorder recorder;
  SetRangeSink(&recorder);
  const auto leave = [](int how) {
    Range range(how == 0 ? "return" : "throw");
    if (how == 0) return;
    Range inner(std::string("inner"));
    throw std::runtime_error("x");
  };
  leave(0);
  EXPECT_THROW(leave(1), std::runtime_error);
  {
    Range outer("outer");
    SetRangeSink(nullptr);
    Range elsewhere("elsewhere");
  }
  EXPECT_EQ(recorder.seen, (std::vector<std::string>{
                               "push return", "pop", "push throw", "push inner",
                               "pop", "pop", "push outer", "pop"}));
}

// Latency and bandwidth come back from times that have them, within what the
// times are off; times that cannot have them give something that can be used.
TEST(Costs, ALineThroughTimes) {
  const auto fit = [](const std::vector<std::pair<int64_t, double>>& seconds) {
    CollectiveCost cost;
    FitLine(seconds, &cost);
    return cost;
  };
  const auto at = [](int64_t bytes, double off = 1) {
    return std::make_pair(bytes,
                          off * (12e-6 + static_cast<double>(bytes) / 3e9));
  };
  const CollectiveCost exact = fit({at(1 << 14), at(1 << 18), at(1 << 24)});
  EXPECT_NEAR(exact.microseconds, 12, 1e-6);
  EXPECT_NEAR(exact.bytes_per_second / 3e9, 1, 1e-9);
  EXPECT_NEAR(exact.Seconds(1 << 20), at(1 << 20).second, 1e-12);
  const CollectiveCost off =
      fit({at(1 << 14, 1.1), at(1 << 18, 0.9), at(1 << 24, 1.1)});
  EXPECT_NEAR(off.microseconds, 12, 3);
  EXPECT_NEAR(off.bytes_per_second / 3e9, 1, 0.2);
  // Negative at no bytes; slower where there is less to send.
  EXPECT_EQ(fit({{1000, 1e-6}, {100000, 2e-4}}).microseconds, 0);
  const CollectiveCost falling = fit({{1000, 2e-5}, {100000, 1e-5}});
  EXPECT_GT(falling.microseconds, 9);
  EXPECT_LT(falling.Seconds(100000), 2e-5);
  EXPECT_GT(falling.bytes_per_second, 0);
}

TEST(Costs, AreReadAsWritten) {
  Costs costs{"x",
              "2.11.0",
              "bf16",
              {{"aten::mm", {3, 1.5}}},
              {{"all_gather", "dp", 4, 12.5, 3e9}}};
  const std::string path =
      std::string(std::getenv("TEST_TMPDIR")) + "/costs.json";
  ASSERT_TRUE(WriteCosts(costs, path).ok());
  const auto read = ReadCosts(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->operators.at("aten::mm").microseconds, 1.5);
  const CollectiveCost* cost = read->Find("all_gather", "dp", 4);
  ASSERT_NE(cost, nullptr);
  EXPECT_EQ(cost->microseconds, 12.5);
  EXPECT_EQ(cost->bytes_per_second, 3e9);
  EXPECT_EQ(read->Find("all_gather", "dp", 2), nullptr);
  EXPECT_EQ(read->Find("all_gather", "ep", 4), nullptr);
  costs.collectives[0].bytes_per_second = 0;
  ASSERT_TRUE(WriteCosts(costs, path).ok());
  EXPECT_EQ(ReadCosts(path).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace heddle::trace
