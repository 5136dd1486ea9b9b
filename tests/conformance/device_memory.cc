// A fake device's memory for the host backends.
#include <sys/mman.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/device/host_access.h"
#include "tests/conformance/conformance.h"

namespace heddle::comm::conformance {
namespace {

// A page that only the "gpu" reads.
class GpuPage {
 public:
  GpuPage() {
    device::AddMemoryProbe(&Probe);
    page_ =
        mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(page_, MAP_FAILED);
  }
  ~GpuPage() {
    munmap(page_, kBytes);
    page_ = nullptr;
  }
  float* data() { return static_cast<float*>(page_); }
  int64_t* counts() { return static_cast<int64_t*>(page_); }

 private:
  static constexpr size_t kBytes = 4096;
  static const char* Probe(const void* address) {
    const char* page = static_cast<const char*>(page_);
    return page != nullptr && address >= page && address < page + kBytes
               ? "gpu"
               : nullptr;
  }
  static inline void* page_ = nullptr;
};

class GpuStream : public device::Stream {
 public:
  void Enqueue(std::function<void()> work) override { work(); }
  void Record(device::Event&) override {}
  void Wait(device::Event&) override {}
  absl::Status Synchronize() override { return absl::OkStatus(); }
  void* native() override { return this; }
};

}  // namespace

void ExpectRefusesDeviceMemory(Backend& backend) {
  GpuPage gpu;
  GpuStream stream;
  auto comm = backend.Connect(*MakeGroup("dp", {0}, 0));
  ASSERT_TRUE(comm.ok()) << comm.status();
  float host[16] = {1, 2, 3, 4}, out[16] = {};
  int64_t counts[] = {4};
  const auto refused = [&](const Collective& c, const std::string& part) {
    const absl::Status status = (*comm)->Issue(c, nullptr);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(std::string(status.message())
                  .find(absl::StrCat("of group dp runs on the host and its ",
                                     part, " in memory of gpu")),
              std::string::npos)
        << status;
  };
  refused(AllReduce(gpu.data(), out, 4, plan::DType::kF32), "input is");
  refused(AllGather(host, gpu.data(), 4, plan::DType::kF32), "output is");
  refused(ReduceScatter(host, gpu.data() + 1000, 4, plan::DType::kF32),
          "output is");
  Collective counted = AllToAll(host, out, 4, plan::DType::kF32);
  counted.device_send_counts = gpu.counts();
  counted.device_recv_counts = counts;
  refused(counted, "send counts are");
  std::swap(counted.device_recv_counts,
            const_cast<int64_t*&>(counted.device_send_counts));
  refused(counted, "receive counts are");
  const Collective good = AllReduce(host, out, 4, plan::DType::kF32);
  EXPECT_NE(std::string((*comm)->Issue(good, &stream).message())
                .find("was given a GPU's stream"),
            std::string::npos);
  EXPECT_EQ(out[3], 0);
  EXPECT_TRUE((*comm)->Issue(good, nullptr).ok());
  EXPECT_EQ(out[3], 4);
}

}  // namespace heddle::comm::conformance
