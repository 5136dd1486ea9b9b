// Injected failures: a seeded program of collectives on N ranks, one of which
// dies, stalls, throws or leaves at a seeded step; the others must end in time
// with a verdict that names it, and the collective where they waited.

#ifndef HEDDLE_TESTS_CONFORMANCE_FAILURES_H_
#define HEDDLE_TESTS_CONFORMANCE_FAILURES_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/comm/world.h"
#include "runtime/device/device.h"

namespace heddle::comm::conformance {

enum class Injury {
  kStall,
  kThrow,
  kLeave,
  kKill,
  kWrongCount,
  kTransport,
  kHang
};

struct FailureCase {
  uint32_t seed = 0;
  int size = 2;
  int victim = 0;
  int step = 0;  // before which collective of the program it happens
  Injury injury = Injury::kStall;
  std::string Text() const;
};

// A case drawn from its seed; the injury is one of `injuries`.
FailureCase DrawCase(uint32_t seed, const std::vector<Injury>& injuries);

// The number of injected failures a test makes: `usual`, or `full` with
// HEDDLE_TEST_FULL=1.
int CaseCount(int usual, int full);

// Where the ranks that wait for the victim must be found waiting.
struct Expected {
  std::string group;
  int64_t sequence = 0;
  std::string module;
};
Expected WhereOthersWait(const FailureCase& c);

// Runs the program on one rank until it ends or fails, calling `injure` before
// the victim's step. An error is already the verdict.
absl::Status RunProgram(
    World& world, const FailureCase& c, device::Device* device,
    const std::function<absl::Status(const Collective&)>& injure);

// What a case needs of the backend, made anew for every case.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual std::shared_ptr<Store> RankStore(int rank) = 0;
  virtual World::MakeBackend RankBackend(int rank) = 0;
  // Whether collectives need a stream.
  virtual bool streamed() const { return false; }
  // Makes the transport of a rank fail from now on (kTransport), or accept work
  // and never do it (kHang).
  virtual void BreakTransport(int, bool) {}
};

// Runs a case with ranks as threads. Returns "" if every rank got the right
// verdict in time, else what was wrong.
std::string RunThreadCase(const FailureCase& c, Ranks& ranks,
                          absl::Duration deadline);

// Whether a verdict is the right one for the case; "" or what is wrong.
std::string CheckVerdict(const FailureCase& c, const trace::Verdict& verdict);

// Runs `count` cases, several at a time, and expects every verdict right.
void RunThreadCases(
    const char* what, int count, const std::vector<Injury>& injuries,
    const std::function<std::unique_ptr<Ranks>(int size)>& make);

}  // namespace heddle::comm::conformance

#endif  // HEDDLE_TESTS_CONFORMANCE_FAILURES_H_
