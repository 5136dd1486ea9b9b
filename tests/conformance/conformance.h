// What every backend of runtime/comm has to do, written once. A backend's test
// makes a BackendWorld per case and names it in INSTANTIATE_TEST_SUITE_P; the
// cases compare with values computed here, by other code than the backends use.

#ifndef HEDDLE_TESTS_CONFORMANCE_CONFORMANCE_H_
#define HEDDLE_TESTS_CONFORMANCE_CONFORMANCE_H_

#include <functional>
#include <memory>
#include <string>
#include <tuple>

#include "gtest/gtest.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace heddle::comm::conformance {

// The ranks of one case.
class BackendWorld {
 public:
  virtual ~BackendWorld() = default;
  // Called by each rank's own thread.
  virtual Backend& Rank(int rank) = 0;
};

struct BackendCase {
  const char* name;
  std::function<std::unique_ptr<BackendWorld>(int size)> make;
  // Whether Issue takes nullptr as stream.
  bool direct;
};

// One rank of a running case.
struct Rank {
  int rank;
  int size;
  Backend* backend;
  device::Device* device;
  // nullptr in the cases that run on the calling thread.
  device::Stream* stream;

  std::unique_ptr<Communicator> Connect(const std::string& name);
  std::unique_ptr<Communicator> Connect(const std::string& name,
                                        std::vector<int> ranks);
  // Issues and waits.
  absl::Status Run(Communicator& communicator,
                   absl::Span<const Collective> collectives);
  absl::Status Run(Communicator& communicator, const Collective& c) {
    return Run(communicator, absl::Span<const Collective>(&c, 1));
  }
};

// Backend, world size, whether a stream is used.
class Conformance
    : public ::testing::TestWithParam<std::tuple<BackendCase, int, bool>> {
 protected:
  // Runs `body` on every rank, each on its own thread with its own device.
  void OnEveryRank(const std::function<void(Rank&)>& body);
  int size() const { return std::get<1>(GetParam()); }
};

// Host backends: memory and streams that are a GPU's give an error which says
// so, and the communicator goes on with memory of the host. The memory is a
// fake's, which no load survives: without HostCommunicator's question the test
// ends with a signal.
void ExpectRefusesDeviceMemory(Backend& backend);

std::string CaseName(
    const ::testing::TestParamInfo<Conformance::ParamType>& info);

}  // namespace heddle::comm::conformance

#endif  // HEDDLE_TESTS_CONFORMANCE_CONFORMANCE_H_
