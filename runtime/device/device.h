// What a plan runs on: memory, streams of work and events between them.
// Invariant: work given to one stream runs in the order it was given; Wait
// makes later work of the stream start after the event's last Record before it.
// What would break it: calling Record and Wait on one event from threads that
// do not agree on which comes first; the executor issues both from one thread.

#ifndef HEDDLE_RUNTIME_DEVICE_DEVICE_H_
#define HEDDLE_RUNTIME_DEVICE_DEVICE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace heddle::device {

class Event {
 public:
  virtual ~Event() = default;
};

class Stream {
 public:
  virtual ~Stream() = default;
  // Adds work. On the CPU it runs on the stream's thread, on CUDA it is called
  // at once and enqueues on native().
  virtual void Enqueue(std::function<void()> work) = 0;
  virtual void Record(Event& event) = 0;
  virtual void Wait(Event& event) = 0;
  // Returns when all work given so far is done.
  [[nodiscard]] virtual absl::Status Synchronize() = 0;
  // The first failure of a Record or Wait so far, without waiting for anything.
  [[nodiscard]] virtual absl::Status Failure() { return absl::OkStatus(); }
  // cudaStream_t on CUDA, nullptr on the CPU.
  virtual void* native() { return nullptr; }
};

// Work that was captured once and is given to a stream as a whole. What its
// launches read and write are the addresses of the capture.
class Graph {
 public:
  virtual ~Graph() = default;
  [[nodiscard]] virtual absl::Status Launch(Stream& stream) = 0;
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  // 256-byte aligned, zero-filled memory; ResourceExhausted names the bytes
  // that were asked for. 0 bytes give a valid address.
  [[nodiscard]] virtual absl::StatusOr<void*> Allocate(
      size_t bytes, const std::string& what) = 0;
  virtual void Free(void* address) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* target() const = 0;
  // The product's name ("NVIDIA H200") where there is one.
  virtual std::string name() const { return target(); }
  virtual Allocator& allocator() = 0;
  // Bytes of the device that are taken, whoever has them and for what; 0 where
  // the device does not count.
  virtual uint64_t used_bytes() const { return 0; }
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream(
      const std::string& name) = 0;
  virtual absl::StatusOr<std::unique_ptr<Event>> CreateEvent() = 0;
  // Blocking copies between device memory and ordinary host memory.
  [[nodiscard]] virtual absl::Status CopyToHost(void* host, const void* device,
                                                size_t bytes) = 0;
  [[nodiscard]] virtual absl::Status CopyFromHost(void* device,
                                                  const void* host,
                                                  size_t bytes) = 0;
  // Waits for everything the process has given the device, on any stream.
  [[nodiscard]] virtual absl::Status Synchronize() { return absl::OkStatus(); }
  // True if work has an order of its own once it is enqueued and its failures
  // come out of enqueueing, so that nobody has to wait for it.
  virtual bool asynchronous() const { return false; }
  // A stream that somebody else owns; nullptr where streams have no native one.
  virtual std::unique_ptr<Stream> Borrow(void*) { return nullptr; }
  // From here to EndCapture, work given to `stream` and to streams that wait
  // for its events is recorded and not run. The calling thread must neither
  // allocate device memory nor wait for the device in between.
  [[nodiscard]] virtual absl::Status BeginCapture(Stream&) {
    return absl::UnimplementedError(
        absl::StrCat("device ", target(), " has no graphs"));
  }
  // Ends the capture whatever happened in it. `previous`, a graph of the same
  // work, takes the new launches' arguments where its nodes are the same.
  virtual absl::StatusOr<std::unique_ptr<Graph>> EndCapture(
      Stream&, std::unique_ptr<Graph>) {
    return absl::UnimplementedError(
        absl::StrCat("device ", target(), " has no graphs"));
  }
};

// Memory that is given back when the owner goes.
class Allocation {
 public:
  Allocation() = default;
  Allocation(Allocator* allocator, void* address)
      : allocator_(allocator), address_(address) {}
  Allocation(Allocation&& other) noexcept { *this = std::move(other); }
  Allocation& operator=(Allocation&& other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(address_, other.address_);
    return *this;
  }
  ~Allocation() {
    if (allocator_ != nullptr) allocator_->Free(address_);
  }
  void* address() const { return address_; }

 private:
  Allocator* allocator_ = nullptr;
  void* address_ = nullptr;
};

}  // namespace heddle::device

#endif  // HEDDLE_RUNTIME_DEVICE_DEVICE_H_
