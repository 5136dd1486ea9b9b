// The reader. Everything a header says is checked against the file before
// anybody uses it.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/safetensors/safetensors.h"

namespace heddle::safetensors {
namespace {

using Json = nlohmann::json;

// The format's own limit.
constexpr uint64_t kMaxHeader = 100'000'000;

struct DTypeSize {
  const char* name;
  uint64_t bytes;
};
constexpr DTypeSize kDTypes[] = {
    {"BOOL", 1},    {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1},
    {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
    {"BF16", 2},    {"I32", 4}, {"U32", 4}, {"F32", 4},
    {"I64", 8},     {"U64", 8}, {"F64", 8}, {"C64", 8}};

// Parses JSON, refusing a key that occurs twice in one object (the later would
// silently win).
absl::StatusOr<Json> ParseHeader(const char* begin, const char* end,
                                 const std::string& name) {
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  bool too_deep = false;
  const auto callback = [&](int depth, Json::parse_event_t event,
                            Json& parsed) {
    if (depth > 8) too_deep = true;
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second)
      duplicate = parsed.get<std::string>();
    return !too_deep;
  };
  Json header = Json::parse(begin, end, callback, /*allow_exceptions=*/false);
  if (too_deep)
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": the header nests deeper than any safetensors header"));
  if (header.is_discarded() || !header.is_object())
    return absl::InvalidArgumentError(
        absl::StrCat(name,
                     ": the header is not a JSON object; the file is damaged "
                     "or not safetensors"));
  if (!duplicate.empty())
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": the header has '", duplicate, "' twice"));
  return header;
}

struct Entry {
  std::string name;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::Status ReadTensor(const std::string& key, const Json& json,
                        const std::string& name, uint64_t data_bytes,
                        Tensor* tensor, Entry* entry) {
  const auto fail = [&](const std::string& why) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": tensor '", key, "' ", why));
  };
  if (!json.is_object() || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets"))
    return fail("lacks dtype, shape or data_offsets");
  if (!json["dtype"].is_string())
    return fail("has a dtype that is not a string");
  tensor->dtype = json["dtype"].get<std::string>();
  const uint64_t element = ElementSize(tensor->dtype);
  if (element == 0)
    return fail(absl::StrCat("has unknown dtype '", tensor->dtype, "'"));
  if (!json["shape"].is_array()) return fail("has a shape that is not a list");
  uint64_t expected = element;
  for (const Json& size : json["shape"]) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX)
      return fail("has a shape with something else than a size in it");
    tensor->shape.push_back(static_cast<int64_t>(size.get<uint64_t>()));
    if (__builtin_mul_overflow(expected, size.get<uint64_t>(), &expected))
      return fail("has more bytes than can be counted");
  }
  const Json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 ||
      !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
    return fail("has data_offsets that are not two offsets");
  entry->name = key;
  entry->begin = offsets[0].get<uint64_t>();
  entry->end = offsets[1].get<uint64_t>();
  if (entry->begin > entry->end || entry->end > data_bytes) {
    return fail(absl::StrCat("claims bytes ", entry->begin, " to ", entry->end,
                             " of ", data_bytes,
                             "; the file is cut short or its header lies"));
  }
  if (entry->end - entry->begin != expected)
    return fail(absl::StrCat("is ", ShapeText(*tensor), ", which takes ",
                             expected, " bytes, and claims ",
                             entry->end - entry->begin));
  tensor->bytes = expected;
  return absl::OkStatus();
}

absl::Status SystemError(const std::string& path, const char* what) {
  const std::string message =
      absl::StrCat(path, ": ", what, ": ", std::strerror(errno));
  return errno == ENOENT ? absl::NotFoundError(message)
                         : absl::InvalidArgumentError(message);
}

}  // namespace

uint64_t ElementSize(const std::string& dtype) {
  for (const DTypeSize& known : kDTypes) {
    if (dtype == known.name) return known.bytes;
  }
  return 0;
}

std::string ShapeText(const Tensor& tensor) {
  return absl::StrCat(tensor.dtype, "[", absl::StrJoin(tensor.shape, ", "),
                      "]");
}

