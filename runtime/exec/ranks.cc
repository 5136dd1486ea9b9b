// Each rank's thread waits for the number of a run to grow and does its part.

#include "runtime/exec/ranks.h"

#include <cfenv>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"

namespace heddle::exec {

class RankGroup::Threads {
 public:
  explicit Threads(int size) {
    for (int rank = 0; rank < size; ++rank)
      threads_.emplace_back([this, rank] { Loop(rank); });
  }
  ~Threads() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // Calls `work` on every thread and returns when it has returned on each.
  void Run(const std::function<void(int)>& work) {
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = &work;
    std::fegetenv(&environment_);
    running_ = threads_.size();
    ++run_;
    changed_.notify_all();
    done_.wait(lock, [&] { return running_ == 0; });
    work_ = nullptr;
  }

 private:
  void Loop(int rank) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || run_ != seen; });
      if (run_ == seen) return;
      seen = run_;
      const std::function<void(int)>& work = *work_;
      std::fesetenv(&environment_);
      lock.unlock();
      work(rank);
      lock.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable done_;
  const std::function<void(int)>* work_ = nullptr;
  std::fenv_t environment_;
  uint64_t run_ = 0;
  size_t running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

RankGroup::RankGroup(int size) : size_(size), world_(size) {
  for (int rank = 0; rank < size; ++rank)
    backends_.push_back(world_.RankBackend(rank));
  if (size > 1) threads_ = std::make_unique<Threads>(size);
}

RankGroup::~RankGroup() = default;

absl::Status RankGroup::Run(const Work& work, bool meet) {
  if (!broken_.ok())
    return absl::FailedPreconditionError(
        absl::StrCat("an earlier run failed and ended the ranks' collectives; "
                     "load the plan again (",
                     broken_.message(), ")"));
  absl::Status first;
  if (threads_ == nullptr) {
    first = work(0);
  } else {
    std::mutex mutex;
    threads_->Run([&](int rank) {
      const absl::Status status = work(rank);
      if (status.ok()) return;
      std::lock_guard<std::mutex> lock(mutex);
      // What the others report from now on is that this one is gone.
      if (!first.ok()) return;
      first = absl::Status(status.code(),
                           absl::StrCat("rank ", rank, ": ", status.message()));
      if (meet) world_.Abort(first);
    });
  }
  if (meet && !first.ok()) broken_ = first;
  return first;
}

}  // namespace heddle::exec
