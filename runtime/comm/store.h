// Small values that all ranks see, for what happens outside of collectives:
// meeting, agreeing on a program, saying why one cannot go on. Invariant: a key
// that has been set stays readable; no call waits longer than it was told to,
// since the watchdog uses the same store while another thread waits.

#ifndef HEDDLE_RUNTIME_COMM_STORE_H_
#define HEDDLE_RUNTIME_COMM_STORE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace heddle::comm {

class Store {
 public:
  virtual ~Store() = default;
  [[nodiscard]] virtual absl::Status Set(const std::string& key,
                                         const std::string& value) = 0;
  // The value, or nothing if the key has not been set; does not wait for it.
  [[nodiscard]] virtual absl::StatusOr<absl::optional<std::string>> TryGet(
      const std::string& key) = 0;
  // Sets the key unless it is set; returns what it holds then.
  [[nodiscard]] virtual absl::StatusOr<std::string> SetOnce(
      const std::string& key, const std::string& value) = 0;

  // Waits for the key; DeadlineExceeded names it.
  [[nodiscard]] absl::StatusOr<std::string> Get(const std::string& key,
                                                absl::Duration timeout);
};

// A store for ranks that are threads of one process.
std::shared_ptr<Store> CreateProcessStore();

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_STORE_H_
