#include "runtime/trace/dump.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace heddle::trace {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "heddle.flight_recorder";
constexpr const char* kStates[] = {"enqueued", "started", "finished", "failed"};

// field(key, member) for every plain field: written and read by one list.
template <typename R, typename F>
void EachOfRecord(R& r, F field) {
  field("group", r.group);
  field("sequence", r.sequence);
  field("collective", r.signature);
  field("bytes", r.bytes);
  field("op", r.op);
  field("module", r.module);
  field("source", r.source);
  field("enqueued_ns", r.enqueued_ns);
  field("started_ns", r.started_ns);
  field("finished_ns", r.finished_ns);
}

template <typename R, typename F>
void EachOfGroup(R& g, F field) {
  field("name", g.name);
  field("ranks", g.ranks);
  field("issued", g.issued);
  field("started", g.started);
  field("finished", g.finished);
}

template <typename R, typename F>
void EachOfDump(R& dump, F field) {
  field("rank", dump.rank);
  field("world", dump.world);
  field("backend", dump.backend);
  field("written_ns", dump.written_ns);
  field("failure", dump.failure);
  field("verdict", dump.verdict);
  field("left", dump.left);
}

// Fields for EachOf...: into `json`, and out of it.
auto Writer(Json& json) {
  return [&json](const char* key, const auto& value) { json[key] = value; };
}
auto Reader(const Json& json) {
  return [&json](const char* key, auto& value) { json.at(key).get_to(value); };
}

Json ToJson(const Record& r) {
  Json json = Json::object();
  EachOfRecord(r, Writer(json));
  json["state"] = kStates[static_cast<int>(r.state)];
  if (!r.error.empty()) json["error"] = r.error;
  return json;
}

Record RecordFrom(const Json& json) {
  Record r;
  EachOfRecord(r, Reader(json));
  r.error = json.value("error", "");
  const auto& state = json.at("state").get_ref<const std::string&>();
  for (size_t i = 0; i < std::size(kStates); ++i) {
    if (state != kStates[i]) continue;
    r.state = static_cast<State>(i);
    return r;
  }
  // Caught below, where the dump's other faults are.
  throw Json::other_error::create(501, "unknown state '" + state + "'", &json);
}

absl::Status CannotWrite(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
}

absl::Status WriteAndSync(const std::string& path, const std::string& text) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return CannotWrite(path);
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(file, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    done += static_cast<size_t>(n);
  }
  absl::Status status;
  if (done < text.size() || fsync(file) != 0) status = CannotWrite(path);
  close(file);
  return status;
}

}  // namespace

std::string DumpJson(const Dump& dump) {
  Json json = {{"format", kFormat}, {"version", kDumpVersion}};
  EachOfDump(dump, Writer(json));
  json["groups"] = Json::array();
  for (const GroupRecord& g : dump.groups)
    EachOfGroup(g, Writer(json["groups"].emplace_back()));
  json["records"] = Json::array();
  for (const Record& r : dump.records) json["records"].push_back(ToJson(r));
  // Module paths and errors may hold any bytes.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Dump> ParseDump(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("format") ||
      json["format"] != kFormat)
    return absl::InvalidArgumentError("not a flight recorder's dump");
  if (!json.contains("version") || json["version"] != kDumpVersion)
    return absl::InvalidArgumentError(absl::StrCat(
        "a dump of version ",
        json.contains("version") ? json["version"].dump() : std::string("none"),
        "; this Heddle reads version ", kDumpVersion));
  try {
    Dump dump;
    EachOfDump(dump, Reader(json));
    for (const Json& g : json.at("groups"))
      EachOfGroup(dump.groups.emplace_back(), Reader(g));
    for (const Json& r : json.at("records"))
      dump.records.push_back(RecordFrom(r));
    if (dump.world < 1 || dump.rank < 0 || dump.rank >= dump.world)
      return absl::InvalidArgumentError(absl::StrCat(
          "a dump of rank ", dump.rank, " in a world of ", dump.world));
    return dump;
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("a damaged dump: ", e.what()));
  }
}

std::string VerdictJson(const Verdict& verdict) {
  const Json json = {{"finding", static_cast<int>(verdict.finding)},
                     {"ranks", verdict.ranks},
                     {"group", verdict.group},
                     {"sequence", verdict.sequence},
                     {"text", verdict.text}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<Verdict> ParseVerdict(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  try {
    Verdict verdict;
    const int finding = json.at("finding").get<int>();
    if (finding < 0 || finding > static_cast<int>(Finding::kStuck))
      return absl::InvalidArgumentError(
          absl::StrCat("a verdict with finding ", finding));
    verdict.finding = static_cast<Finding>(finding);
    json.at("ranks").get_to(verdict.ranks);
    json.at("group").get_to(verdict.group);
    json.at("sequence").get_to(verdict.sequence);
    json.at("text").get_to(verdict.text);
    return verdict;
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("a damaged verdict: ", e.what()));
  }
}

std::string DumpFileName(int rank) {
  return absl::StrCat("flight-recorder.rank", rank, ".json");
}

absl::Status WriteDump(const Dump& dump, const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot make the folder ", directory, ": ", error.message()));
  const std::string path =
      absl::StrCat(directory, "/", DumpFileName(dump.rank));
  return WriteWhole(path, DumpJson(dump));
}

absl::Status WriteWhole(const std::string& path, const std::string& text) {
  const std::string fresh = absl::StrCat(path, ".", getpid(), ".new");
  absl::Status status = WriteAndSync(fresh, text);
  if (status.ok() && rename(fresh.c_str(), path.c_str()) != 0)
    status = CannotWrite(path);
  if (!status.ok()) unlink(fresh.c_str());
  return status;
}

absl::StatusOr<std::map<int, Dump>> ReadDumps(
    const std::string& directory, std::vector<std::string>* damaged) {
  std::map<int, Dump> dumps;
  absl::Status bad;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error);
  if (error)
    return absl::NotFoundError(absl::StrCat("cannot read the folder ",
                                            directory, ": ", error.message()));
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("flight-recorder.rank", 0) != 0 ||
        entry.path().extension() != ".json")
      continue;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    absl::StatusOr<Dump> dump = ParseDump(text);
    if (!dump.ok()) {
      bad = absl::InvalidArgumentError(
          absl::StrCat(entry.path().string(), ": ", dump.status().message()));
      if (damaged == nullptr) return bad;
      damaged->push_back(absl::StrCat(name, ": ", dump.status().message()));
      continue;
    }
    const int rank = dump->rank;
    if (!dumps.empty() && dumps.begin()->second.world != dump->world)
      return absl::InvalidArgumentError(absl::StrCat(
          entry.path().string(), ": from a world of ", dump->world,
          ", another file is from one of ", dumps.begin()->second.world));
    if (!dumps.emplace(rank, *std::move(dump)).second)
      return absl::InvalidArgumentError(absl::StrCat(
          entry.path().string(), ": a second dump of rank ", rank));
  }
  if (dumps.empty() && !bad.ok()) return bad;
  if (dumps.empty())
    return absl::NotFoundError(
        absl::StrCat(directory, " holds no flight-recorder.rank*.json"));
  return dumps;
}

}  // namespace heddle::trace
