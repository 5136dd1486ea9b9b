#include "runtime/torch/store_rendezvous.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace heddle::torch_runtime {
namespace {

using Bytes = std::vector<uint8_t>;

std::string FirstLine(const char* what) {
  const std::string text = what;
  return text.substr(0, text.find('\n'));
}

template <typename F>
auto Guarded(const char* what, const std::string& key, F work)
    -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat("the ranks' store cannot ", what,
                                               " '", key,
                                               "': ", FirstLine(e.what())));
  }
}

class WrappedStore : public comm::Store {
 public:
  explicit WrappedStore(c10::intrusive_ptr<c10d::Store> store)
      : store_(std::move(store)) {}
  absl::Status Set(const std::string& key, const std::string& value) override {
    return Guarded("set", key, [&]() -> absl::Status {
      store_->set(key, Bytes(value.begin(), value.end()));
      return absl::OkStatus();
    });
  }
  absl::StatusOr<absl::optional<std::string>> TryGet(
      const std::string& key) override {
    using Result = absl::StatusOr<absl::optional<std::string>>;
    return Guarded("read", key, [&]() -> Result {
      if (!store_->check({key})) return absl::optional<std::string>();
      const Bytes value = store_->get(key);
      return absl::optional<std::string>(
          std::string(value.begin(), value.end()));
    });
  }
  absl::StatusOr<std::string> SetOnce(const std::string& key,
                                      const std::string& value) override {
    return Guarded("set", key, [&]() -> absl::StatusOr<std::string> {
      // An absent key counts as equal to nothing.
      const Bytes held =
          store_->compareSet(key, Bytes(), Bytes(value.begin(), value.end()));
      return std::string(held.begin(), held.end());
    });
  }

 private:
  const c10::intrusive_ptr<c10d::Store> store_;
};

}  // namespace

std::shared_ptr<comm::Store> WrapStore(c10::intrusive_ptr<c10d::Store> store) {
  return std::make_shared<WrappedStore>(std::move(store));
}

absl::StatusOr<Meeting> Rendezvous(const comm::RankEnvironment& environment,
                                   absl::Duration timeout) {
  const bool server = environment.rank == 0 && !environment.agent_store;
  try {
    c10d::TCPStoreOptions options;
    options.port = environment.master_port;
    options.isServer = server;
    options.waitWorkers = false;
    // PyTorch's own rendezvous may hold or want the same port.
    options.multiTenant = true;
    // LibTorch tries a second time after the first has taken all of it.
    options.timeout =
        std::chrono::milliseconds(absl::ToInt64Milliseconds(timeout) / 2);
    auto first =
        c10::make_intrusive<c10d::TCPStore>(environment.master_addr, options);
    options.isServer = false;
    auto second =
        c10::make_intrusive<c10d::TCPStore>(environment.master_addr, options);
    const std::string prefix = absl::StrCat("heddle/", environment.restart);
    Meeting meeting;
    meeting.control = WrapStore(
        c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(first)));
    meeting.transport = c10::make_intrusive<c10d::PrefixStore>(
        prefix + "/transport", std::move(second));
    meeting.store_host = environment.agent_store ? -1 : 0;
    return meeting;
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat(
        "rank ", environment.rank, " cannot ", server ? "open" : "reach",
        " the ranks' store at ", environment.master_addr, ":",
        environment.master_port, " (MASTER_ADDR, MASTER_PORT) within ",
        absl::FormatDuration(timeout), ": ", FirstLine(e.what())));
  }
}

}  // namespace heddle::torch_runtime
