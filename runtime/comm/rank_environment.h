// Who a process is among the others, told by its environment: torchrun's
// contract. Invariant: what is returned is complete and in range; a variable
// that is missing or malformed is an error that names it.

#ifndef HEDDLE_RUNTIME_COMM_RANK_ENVIRONMENT_H_
#define HEDDLE_RUNTIME_COMM_RANK_ENVIRONMENT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace heddle::comm {

struct RankEnvironment {
  int rank = 0;
  int local_rank = 0;
  int world_size = 1;
  std::string master_addr;
  uint16_t master_port = 0;
  // torchrun's agent holds the store's server, not rank 0.
  bool agent_store = false;
  // How often torchrun has started the ranks again; keys of one attempt must
  // not meet those of another.
  int restart = 0;
};

// Returns a variable's value or nullptr, as getenv does.
using Environment = std::function<const char*(const char* name)>;

// Whether a launcher has set any of the variables: without one the ranks of a
// run are threads of one process.
bool HasRankEnvironment(const Environment& get);

// Reads RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
absl::StatusOr<RankEnvironment> ReadRankEnvironment(const Environment& get);

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_RANK_ENVIRONMENT_H_
