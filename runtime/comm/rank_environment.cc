#include "runtime/comm/rank_environment.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace heddle::comm {
namespace {

constexpr const char* kVariables[] = {"RANK", "LOCAL_RANK", "WORLD_SIZE",
                                      "MASTER_ADDR", "MASTER_PORT"};

absl::StatusOr<std::string> Text(const Environment& get, const char* name) {
  const char* value = get(name);
  if (value != nullptr && *value != '\0') return std::string(value);
  return absl::FailedPreconditionError(absl::StrCat(
      "the environment variable ", name, " is ",
      value == nullptr ? "not set" : "empty",
      ", though others of RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, "
      "MASTER_PORT are; start the ranks with torchrun, or set all five"));
}

absl::StatusOr<int> Number(const Environment& get, const char* name, int least,
                           int most) {
  absl::StatusOr<std::string> text = Text(get, name);
  if (!text.ok()) return text.status();
  int value = 0;
  if (!absl::SimpleAtoi(*text, &value))
    return absl::InvalidArgumentError(absl::StrCat(
        "the environment variable ", name, " is '", *text, "', not a number"));
  if (value < least || value > most)
    return absl::InvalidArgumentError(
        absl::StrCat("the environment variable ", name, " is ", value,
                     "; it must be from ", least, " to ", most));
  return value;
}

}  // namespace

bool HasRankEnvironment(const Environment& get) {
  for (const char* name : kVariables) {
    if (get(name) != nullptr) return true;
  }
  return false;
}

absl::StatusOr<RankEnvironment> ReadRankEnvironment(const Environment& get) {
  constexpr int kMostRanks = 1 << 20;
  RankEnvironment result;
  const auto world_size = Number(get, "WORLD_SIZE", 1, kMostRanks);
  if (!world_size.ok()) return world_size.status();
  result.world_size = *world_size;
  const auto rank = Number(get, "RANK", 0, result.world_size - 1);
  if (!rank.ok()) return rank.status();
  result.rank = *rank;
  const auto local = Number(get, "LOCAL_RANK", 0, result.rank);
  if (!local.ok()) return local.status();
  result.local_rank = *local;
  const auto addr = Text(get, "MASTER_ADDR");
  if (!addr.ok()) return addr.status();
  result.master_addr = *addr;
  const auto port = Number(get, "MASTER_PORT", 1, 65535);
  if (!port.ok()) return port.status();
  result.master_port = static_cast<uint16_t>(*port);
  const char* agent = get("TORCHELASTIC_USE_AGENT_STORE");
  result.agent_store = agent != nullptr && std::string(agent) == "True";
  if (get("TORCHELASTIC_RESTART_COUNT") != nullptr) {
    const auto restart =
        Number(get, "TORCHELASTIC_RESTART_COUNT", 0, kMostRanks);
    if (!restart.ok()) return restart.status();
    result.restart = *restart;
  }
  return result;
}

}  // namespace heddle::comm
