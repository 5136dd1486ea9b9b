// Files that lie are refused with the tensor's name; what is written reads back
// the same.

#include "runtime/safetensors/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace heddle::safetensors {
namespace {

std::string Bytes(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i)
    bytes[static_cast<size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

absl::StatusOr<Header> ParseText(const std::string& bytes) {
  return Parse(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
               "f");
}

TEST(SafetensorsTest, WritesWhatItReads) {
  const std::string path = ::testing::TempDir() + "/round.safetensors";
  const std::vector<float> a{1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> b{7};
  ASSERT_TRUE(
      Write(path,
            {{"a",
              {"F32", {2, 3}, reinterpret_cast<const uint8_t*>(a.data()), 24}},
             {"b", {"BOOL", {}, b.data(), 1}},
             {"empty", {"I64", {0, 4}, nullptr, 0}}},
            {{"format", "pt"}})
          .ok());
  const auto file = File::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  EXPECT_EQ((*file)->tensors().at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp((*file)->tensors().at("a").data, a.data(), 24), 0);
  EXPECT_EQ((*file)->tensors().at("empty").bytes, 0u);
}

TEST(SafetensorsTest, RefusesHeadersThatLie) {
  const std::pair<std::string, const char*> kCases[] = {
      {"", "too few"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8), "claims"},
      {Bytes("[]", ""), "not a JSON object"},
      {Bytes("{", ""), "not a JSON object"},
      {Bytes(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           "12345678"),
       "'a' twice"},
      {Bytes(R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})",
             "12345678"),
       "unknown dtype"},
      {Bytes(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
             "12345678"),
       "takes 12 bytes, and claims 8"},
      {Bytes(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
             "12345678"),
       "something else than a size"},
      {Bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
             "1234"),
       "cut short"},
      {Bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
             "123456789"),
       "something behind"},
      {Bytes(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "123"),
       "overlap"},
      {Bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}})", "12"),
       "claims bytes"},
      {Bytes(
           R"({"a":{"dtype":"F64","shape":[9223372036854775807,16],"data_offsets":[0,0]}})",
           ""),
       "more bytes"},
      {Bytes(R"({"a":{"dtype":"F32","shape":[2]}})", ""), "lacks"},
      {Bytes(R"({"__metadata__":3})", ""), "__metadata__"},
  };
  for (const auto& [bytes, text] : kCases) {
    const absl::Status status = ParseText(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << "wanted '" << text << "' in: " << status;
  }
}

TEST(SafetensorsTest, DeepNestingIsRefusedWithoutRecursion) {
  EXPECT_FALSE(
      ParseText(Bytes(R"({"a":)" + std::string(1000000, '['), "")).ok());
}

TEST(SafetensorsTest, DamagedBytesNeverCrash) {
  const std::string good = Bytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      "12345678");
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 4 == 0) bytes.resize(random() % bytes.size());
    ParseText(bytes).status().IgnoreError();
  }
}

TEST(SafetensorsTest, AFullDiskIsNamedAndLeavesNoFile) {
  const std::vector<uint8_t> data(1 << 16);
  const absl::Status status = Write(
      "/dev/full", {{"a", {"U8", {1 << 16}, data.data(), data.size()}}}, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(SafetensorsTest, AFolderWithoutWeightsIsNamed) {
  const absl::Status status =
      Weights::Open(::testing::TempDir() + "/nothing").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace heddle::safetensors
