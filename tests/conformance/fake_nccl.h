// NCCL's table over host memory: what a rank enqueues runs on a host stream and
// meets the others in a loopback group. Errors and hangs can be injected.

#ifndef HEDDLE_TESTS_CONFORMANCE_FAKE_NCCL_H_
#define HEDDLE_TESTS_CONFORMANCE_FAKE_NCCL_H_

#include <memory>

#include "runtime/comm/loopback.h"
#include "runtime/comm/nccl/nccl_api.h"

namespace heddle::comm::conformance {

// What the ranks of one process share.
class FakeNcclWorld {
 public:
  explicit FakeNcclWorld(int size) : loopback_(size) {}
  LoopbackWorld& loopback() { return loopback_; }

 private:
  LoopbackWorld loopback_;
};

// One rank's library.
class FakeNccl : public nccl::NcclApi {
 public:
  // What the rank's calls do from now on: fail at once, be accepted and never
  // done, or be accepted and show an error in AsyncError.
  enum class Fault { kNone, kCall, kHang, kAsync };
  virtual void Inject(Fault fault) = 0;
};

std::shared_ptr<FakeNccl> CreateFakeNccl(std::shared_ptr<FakeNcclWorld> world);

}  // namespace heddle::comm::conformance

#endif  // HEDDLE_TESTS_CONFORMANCE_FAKE_NCCL_H_
