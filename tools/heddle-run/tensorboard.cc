// An event file is a sequence of records: length, its checksum, an Event
// message, its checksum. Both formats are small enough to write by hand, which
// keeps protobuf out of the process: LibTorch exports symbols of its own copy.

#include "tools/heddle-run/tensorboard.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace heddle::run {
namespace {

// CRC-32C (Castagnoli), reflected.
uint32_t crc32c(const std::string& bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit)
        crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
      made[i] = crc;
    }
    return made;
  }();
  uint32_t crc = 0xffffffffu;
  for (char c : bytes)
    crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ crc >> 8;
  return ~crc;
}

// A checksum stored beside what it covers is masked, or checksums of files with
// checksums in them would be weak.
uint32_t masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

template <typename T>
std::string littleEndian(T value) {
  std::string bytes(sizeof(T), '\0');
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  for (size_t i = 0; i < sizeof(T); ++i)
    bytes[i] = static_cast<char>(bits >> (8 * i));
  return bytes;
}

// Fields of protocol buffers: a key (number and wire type), then the value.
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7)
    bytes += static_cast<char>(0x80 | (value & 0x7f));
  return bytes + static_cast<char>(value);
}
std::string field(int number, int64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) +
         varint(static_cast<uint64_t>(value));
}
std::string field(int number, double value) {
  return varint(static_cast<uint64_t>(number) << 3 | 1) + littleEndian(value);
}
std::string field(int number, float value) {
  return varint(static_cast<uint64_t>(number) << 3 | 5) + littleEndian(value);
}
std::string field(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) +
         bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(
    const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    return absl::InvalidArgumentError(absl::StrCat(
        directory, ": cannot create the directory: ", error.message()));
  const double now = std::chrono::duration<double>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  auto events = std::unique_ptr<EventFile>(new EventFile());
  events->path_ =
      absl::StrCat(directory, "/events.out.tfevents.",
                   static_cast<int64_t>(now), ".", host, ".", getpid());
  events->file_ = std::fopen(events->path_.c_str(), "wbe");
  if (events->file_ == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat(events->path_, ": cannot create: ", std::strerror(errno)));
  if (absl::Status status = events->Append(
          field(1, now) + field(3, std::string("brain.Event:2")));
      !status.ok())
    return status;
  return events;
}

EventFile::~EventFile() {
  if (file_ != nullptr) std::fclose(file_);
}

absl::Status EventFile::Append(const std::string& event) {
  const std::string length = littleEndian(static_cast<uint64_t>(event.size()));
  const std::string record =
      absl::StrCat(length, littleEndian(masked(crc32c(length))), event,
                   littleEndian(masked(crc32c(event))));
  if (std::fwrite(record.data(), 1, record.size(), file_) == record.size() &&
      std::fflush(file_) == 0)
    return absl::OkStatus();
  const std::string message =
      absl::StrCat(path_, ": cannot write: ", std::strerror(errno));
  return errno == ENOSPC ? absl::ResourceExhaustedError(absl::StrCat(
                               message, "; free some space or write elsewhere"))
                         : absl::InvalidArgumentError(message);
}

absl::Status EventFile::Write(
    int64_t step, double wall_time,
    const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += field(1, field(1, tag) + field(2, static_cast<float>(value)));
  return Append(field(1, wall_time) + field(2, step) + field(5, summary));
}

}  // namespace heddle::run
