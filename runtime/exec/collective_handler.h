// Collective steps: each is one call of a communicator. Invariant: the
// collectives of one axis and stream make one sequence, the same on every rank;
// they have a communicator of their own, so that streams cannot mix them up.

#ifndef HEDDLE_RUNTIME_EXEC_COLLECTIVE_HANDLER_H_
#define HEDDLE_RUNTIME_EXEC_COLLECTIVE_HANDLER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/world.h"
#include "runtime/exec/handler.h"
#include "runtime/plan/collective.h"

namespace heddle::exec {

// The communicators of one rank.
class Communicators {
 public:
  struct Count {
    std::atomic<uint64_t> calls{0};
    // As plan::WireBytes has them.
    std::atomic<uint64_t> bytes{0};
  };

  // One for every axis and stream that the plan's collectives use, in an order
  // that follows from the plan alone. The world's rank counts over the whole
  // mesh, the last axis fastest. Plans of one world that use an axis and a
  // stream of one name share its communicator: they run one at a time.
  // `backend`: as World::Connect has it.
  static absl::StatusOr<std::shared_ptr<Communicators>> Connect(
      const plan::Plan& plan, std::shared_ptr<comm::World> world,
      comm::Backend* backend = nullptr);

  // Not null for a collective of the plan that was connected.
  comm::Communicator* Find(const std::string& axis, uint16_t stream) const;
  Count& count(plan::CollectiveKind kind) {
    return counts_[static_cast<size_t>(kind)];
  }

 private:
  std::shared_ptr<comm::World> world_;  // owns them
  std::map<std::pair<std::string, uint16_t>, comm::Communicator*>
      communicators_;
  std::array<Count, 4> counts_;
};

// Whether any section of the plan has collectives; whether one has.
bool HasCollectives(const plan::Plan& plan);
bool HasCollectives(const plan::Section& section);

// The rank's place along an axis; 0 along one that the mesh does not have.
int64_t CoordinateOf(const plan::Plan& plan, int rank, const std::string& axis);

std::shared_ptr<StepHandler> CreateCollectiveHandler(
    std::shared_ptr<Communicators> communicators);

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_COLLECTIVE_HANDLER_H_
