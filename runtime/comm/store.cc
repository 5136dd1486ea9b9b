#include "runtime/comm/store.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace heddle::comm {
namespace {

class ProcessStore : public Store {
 public:
  absl::Status Set(const std::string& key, const std::string& value) override {
    std::lock_guard<std::mutex> lock(mutex_);
    values_[key] = value;
    return absl::OkStatus();
  }
  absl::StatusOr<absl::optional<std::string>> TryGet(
      const std::string& key) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = values_.find(key);
    if (it == values_.end()) return absl::optional<std::string>();
    return absl::optional<std::string>(it->second);
  }
  absl::StatusOr<std::string> SetOnce(const std::string& key,
                                      const std::string& value) override {
    std::lock_guard<std::mutex> lock(mutex_);
    return values_.emplace(key, value).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> values_;
};

}  // namespace

// Polls: a waiting call would hold the connection that the watchdog needs.
absl::StatusOr<std::string> Store::Get(const std::string& key,
                                       absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  absl::Duration pause = absl::Milliseconds(1);
  for (;;) {
    absl::StatusOr<absl::optional<std::string>> value = TryGet(key);
    if (!value.ok()) return value.status();
    if (value->has_value()) return **value;
    if (absl::Now() >= end)
      return absl::DeadlineExceededError(absl::StrCat(
          "nobody has set '", key, "' within ", absl::FormatDuration(timeout)));
    absl::SleepFor(pause);
    pause = std::min(pause * 2, absl::Milliseconds(20));
  }
}

std::shared_ptr<Store> CreateProcessStore() {
  return std::make_shared<ProcessStore>();
}

}  // namespace heddle::comm
