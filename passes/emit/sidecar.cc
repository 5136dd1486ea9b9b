// Reads safetensors headers with suspicion: lengths and offsets come from a
// file. Trusting one of them before its check would read outside the buffer.
#include "passes/emit/sidecar.h"

#include <cstring>
#include <fstream>
#include <sstream>

#include "nlohmann/json.hpp"

namespace heddle {
namespace {

int64_t bytesOf(const std::string& dtype) {
  static const std::map<std::string, int64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"I16", 2},  {"F16", 2}, {"BF16", 2}, {"I32", 4},     {"F32", 4},
      {"I64", 8},  {"F64", 8}, {"C64", 8},  {"C128", 16}};
  auto it = sizes.find(dtype);
  return it == sizes.end() ? 0 : it->second;
}

}  // namespace

std::string readSidecar(const std::string& path, Sidecar& sidecar) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return "cannot open the sidecar '" + path + "': " + std::strerror(errno);
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string bytes = stream.str();
  const std::string where = "the sidecar '" + path + "' ";
  uint64_t headerBytes = 0;
  if (bytes.size() < sizeof(headerBytes))
    return where + "is no safetensors file: it has " +
           std::to_string(bytes.size()) + " bytes";
  std::memcpy(&headerBytes, bytes.data(), sizeof(headerBytes));
  if (headerBytes > bytes.size() - sizeof(headerBytes))
    return where + "claims a header of " + std::to_string(headerBytes) +
           " bytes in a file of " + std::to_string(bytes.size());
  const std::string data = bytes.substr(sizeof(headerBytes) + headerBytes);
  nlohmann::json header =
      nlohmann::json::parse(bytes.substr(sizeof(headerBytes), headerBytes),
                            nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return where + "has a header that is not a JSON object";
  for (auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::string which = where + "describes tensor '" + name + "' ";
    if (!entry.is_object() || !entry.contains("dtype") ||
        !entry["dtype"].is_string() || !entry.contains("shape") ||
        !entry["shape"].is_array() || !entry.contains("data_offsets") ||
        !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
      return which + "without dtype, shape or data_offsets";
    SidecarTensor tensor;
    tensor.dtype = entry["dtype"].get<std::string>();
    int64_t size = bytesOf(tensor.dtype);
    if (size == 0) return which + "with unknown dtype '" + tensor.dtype + "'";
    for (auto& d : entry["shape"]) {
      if (!d.is_number_unsigned() || d.get<uint64_t>() > (uint64_t{1} << 40))
        return which + "with a size that is no reasonable number";
      int64_t extent = d.get<int64_t>();
      if (__builtin_mul_overflow(size, extent, &size))
        return which + "with more bytes than fit 63 bits";
      tensor.shape.push_back(extent);
    }
    if (!entry["data_offsets"][0].is_number_unsigned() ||
        !entry["data_offsets"][1].is_number_unsigned())
      return which + "with offsets that are no numbers";
    uint64_t begin = entry["data_offsets"][0].get<uint64_t>(),
             end = entry["data_offsets"][1].get<uint64_t>();
    if (begin > end || end > data.size())
      return which + "beyond the file's " + std::to_string(data.size()) +
             " data bytes";
    if (end - begin != static_cast<uint64_t>(size))
      return which + "with " + std::to_string(end - begin) +
             " bytes, its shape needs " + std::to_string(size);
    tensor.data = data.substr(begin, end - begin);
    sidecar[name] = std::move(tensor);
  }
  return "";
}

}  // namespace heddle
