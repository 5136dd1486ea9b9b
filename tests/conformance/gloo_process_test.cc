// Ranks that are processes: they meet in a TCPStore by torchrun's variables and
// work over gloo; one is killed, stalls or throws, and every other one exits
// with code 2, the same message and a flight record. The test's program starts
// itself again for each rank.

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/torch/gloo_communicator.h"
#include "runtime/torch/store_rendezvous.h"
#include "runtime/trace/dump.h"
#include "tests/conformance/failures.h"

namespace heddle::comm::conformance {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(6);
constexpr char kSeed[] = "HEDDLE_TEST_SEED";
constexpr char kInjury[] = "HEDDLE_TEST_INJURY";
constexpr char kDumps[] = "HEDDLE_TEST_DUMPS";

// A case of few enough processes for a small machine.
FailureCase DrawProcessCase(uint32_t seed, Injury injury) {
  FailureCase c = DrawCase(seed, {injury});
  c.size = 2 + static_cast<int>(seed % 3);
  c.victim %= c.size;
  return c;
}

// The life of one rank; the exit code.
int RunRank() {
  const auto environment = ReadRankEnvironment(
      [](const char* name) -> const char* { return std::getenv(name); });
  if (!environment.ok()) {
    std::fprintf(stderr, "%s\n", environment.status().ToString().c_str());
    return 1;
  }
  FailureCase c =
      DrawProcessCase(std::atoi(std::getenv(kSeed)),
                      static_cast<Injury>(std::atoi(std::getenv(kInjury))));
  const auto meeting =
      torch_runtime::Rendezvous(*environment, absl::Seconds(30));
  if (!meeting.ok()) {
    std::fprintf(stderr, "%s\n", meeting.status().ToString().c_str());
    return 1;
  }
  WorldOptions options;
  options.deadline = kDeadline;
  options.dump_directory = std::getenv(kDumps);
  options.store_host = meeting->store_host;
  options.on_failure = ExitProcess;
  auto world = World::Create(
      environment->rank, environment->world_size, meeting->control,
      [&](trace::FlightRecorder* recorder)
          -> absl::StatusOr<std::unique_ptr<Backend>> {
        return torch_runtime::CreateGlooBackend(meeting->transport,
                                                absl::Seconds(60), recorder);
      },
      options);
  if (!world.ok()) return 1;
  if (!(*world)->Agree({absl::StrCat("seed ", c.seed)}).ok()) return 1;
  const absl::Status status =
      RunProgram(**world, c, nullptr, [&](const Collective&) -> absl::Status {
        if (c.injury == Injury::kKill) std::raise(SIGKILL);
        if (c.injury == Injury::kThrow)
          return absl::InternalError("the matrix is singular");
        absl::SleepFor(absl::Seconds(60));
        return absl::OkStatus();
      });
  return status.ok() ? 0 : 3;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Starts a rank with its stderr in a file.
pid_t Start(const std::vector<std::string>& environment,
            const std::string& output) {
  std::vector<char*> variables;
  for (const std::string& v : environment)
    variables.push_back(const_cast<char*>(v.c_str()));
  variables.push_back(nullptr);
  const pid_t child = fork();
  if (child != 0) return child;
  const int file = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  dup2(file, 2);
  char* arguments[] = {const_cast<char*>("rank"), nullptr};
  execve("/proc/self/exe", arguments, variables.data());
  _exit(127);
}

// Waits for a child; its wait status, or -1 after killing it at `end`.
int Await(pid_t child, absl::Time end) {
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return status;
    if (absl::Now() > end) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -1;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

class ProcessRun {
 public:
  // `agent`: somebody else than rank 0 holds the store.
  ProcessRun(const FailureCase& c, bool agent) : c_(c), agent_(agent) {
    char pattern[] = "/tmp/heddle_ranks_XXXXXX";
    folder_ = mkdtemp(pattern);
    c10d::TCPStoreOptions options;
    options.port = 0;
    options.isServer = true;
    options.waitWorkers = false;
    auto server = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
    const int port = server->getPort();
    if (!agent) server.reset();
    for (int r = 0; r < c.size; ++r)
      children_.push_back(
          Start({absl::StrCat("RANK=", r), absl::StrCat("LOCAL_RANK=", r),
                 absl::StrCat("WORLD_SIZE=", c.size), "MASTER_ADDR=127.0.0.1",
                 absl::StrCat("MASTER_PORT=", port),
                 absl::StrCat("TORCHELASTIC_USE_AGENT_STORE=",
                              agent ? "True" : "False"),
                 "GLOO_SOCKET_IFNAME=lo", "TORCH_CPP_LOG_LEVEL=FATAL",
                 "OMP_NUM_THREADS=1", absl::StrCat(kSeed, "=", c.seed),
                 absl::StrCat(kInjury, "=", static_cast<int>(c.injury)),
                 absl::StrCat(kDumps, "=", folder_)},
                ErrorFile(r)));
    // Starting LibTorch takes its time on a busy machine.
    const absl::Time end = absl::Now() + absl::Seconds(60) + kDeadline;
    for (int r = 0; r < c.size; ++r)
      statuses_.push_back(Await(children_[r], end));
  }
  ~ProcessRun() { std::filesystem::remove_all(folder_); }

  std::string ErrorFile(int rank) const {
    return absl::StrCat(folder_, "/stderr", rank);
  }

  // "" or what was wrong.
  std::string Check() const {
    std::string wrong;
    std::set<std::string> messages;
    for (int r = 0; r < c_.size; ++r) {
      const std::string text = ReadAll(ErrorFile(r));
      const int status = statuses_[r];
      if (r == c_.victim && c_.injury == Injury::kKill) {
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
          absl::StrAppend(&wrong, "the victim was not killed: ", text, "\n");
        continue;
      }
      if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 2)
        absl::StrAppend(&wrong, "rank ", r, " ended with status ", status, ": ",
                        text, "\n");
      messages.insert(text);
    }
    if (!agent_ && c_.victim == 0 && c_.injury == Injury::kKill) {
      for (const std::string& text : messages) {
        if (text.find("rank 0 is missing: the store that its process holds") ==
            std::string::npos)
          absl::StrAppend(&wrong, "expected the store's host: ", text, "\n");
      }
      return wrong;
    }
    if (messages.size() != 1)
      absl::StrAppend(&wrong, messages.size(),
                      " different messages: ", *messages.begin(),
                      *messages.rbegin());
    // The files tell the same as the running ranks.
    const auto dumps = trace::ReadDumps(folder_);
    if (!dumps.ok()) return absl::StrCat(wrong, dumps.status().message());
    const trace::Verdict verdict = trace::Judge(c_.size, *dumps);
    absl::StrAppend(&wrong, CheckVerdict(c_, verdict));
    for (const auto& [rank, dump] : *dumps) {
      if (messages.begin()->find(dump.verdict) == std::string::npos)
        absl::StrAppend(&wrong, "rank ", rank, "'s dump says ", dump.verdict);
    }
    return wrong;
  }

 private:
  const FailureCase c_;
  const bool agent_;
  std::string folder_;
  std::vector<pid_t> children_;
  std::vector<int> statuses_;
};

TEST(GlooProcesses, EveryVerdictIsRight) {
  const int count = CaseCount(3, 24);
  int right = 0;
  constexpr Injury kInjuries[] = {Injury::kKill, Injury::kThrow,
                                  Injury::kStall};
  for (int seed = 0; seed < count; ++seed) {
    const FailureCase c = DrawProcessCase(seed, kInjuries[seed % 3]);
    const std::string wrong = ProcessRun(c, true).Check();
    EXPECT_EQ(wrong, "") << c.Text();
    if (wrong.empty()) ++right;
  }
  std::printf("gloo, processes: %d failures injected, %d right verdicts\n",
              count, right);
}

// Without torchrun's agent rank 0 is the store; the others must end without it.
TEST(GlooProcesses, TheStoresHostIsKilled) {
  FailureCase c = DrawProcessCase(1, Injury::kKill);
  for (uint32_t seed = 1; c.victim != 0; ++seed)
    c = DrawProcessCase(seed, Injury::kKill);
  EXPECT_EQ(ProcessRun(c, false).Check(), "");
}

TEST(Rendezvous, AStoreThatIsNotThereIsNamed) {
  RankEnvironment environment;
  environment.rank = 1;
  environment.world_size = 2;
  environment.master_addr = "127.0.0.1";
  environment.master_port = 1;
  const auto meeting =
      torch_runtime::Rendezvous(environment, absl::Milliseconds(300));
  EXPECT_EQ(meeting.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(meeting.status().message().find("rank 1 cannot reach the ranks' "
                                            "store at 127.0.0.1:1"),
            absl::string_view::npos)
      << meeting.status();
}

}  // namespace
}  // namespace heddle::comm::conformance

int main(int argc, char** argv) {
  if (std::getenv("HEDDLE_TEST_SEED") != nullptr)
    return heddle::comm::conformance::RunRank();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