absl::StatusOr<Header> Parse(const uint8_t* data, size_t size,
                             const std::string& name) {
  if (size < 8)
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": ", size,
        " bytes are too few for a safetensors file; it is cut short"));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | data[i];
  if (header_bytes > kMaxHeader || header_bytes > size - 8)
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": the header claims ", header_bytes, " bytes and the file has ",
        size - 8, "; it is cut short or not safetensors"));
  const char* text = reinterpret_cast<const char*>(data) + 8;
  absl::StatusOr<Json> json = ParseHeader(text, text + header_bytes, name);
  if (!json.ok()) return json.status();
  const uint64_t data_bytes = size - 8 - header_bytes;
  Header header;
  std::vector<Entry> entries;
  for (const auto& [key, value] : json->items()) {
    if (key == "__metadata__") {
      if (!value.is_object())
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": __metadata__ is not an object"));
      for (const auto& [k, v] : value.items()) {
        if (!v.is_string())
          return absl::InvalidArgumentError(
              absl::StrCat(name, ": __metadata__ '", k, "' is not a string"));
        header.metadata[k] = v.get<std::string>();
      }
      continue;
    }
    Tensor tensor;
    Entry entry;
    if (absl::Status status =
            ReadTensor(key, value, name, data_bytes, &tensor, &entry);
        !status.ok())
      return status;
    tensor.data = data + 8 + header_bytes + entry.begin;
    header.tensors[key] = std::move(tensor);
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at)
      return absl::InvalidArgumentError(absl::StrCat(
          name, ": tensor '", entry.name, "' begins at byte ", entry.begin,
          " where ", at, " was expected; tensors overlap or leave a gap"));
    at = entry.end;
  }
  if (at != data_bytes)
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": the tensors take ", at, " bytes and the file has ", data_bytes,
        "; it is cut short or has something behind them"));
  return header;
}

absl::StatusOr<std::unique_ptr<File>> File::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(path, "cannot open");
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file"));
  }
  auto file = std::unique_ptr<File>(new File());
  file->size_ = static_cast<size_t>(info.st_size);
  if (file->size_ > 0) {
    file->mapping_ = mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file->mapping_ == MAP_FAILED) {
      file->mapping_ = nullptr;
      const absl::Status status = SystemError(path, "cannot map");
      close(fd);
      return status;
    }
  }
  close(fd);
  absl::StatusOr<Header> header =
      Parse(static_cast<const uint8_t*>(file->mapping_), file->size_, path);
  if (!header.ok()) return header.status();
  file->header_ = *std::move(header);
  return file;
}

File::~File() {
  if (mapping_ != nullptr) munmap(mapping_, size_);
}

absl::StatusOr<Weights> Weights::Open(const std::string& directory) {
  Weights weights;
  const std::string index_path = directory + "/model.safetensors.index.json";
  std::vector<std::string> shards;
  std::map<std::string, std::string> promised;
  if (access(index_path.c_str(), R_OK) == 0) {
    const int fd = open(index_path.c_str(), O_RDONLY | O_CLOEXEC);
    std::string text;
    char block[1 << 16];
    for (ssize_t n; fd >= 0 && (n = read(fd, block, sizeof(block))) > 0;)
      text.append(block, static_cast<size_t>(n));
    if (fd >= 0) close(fd);
    absl::StatusOr<Json> index =
        ParseHeader(text.data(), text.data() + text.size(), index_path);
    if (!index.ok()) return index.status();
    if (!index->contains("weight_map") || !(*index)["weight_map"].is_object())
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": there is no weight_map"));
    std::set<std::string> names;
    for (const auto& [tensor, shard] : (*index)["weight_map"].items()) {
      if (!shard.is_string() ||
          shard.get<std::string>().find('/') != std::string::npos)
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": '", tensor,
                         "' does not name a file beside the index"));
      names.insert(shard.get<std::string>());
      promised[tensor] = shard.get<std::string>();
    }
    shards.assign(names.begin(), names.end());
  } else {
    const std::string single = directory + "/model.safetensors";
    if (access(single.c_str(), R_OK) != 0)
      return absl::NotFoundError(
          absl::StrCat(directory,
                       ": there is neither model.safetensors nor "
                       "model.safetensors.index.json; save the model with "
                       "save_pretrained(safe_serialization=True)"));
    shards.push_back("model.safetensors");
  }
  for (const std::string& shard : shards) {
    absl::StatusOr<std::unique_ptr<File>> file =
        File::Open(directory + "/" + shard);
    if (!file.ok()) return file.status();
    for (const auto& [name, tensor] : (*file)->tensors()) {
      if (!weights.tensors_.emplace(name, tensor).second)
        return absl::InvalidArgumentError(absl::StrCat(
            directory, ": tensor '", name, "' lies in two shards"));
    }
    weights.files_.push_back(*std::move(file));
  }
  for (const auto& [tensor, shard] : promised) {
    if (weights.tensors_.count(tensor) == 0)
      return absl::InvalidArgumentError(
          absl::StrCat(directory, "/", shard, ": the index promises tensor '",
                       tensor, "', which is not in it"));
  }
  return weights;
}

const Tensor* Weights::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace heddle::safetensors
