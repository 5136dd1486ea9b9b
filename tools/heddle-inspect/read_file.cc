// A path -> the reader for what lies there, told by the first bytes, never by
// the name. Invariant: a file that is none of Heddle's is refused with what it
// seems to be.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/heddle-inspect/program.h"

namespace heddle::inspect {
namespace {

constexpr char kWanted[] =
    "give a step.mlir, one of its phases (text or bytecode), or a step.plan";

// What a foreign file seems to be.
std::string guessed(const std::string& bytes) {
  auto begins = [&](const char* magic, size_t size) {
    return bytes.size() >= size && std::memcmp(bytes.data(), magic, size) == 0;
  };
  if (begins("\x7f"
             "ELF",
             4))
    return "a program or library (ELF)";
  if (begins("PK\x03\x04", 4))
    return "a zip archive (perhaps a torch.save checkpoint)";
  if (begins("\x80", 1)) return "a Python pickle";
  if (begins("\x1f\x8b", 2)) return "a gzip archive";
  if (bytes.size() > 9 && bytes[8] == '{' && bytes[7] == 0)
    return "a safetensors file";
  if (bytes.size() > 8 && bytes[4] == 'H' && bytes[5] == 'D')
    return "a Heddle file of another kind";
  const size_t start = bytes.find_first_not_of(" \t\r\n");
  if (start != std::string::npos &&
      (bytes[start] == '{' || bytes[start] == '['))
    return "JSON";
  if (bytes.find('\0') != std::string::npos)
    return "a binary file of unknown kind";
  return "";
}

}  // namespace

absl::StatusOr<Program> readProgram(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0)
    return absl::NotFoundError(
        absl::StrCat(path, ": ", std::strerror(errno), "; ", kWanted));
  if (S_ISDIR(info.st_mode))
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a directory; ", kWanted));
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  if (!file)
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ",
        info.st_size == 0 ? "the file is empty" : std::strerror(errno), "; ",
        kWanted));
  const std::string bytes = content.str();
  if (bytes.size() >= 8 && bytes.compare(4, 4, "HDPL") == 0)
    return readPlanBytes(path, bytes, "step.plan");
  const bool bytecode = bytes.compare(0, 4, "ML\xefR") == 0;
  if (!bytecode) {
    if (const std::string what = guessed(bytes); !what.empty())
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is ", what, "; ", kWanted));
  }
  return readMlir(path, bytes);
}

}  // namespace heddle::inspect
