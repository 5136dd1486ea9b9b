// Host streams are real threads, so that the races a plan has on a GPU are
// races here too. An event counts its records: Wait captures the count at the
// call and blocks the stream's thread until that many have happened, which is
// CUDA's meaning of "the last record before the wait" and lets events be reused
// run after run.

#include "runtime/device/cpu.h"

#include <sys/mman.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::device {
namespace {

class CpuEvent : public Event {
 public:
  uint64_t Announce() {
    std::lock_guard<std::mutex> lock(mutex_);
    return ++announced_;
  }
  uint64_t Announced() {
    std::lock_guard<std::mutex> lock(mutex_);
    return announced_;
  }
  void Complete(uint64_t ticket) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (ticket > completed_) completed_ = ticket;
    }
    changed_.notify_all();
  }
  void Await(uint64_t ticket) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return completed_ >= ticket; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t announced_ = 0;
  uint64_t completed_ = 0;
};

class CpuStream : public Stream {
 public:
  CpuStream() : thread_([this] { Loop(); }) {}
  ~CpuStream() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void Enqueue(std::function<void()> work) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(std::move(work));
    }
    changed_.notify_all();
  }
  void Record(Event& event) override {
    auto* e = static_cast<CpuEvent*>(&event);
    const uint64_t ticket = e->Announce();
    Enqueue([e, ticket] { e->Complete(ticket); });
  }
  void Wait(Event& event) override {
    auto* e = static_cast<CpuEvent*>(&event);
    const uint64_t ticket = e->Announced();
    Enqueue([e, ticket] { e->Await(ticket); });
  }
  absl::Status Synchronize() override {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [&] { return queue_.empty() && !busy_; });
    return absl::OkStatus();
  }

 private:
  void Loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
      busy_ = false;
      if (queue_.empty()) idle_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable idle_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool stopping_ = false;
  // Last, so that everything it uses exists before it starts.
  std::thread thread_;
};

// Anonymous mappings are zero-filled, page-aligned and cost nothing until
// touched, which is what an arena wants.
class CpuAllocator : public Allocator {
 public:
  absl::StatusOr<void*> Allocate(size_t bytes,
                                 const std::string& what) override {
    const size_t mapped = bytes == 0 ? 1 : bytes;
    void* address = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
      return absl::ResourceExhaustedError(absl::StrCat(
          "cannot reserve ", bytes, " bytes of host memory for the ", what));
    std::lock_guard<std::mutex> lock(mutex_);
    sizes_[address] = mapped;
    return address;
  }
  void Free(void* address) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = sizes_.find(address);
    if (it == sizes_.end()) return;
    munmap(address, it->second);
    sizes_.erase(it);
  }

 private:
  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;
};

class CpuDevice : public Device {
 public:
  const char* target() const override { return "cpu"; }
  Allocator& allocator() override { return allocator_; }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(
      const std::string&) override {
    return std::unique_ptr<Stream>(new CpuStream());
  }
  absl::StatusOr<std::unique_ptr<Event>> CreateEvent() override {
    return std::unique_ptr<Event>(new CpuEvent());
  }
  absl::Status CopyToHost(void* host, const void* device,
                          size_t bytes) override {
    std::memcpy(host, device, bytes);
    return absl::OkStatus();
  }
  absl::Status CopyFromHost(void* device, const void* host,
                            size_t bytes) override {
    std::memcpy(device, host, bytes);
    return absl::OkStatus();
  }

 private:
  CpuAllocator allocator_;
};

}  // namespace

std::unique_ptr<Device> CreateCpuDevice() {
  return std::make_unique<CpuDevice>();
}

}  // namespace heddle::device
