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

}  // namespace
}  // namespace heddle::trace
