// A launcher's environment, the store of threads, and streams that dawdle.

#include <atomic>
#include <map>
#include <thread>

#include "gtest/gtest.h"
#include "runtime/comm/rank_environment.h"
#include "runtime/comm/store.h"
#include "runtime/device/cpu.h"
#include "runtime/device/delayed.h"

namespace heddle::comm {
namespace {

using Variables = std::map<std::string, std::string>;

Environment From(const Variables& variables) {
  return [&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  };
}

const Variables kGood = {{"RANK", "5"},
                         {"LOCAL_RANK", "1"},
                         {"WORLD_SIZE", "8"},
                         {"MASTER_ADDR", "node0"},
                         {"MASTER_PORT", "29500"}};

TEST(RankEnvironment, ReadsTorchrunsVariables) {
  Variables variables = kGood;
  auto read = ReadRankEnvironment(From(variables));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->rank, 5);
  EXPECT_EQ(read->local_rank, 1);
  EXPECT_EQ(read->world_size, 8);
  EXPECT_EQ(read->master_addr, "node0");
  EXPECT_EQ(read->master_port, 29500);
  EXPECT_FALSE(read->agent_store);
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  read = ReadRankEnvironment(From(variables));
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(read->agent_store);
  EXPECT_EQ(read->restart, 2);
  EXPECT_TRUE(HasRankEnvironment(From(kGood)));
  EXPECT_FALSE(HasRankEnvironment(From({})));
}

TEST(RankEnvironment, NamesWhatIsMissingOrMalformed) {
  for (const auto& [name, value] : kGood) {
    for (const char* bad : {"", "gone"}) {
      Variables variables = kGood;
      if (*bad == '\0')
        variables[name] = "";
      else
        variables.erase(name);
      const auto read = ReadRankEnvironment(From(variables));
      EXPECT_NE(read.status().message().find("variable " + name + " is "),
                absl::string_view::npos)
          << read.status();
    }
  }
  for (const auto& [name, value] : Variables{{"RANK", "8"},
                                             {"WORLD_SIZE", "0"},
                                             {"RANK", "one"},
                                             {"LOCAL_RANK", "6"},
                                             {"RANK", "-1"},
                                             {"MASTER_PORT", "70000"},
                                             {"MASTER_PORT", "1.5"}}) {
    Variables variables = kGood;
    variables[name] = value;
    const auto read = ReadRankEnvironment(From(variables));
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(read.status().message().find(name), absl::string_view::npos);
  }
}

TEST(Store, TheFirstValueStays) {
  const std::shared_ptr<Store> store = CreateProcessStore();
  EXPECT_FALSE(store->TryGet("a")->has_value());
  EXPECT_EQ(*store->SetOnce("a", "first"), "first");
  EXPECT_EQ(*store->SetOnce("a", "second"), "first");
  EXPECT_EQ(store->Get("b", absl::Milliseconds(5)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread later([&] { EXPECT_TRUE(store->Set("b", "late").ok()); });
  EXPECT_EQ(*store->Get("b", absl::Seconds(10)), "late");
  later.join();
}

// Streams that are ordered by events give the same under every seed; without
// the Wait the result depends on it.
TEST(DelayedDevice, OrderedWorkGivesTheSame) {
  const auto run = [](uint64_t seed, bool ordered) {
    auto device = device::CreateDelayedDevice(device::CreateCpuDevice(), seed,
                                              std::chrono::microseconds(500));
    auto a = *device->CreateStream("a");
    auto b = *device->CreateStream("b");
    auto event = *device->CreateEvent();
    std::atomic<int> value{1};
    a->Enqueue([&] { value = value * 3; });
    a->Record(*event);
    if (ordered) b->Wait(*event);
    b->Enqueue([&] { value = value + 1; });
    EXPECT_TRUE(a->Synchronize().ok());
    EXPECT_TRUE(b->Synchronize().ok());
    return value.load();
  };
  bool differed = false;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    EXPECT_EQ(run(seed, true), 4);
    differed |= run(seed, false) != 4;
  }
  EXPECT_TRUE(differed);
}

}  // namespace
}  // namespace heddle::comm
