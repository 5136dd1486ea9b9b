// The sidecar reader refuses headers that lie.
#include "passes/emit/sidecar.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "gtest/gtest.h"

namespace heddle {
namespace {

std::string errorFor(const std::string& header, const std::string& data,
                     Sidecar& sidecar, int64_t claimed = -1) {
  const std::string path =
      std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR")
                                             : ".") +
      "/sidecar.safetensors";
  uint64_t size = claimed < 0 ? header.size() : static_cast<uint64_t>(claimed);
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << header << data;
  file.close();
  return readSidecar(path, sidecar);
}

TEST(ReadSidecar, ReturnsWhatTheFileHolds) {
  Sidecar sidecar;
  EXPECT_EQ(
      errorFor(
          R"({"__metadata__":{"a":"b"},"c":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          "abcdefgh", sidecar),
      "");
  ASSERT_EQ(sidecar.size(), 1u);
  EXPECT_EQ(sidecar["c"].data, "abcdefgh");
  EXPECT_EQ(sidecar["c"].shape, std::vector<int64_t>({2}));
}

TEST(ReadSidecar, NamesWhatIsWrong) {
  const struct {
    const char *header, *data, *error;
    int64_t claimed;
  } cases[] = {
      {"{}", "", "claims a header of 999 bytes", 999},
      {"[1]", "", "not a JSON object", -1},
      {"{", "", "not a JSON object", -1},
      {R"({"c":{"dtype":"F32","shape":[2]}})", "abcdefgh",
       "without dtype, shape or data_offsets", -1},
      {R"({"c":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", "abcdefgh",
       "unknown dtype 'F31'", -1},
      {R"({"c":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "abcdefgh",
       "no reasonable number", -1},
      {R"({"c":{"dtype":"F32","shape":[1000000000000,1000000000000],"data_offsets":[0,8]}})",
       "abcdefgh", "more bytes than fit", -1},
      {R"({"c":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}})", "abcdefgh",
       "beyond the file's 8 data bytes", -1},
      {R"({"c":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "abcdefgh",
       "beyond the file's", -1},
      {R"({"c":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "abcdefgh",
       "its shape needs 4", -1},
  };
  for (const auto& each : cases) {
    Sidecar sidecar;
    EXPECT_NE(errorFor(each.header, each.data, sidecar, each.claimed)
                  .find(each.error),
              std::string::npos)
        << each.header;
  }
}

TEST(ReadSidecar, NamesAMissingFile) {
  Sidecar sidecar;
  EXPECT_NE(readSidecar("no/such/file", sidecar)
                .find("cannot open the sidecar 'no/such/file'"),
            std::string::npos);
}

}  // namespace
}  // namespace heddle
