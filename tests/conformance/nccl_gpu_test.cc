// The real NCCL on the GPU that is there: a world of one rank runs every kind
// of collective and every dtype through libnccl. More ranks need more GPUs.
// Skipped without a GPU. HEDDLE_NCCL_FOLDER says where libnccl.so.2 lies if
// the loader does not know.

#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/nccl/nccl_communicator.h"
#include "runtime/device/cuda.h"

namespace heddle::comm {
namespace {

using plan::DType;

class NcclOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = device::CreateCudaDevice(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
    const char* folder = std::getenv("HEDDLE_NCCL_FOLDER");
    auto api =
        nccl::LoadNccl(folder == nullptr ? std::vector<std::string>{}
                                         : std::vector<std::string>{folder});
    ASSERT_TRUE(api.ok()) << api.status();
    stream_ = *device_->CreateStream("comm");
    recorder_ = std::make_unique<trace::FlightRecorder>(0, 1);
    backend_ = nccl::CreateNcclBackend(*api, CreateProcessStore(), 0,
                                       absl::Seconds(30), recorder_.get());
    auto comm = backend_->Connect(*MakeGroup("dp", {0}, 0));
    ASSERT_TRUE(comm.ok()) << comm.status();
    comm_ = *std::move(comm);
  }

  // What the output holds after `make(input, output)` ran.
  std::vector<char> Run(const std::vector<char>& data,
                        const std::function<Collective(void*, void*)>& make) {
    auto& allocator = device_->allocator();
    device::Allocation in(&allocator,
                          *allocator.Allocate(data.size(), "input"));
    device::Allocation out(&allocator,
                           *allocator.Allocate(data.size(), "output"));
    std::vector<char> result(data.size());
    EXPECT_TRUE(
        device_->CopyFromHost(in.address(), data.data(), data.size()).ok());
    const absl::Status status =
        comm_->Issue(make(in.address(), out.address()), stream_.get());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(stream_->Synchronize().ok());
    EXPECT_TRUE(comm_->status().ok()) << comm_->status();
    EXPECT_TRUE(
        device_->CopyToHost(result.data(), out.address(), data.size()).ok());
    return result;
  }

  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  std::unique_ptr<trace::FlightRecorder> recorder_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Communicator> comm_;
};

TEST_F(NcclOnGpu, EveryKindAndDtype) {
  constexpr int64_t kCount = 4097;
  int64_t ran = 0;
  for (int8_t t = 0; t <= static_cast<int8_t>(DType::kF8E5M2); ++t) {
    const DType dtype = static_cast<DType>(t);
    std::vector<char> data(kCount * plan::ElementSize(dtype));
    // Small in every dtype, and never a NaN.
    for (size_t i = 0; i < data.size(); ++i) data[i] = i % 2;
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return AllGather(in, out, kCount, dtype);
              }));
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return AllToAll(in, out, kCount, dtype);
              }));
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                Collective c = AllGather(in, out, 0, dtype);
                c.counts = {kCount};
                return c;
              }));
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return Broadcast(in, out, kCount, dtype, 0);
              }));
    ran += 4;
    const Collective reduced =
        AllReduce(data.data(), data.data(), kCount, dtype, Reduction::kMax);
    if (!Validate(reduced, comm_->group()).ok()) continue;
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return AllReduce(in, out, kCount, dtype, Reduction::kMax);
              }));
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return ReduceScatter(in, out, kCount, dtype, Reduction::kMax);
              }));
    EXPECT_EQ(data, Run(data, [&](void* in, void* out) {
                return Reduce(in, out, kCount, dtype, 0, Reduction::kMin);
              }));
    ran += 3;
  }
  comm_->Poll();
  EXPECT_FALSE(recorder_->pending());
  EXPECT_EQ(recorder_->Snapshot().groups[0].finished, ran);
}

TEST_F(NcclOnGpu, DeviceCountsTravelBesideTheData) {
  const std::vector<float> values = {1, 2, 3, 4};
  int64_t counts[2] = {3, -1};
  auto& allocator = device_->allocator();
  device::Allocation on_device(&allocator, *allocator.Allocate(16, "counts"));
  ASSERT_TRUE(device_->CopyFromHost(on_device.address(), counts, 16).ok());
  std::vector<char> data(16);
  std::memcpy(data.data(), values.data(), 16);
  const std::vector<char> got = Run(data, [&](void* in, void* out) {
    Collective c = AllToAll(in, out, 4, DType::kF32);
    c.device_send_counts = static_cast<int64_t*>(on_device.address());
    c.device_recv_counts = static_cast<int64_t*>(on_device.address()) + 1;
    return c;
  });
  EXPECT_EQ(std::memcmp(got.data(), values.data(), 3 * sizeof(float)), 0);
  ASSERT_TRUE(device_->CopyToHost(counts, on_device.address(), 16).ok());
  EXPECT_EQ(counts[1], 3);
}

TEST_F(NcclOnGpu, AbortEndsTheCommunicator) {
  comm_->Abort(absl::CancelledError("enough"));
  float x = 0;
  EXPECT_EQ(comm_->Issue(AllReduce(&x, &x, 1, DType::kF32), stream_.get()),
            absl::CancelledError("enough"));
}

}  // namespace
}  // namespace heddle::comm
