#include "runtime/device/delayed.h"

#include <atomic>
#include <random>
#include <thread>
#include <utility>

namespace heddle::device {
namespace {

class DelayedStream : public Stream {
 public:
  DelayedStream(std::unique_ptr<Stream> stream, uint64_t seed,
                std::chrono::microseconds longest)
      : stream_(std::move(stream)), random_(seed), longest_(longest.count()) {}
  void Enqueue(std::function<void()> work) override {
    Dawdle();
    stream_->Enqueue(std::move(work));
  }
  void Record(Event& event) override {
    Dawdle();
    stream_->Record(event);
  }
  void Wait(Event& event) override {
    Dawdle();
    stream_->Wait(event);
  }
  absl::Status Synchronize() override { return stream_->Synchronize(); }
  void* native() override { return stream_->native(); }

 private:
  void Dawdle() {
    const uint64_t drawn = random_();
    if (longest_ == 0 || drawn % 2 == 0) return;
    const std::chrono::microseconds time(
        static_cast<int64_t>((drawn >> 1) % (longest_ + 1)));
    stream_->Enqueue([time] { std::this_thread::sleep_for(time); });
  }

  const std::unique_ptr<Stream> stream_;
  std::mt19937_64 random_;
  const uint64_t longest_;
};

class DelayedDevice : public Device {
 public:
  DelayedDevice(std::unique_ptr<Device> device, uint64_t seed,
                std::chrono::microseconds longest)
      : device_(std::move(device)), seed_(seed), longest_(longest) {}
  const char* target() const override { return device_->target(); }
  Allocator& allocator() override { return device_->allocator(); }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(
      const std::string& name) override {
    absl::StatusOr<std::unique_ptr<Stream>> stream =
        device_->CreateStream(name);
    if (!stream.ok()) return stream;
    // A sequence of its own for every stream of every seed.
    std::seed_seq seeds{seed_ & 0xffffffff, seed_ >> 32, streams_++};
    uint32_t words[2];
    seeds.generate(words, words + 2);
    const uint64_t seed = uint64_t{words[0]} << 32 | words[1];
    return std::unique_ptr<Stream>(
        new DelayedStream(*std::move(stream), seed, longest_));
  }
  absl::StatusOr<std::unique_ptr<Event>> CreateEvent() override {
    return device_->CreateEvent();
  }
  absl::Status CopyToHost(void* host, const void* device,
                          size_t bytes) override {
    return device_->CopyToHost(host, device, bytes);
  }
  absl::Status CopyFromHost(void* device, const void* host,
                            size_t bytes) override {
    return device_->CopyFromHost(device, host, bytes);
  }
  absl::Status Synchronize() override { return device_->Synchronize(); }

 private:
  const std::unique_ptr<Device> device_;
  const uint64_t seed_;
  const std::chrono::microseconds longest_;
  std::atomic<uint64_t> streams_{0};
};

}  // namespace

std::unique_ptr<Device> CreateDelayedDevice(std::unique_ptr<Device> device,
                                            uint64_t seed,
                                            std::chrono::microseconds longest) {
  return std::make_unique<DelayedDevice>(std::move(device), seed, longest);
}

}  // namespace heddle::device
