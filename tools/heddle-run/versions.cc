// A version is written under a name that no reader looks at, synced, renamed. A
// version that goes is first renamed, too: what has a version's name is whole.

#include "tools/heddle-run/versions.h"

#include <signal.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/safetensors/safetensors.h"

namespace heddle::run {
namespace {

namespace fs = std::filesystem;

constexpr char kWriting[] = ".writing-";
constexpr char kRemoving[] = ".removing-";
constexpr char kLink[] = ".latest-";
constexpr int kManifestVersion = 1;

std::string versionName(int64_t step) {
  std::string digits = absl::StrCat(step);
  return "step-" + std::string(digits.size() < 8 ? 8 - digits.size() : 0, '0') +
         digits;
}

bool isVersion(const std::string& name) {
  const size_t end = name.find_first_not_of("0123456789", 5);
  return name.rfind("step-", 0) == 0 && name.size() >= 13 &&
         (end == std::string::npos ||
          (end >= 13 && name[end] == '.' && end + 1 < name.size() &&
           name.find_first_not_of("0123456789", end + 1) == std::string::npos));
}

absl::StatusOr<uint32_t> crcOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  std::vector<char> block(1 << 20);
  uLong crc = crc32(0, nullptr, 0);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) ||
         file.gcount() > 0)
    crc = crc32(crc, reinterpret_cast<const Bytef*>(block.data()),
                static_cast<uInt>(file.gcount()));
  if (file.bad())
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  return static_cast<uint32_t>(crc);
}

absl::Status writeManifest(const std::string& directory, int64_t step) {
  nlohmann::json files = nlohmann::json::object();
  std::error_code error;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(directory, error)) {
    absl::StatusOr<uint32_t> crc = crcOf(entry.path().string());
    if (!crc.ok()) return crc.status();
    files[entry.path().filename().string()] = {{"bytes", entry.file_size()},
                                               {"crc32", *crc}};
  }
  if (error) return filesystemError(directory, error);
  return safetensors::WriteBytes(
      directory + "/manifest.json",
      nlohmann::json({{"format_version", kManifestVersion},
                      {"step", step},
                      {"files", files}})
              .dump(2) +
          "\n");
}

// Removes what processes left that were killed while writing or removing, and
// all versions but the newest. Nobody waits for this, so failures are nobody's.
void prune(const std::string& directory, int64_t keep,
           const std::string& current) {
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> versions;
  std::vector<fs::path> rubbish;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (isVersion(name) && name != current && entry.is_directory(error))
      versions.emplace_back(entry.last_write_time(error), entry.path());
    if (name.rfind(kRemoving, 0) == 0) rubbish.push_back(entry.path());
    const size_t dash = name.rfind('-');
    if (name.rfind(kWriting, 0) == 0 || name.rfind(kLink, 0) == 0) {
      const long pid = std::atol(name.c_str() + dash + 1);
      if (pid > 0 && kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH)
        rubbish.push_back(entry.path());
    }
  }
  std::sort(versions.rbegin(), versions.rend());
  for (size_t i = static_cast<size_t>(keep - 1); i < versions.size(); ++i) {
    const fs::path& old = versions[i].second;
    const fs::path away =
        old.parent_path() / (kRemoving + old.filename().string());
    fs::rename(old, away, error);
    if (!error) rubbish.push_back(away);
  }
  for (const fs::path& path : rubbish) fs::remove_all(path, error);
}

}  // namespace

absl::Status filesystemError(const std::string& what,
                             const std::error_code& error) {
  const std::string message = absl::StrCat(what, ": ", error.message());
  return error == std::errc::no_space_on_device
             ? absl::ResourceExhaustedError(absl::StrCat(
                   message, "; free some space or write elsewhere"))
             : absl::InvalidArgumentError(message);
}

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

absl::StatusOr<std::string> addVersion(
    const std::string& directory, int64_t step, int64_t keep,
    const std::function<absl::Status(const std::string& into)>& fill) {
  std::string version = versionName(step);
  const std::string temporary =
      absl::StrCat(directory, "/", kWriting, version, "-", getpid());
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error)
    return filesystemError(absl::StrCat(temporary, ": cannot create"), error);
  absl::Status status = fill(temporary);
  if (status.ok()) status = writeManifest(temporary, step);
  if (status.ok()) status = safetensors::SyncDirectory(temporary);
  if (!status.ok()) {
    fs::remove_all(temporary, error);
    return status;
  }
  for (int again = 1; fs::exists(directory + "/" + version); ++again)
    version = absl::StrCat(versionName(step), ".", again);
  const std::string path = directory + "/" + version;
  fs::rename(temporary, path, error);
  if (error)
    return filesystemError(absl::StrCat(path, ": cannot rename"), error);
  const std::string link = absl::StrCat(directory, "/", kLink, getpid());
  fs::remove(link, error);
  fs::create_directory_symlink(version, link, error);
  if (!error) fs::rename(link, directory + "/latest", error);
  if (error)
    return filesystemError(
        absl::StrCat(directory, "/latest: cannot be moved to ", version),
        error);
  if (absl::Status synced = safetensors::SyncDirectory(directory); !synced.ok())
    return synced;
  prune(directory, keep, version);
  return path;
}

absl::Status checkVersion(const std::string& version) {
  const std::string path = version + "/manifest.json";
  const nlohmann::json manifest =
      nlohmann::json::parse(readFile(path), nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files") ||
      !manifest["files"].is_object())
    return absl::DataLossError(
        absl::StrCat(path, ": not the manifest of a checkpoint"));
  if (!manifest.contains("format_version") ||
      manifest["format_version"] != kManifestVersion)
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": manifest format version ",
        manifest.value("format_version", nlohmann::json()).dump(),
        " cannot be read, this heddle-run reads version ", kManifestVersion));
  for (const auto& [name, entry] : manifest["files"].items()) {
    const std::string file = version + "/" + name;
    std::error_code error;
    const uintmax_t bytes = fs::file_size(file, error);
    if (error)
      return absl::DataLossError(
          absl::StrCat(file, ": ", error.message(), "; the manifest lists it"));
    if (!entry.is_object() || entry.value("bytes", nlohmann::json()) != bytes)
      return absl::DataLossError(absl::StrCat(
          file, ": has ", bytes, " bytes and the manifest says ",
          entry.is_object() ? entry.value("bytes", nlohmann::json()).dump()
                            : entry.dump(),
          "; it was cut short or changed, load another version"));
    absl::StatusOr<uint32_t> crc = crcOf(file);
    if (!crc.ok()) return crc.status();
    if (entry.value("crc32", nlohmann::json()) != *crc)
      return absl::DataLossError(absl::StrCat(
          file,
          ": its CRC-32 is not the manifest's; its bytes have changed since "
          "it was written, load another version"));
  }
  return absl::OkStatus();
}

}  // namespace heddle::run
