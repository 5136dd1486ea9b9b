#include "runtime/comm/host_communicator.h"

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/device/host_access.h"

namespace heddle::comm {

absl::StatusOr<Group> MakeGroup(std::string name, std::vector<int> ranks,
                                int rank) {
  Group group;
  group.position = -1;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] == rank) group.position = static_cast<int>(i);
  }
  if (std::set<int>(ranks.begin(), ranks.end()).size() != ranks.size() ||
      ranks.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("group ", name, " [", absl::StrJoin(ranks, ","),
                     "] is empty or names a rank twice"));
  if (group.position < 0)
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " is not in group ", name, " [",
                     absl::StrJoin(ranks, ","), "]"));
  group.name = std::move(name);
  group.ranks = std::move(ranks);
  return group;
}

trace::Record RecordOf(absl::Span<const Collective> collectives,
                       const Group& group) {
  // A grouped call can hold hundreds; the first few and their number tell it.
  constexpr size_t kShown = 4;
  trace::Record record;
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over all signatures
  record.group = group.name;
  for (size_t i = 0; i < collectives.size(); ++i) {
    const Collective& c = collectives[i];
    record.bytes += PayloadBytes(c, group.size());
    const std::string signature = Signature(c);
    for (char letter : signature)
      hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
    if (i < kShown)
      absl::StrAppend(&record.signature, i == 0 ? "" : "; ", signature);
    if (c.origin == nullptr || !record.op.empty()) continue;
    record.op = c.origin->op;
    record.module = c.origin->module;
    record.source = c.origin->source;
  }
  if (collectives.size() > kShown)
    absl::StrAppend(&record.signature, "; … ", collectives.size(), " calls, ",
                    absl::Hex(hash));
  return record;
}

namespace {

std::string OriginText(const Collective& c) {
  return c.origin == nullptr
             ? std::string()
             : absl::StrCat(" (", c.origin->op, " ", c.origin->module, " ",
                            c.origin->source, ")");
}

}  // namespace

absl::Status ValidateAll(absl::Span<const Collective> collectives,
                         const Group& group) {
  if (collectives.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "a grouped call on group ", group.name, " holds no collective"));
  for (const Collective& c : collectives) {
    absl::Status status = Validate(c, group);
    if (status.ok()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(status.message(), ", group ", group.name, OriginText(c)));
  }
  return absl::OkStatus();
}

namespace {

// The host's loads and stores would end the process.
absl::Status OnTheHost(absl::Span<const Collective> collectives,
                       const Group& group) {
  for (const Collective& c : collectives) {
    const std::pair<const char*, const void*> parts[] = {
        {"input is", c.input},
        {"output is", c.output},
        {"send counts are", c.device_send_counts},
        {"receive counts are", c.device_recv_counts}};
    for (const auto& [part, address] : parts) {
      const char* target =
          address == nullptr ? nullptr : device::DeviceOfMemory(address);
      if (target == nullptr) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          KindName(c.kind), " of group ", group.name,
          " runs on the host and its ", part, " in memory of ", target,
          "; copy it to the host first, or connect the "
          "group through a backend of ",
          target, OriginText(c)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

HostCommunicator::HostCommunicator(Group group, trace::FlightRecorder* recorder)
    : Communicator(std::move(group)), recorder_(recorder) {
  if (recorder_ != nullptr)
    recorder_->AddGroup(this->group().name, this->group().ranks);
}

absl::Status HostCommunicator::status() {
  std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

void HostCommunicator::Break(const absl::Status& why) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (status_.ok()) status_ = why;
}

absl::Status HostCommunicator::Issue(absl::Span<const Collective> collectives,
                                     device::Stream* stream) {
  if (absl::Status s = ValidateAll(collectives, group()); !s.ok()) return s;
  if (absl::Status s = OnTheHost(collectives, group()); !s.ok()) return s;
  // Such a stream takes work by its native handle, and would run this before
  // what was given to it earlier.
  if (stream != nullptr && stream->native() != nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat(KindName(collectives[0].kind), " of group ", group().name,
                     " runs on the host and was given a GPU's stream",
                     OriginText(collectives[0])));
  if (absl::Status s = status(); !s.ok()) return s;
  const uint64_t ticket =
      recorder_ == nullptr
          ? 0
          : recorder_->Enqueued(RecordOf(collectives, group()));
  if (stream == nullptr) return RunRecorded(collectives, ticket);
  stream->Enqueue(
      [this, ticket,
       copy = std::vector<Collective>(collectives.begin(), collectives.end())] {
        // The failure is kept in status().
        (void)RunRecorded(copy, ticket);
      });
  return absl::OkStatus();
}

absl::Status HostCommunicator::RunRecorded(
    absl::Span<const Collective> collectives, uint64_t ticket) {
  absl::Status result = status();
  if (result.ok()) {
    if (recorder_ != nullptr) recorder_->Started(ticket);
    result = RunBlocking(collectives);
  }
  if (!result.ok()) Break(result);
  if (recorder_ == nullptr) return result;
  // After an abort the record stays what it was: waiting.
  if (result.ok())
    recorder_->Finished(ticket);
  else if (!Aborted())
    recorder_->Failed(ticket, std::string(result.message()));
  return result;
}

}  // namespace heddle::comm
