// Each rank's thread takes the newest job and does its part. A thread shares
// nothing with the group but that job's slot, so that a group can go while one
// of its threads does not come back.

#include "runtime/exec/ranks.h"

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace heddle::exec {
namespace {

// Work is LibTorch's too; an exception that left a thread would end the
// process.
absl::Status Guarded(const RankGroup::Work& work, int rank) {
  try {
    return work(rank);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("an exception: ", e.what()));
  } catch (...) {
    return absl::InternalError("an exception of no known kind");
  }
}

absl::Status OfRank(int rank, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("rank ", rank, ": ", status.message()));
}

}  // namespace

class RankGroup::Threads {
 public:
  explicit Threads(int size) : shared_(std::make_shared<Shared>()) {
    for (int rank = 0; rank < size; ++rank)
      threads_.emplace_back([shared = shared_, rank] { Loop(*shared, rank); });
  }
  ~Threads() {
    {
      std::lock_guard<std::mutex> lock(shared_->mutex);
      shared_->stopping = true;
    }
    shared_->changed.notify_all();
    for (std::thread& thread : threads_)
      left_behind_ ? thread.detach() : thread.join();
  }

  // Calls `work` on every thread and returns true when it has returned on each.
  // Once `patience`, asked after a call that has failed, is over: false.
  bool Run(std::function<bool(int)> work,
           const std::function<absl::Duration()>& patience) {
    auto job = std::make_shared<Job>();
    job->work = std::move(work);
    std::fegetenv(&job->environment);
    std::unique_lock<std::mutex> lock(shared_->mutex);
    job->running = threads_.size();
    shared_->job = job;
    ++shared_->number;
    shared_->changed.notify_all();
    shared_->done.wait(lock, [&] { return job->running == 0 || job->failed; });
    if (job->running > 0) {
      lock.unlock();
      const absl::Duration rest = patience();
      lock.lock();
      shared_->done.wait_for(lock, absl::ToChronoNanoseconds(rest),
                             [&] { return job->running == 0; });
    }
    // What the work keeps alive goes here and not on a thread of its own time,
    // unless one of them is still in it.
    left_behind_ = job->left_behind = job->running > 0;
    if (!left_behind_) job->work = nullptr;
    return !left_behind_;
  }

 private:
  struct Job {
    std::function<bool(int)> work;
    std::fenv_t environment;
    size_t running = 0;
    bool failed = false;
    bool left_behind = false;
  };
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::condition_variable done;
    std::shared_ptr<Job> job;
    uint64_t number = 0;
    bool stopping = false;
  };

  static void Loop(Shared& shared, int rank) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(shared.mutex);
    for (;;) {
      shared.changed.wait(
          lock, [&] { return shared.stopping || shared.number != seen; });
      if (shared.number == seen) return;
      seen = shared.number;
      std::shared_ptr<Job> job = shared.job;
      std::fesetenv(&job->environment);
      lock.unlock();
      const bool well = job->work(rank);
      lock.lock();
      job->failed |= !well;
      if (--job->running == 0 || job->failed) shared.done.notify_all();
      if (job->running > 0 || !job->left_behind) continue;
      lock.unlock();
      job->work = nullptr;
      lock.lock();
    }
  }

  const std::shared_ptr<Shared> shared_;
  bool left_behind_ = false;
  std::vector<std::thread> threads_;
};

RankGroup::RankGroup(int size, int first, int local, comm::WorldOptions options)
    : size_(size),
      first_(first),
      local_(local),
      options_(std::move(options)),
      meeting_(std::make_shared<Meeting>(size)) {}

RankGroup::~RankGroup() = default;

std::shared_ptr<RankGroup> RankGroup::OfThreads(int size,
                                                comm::WorldOptions options) {
  auto group = std::shared_ptr<RankGroup>(
      new RankGroup(size, 0, size, std::move(options)));
  if (size > 1) group->threads_ = std::make_unique<Threads>(size);
  return group;
}

std::shared_ptr<RankGroup> RankGroup::OfProcess(
    std::shared_ptr<comm::World> world) {
  auto group = std::shared_ptr<RankGroup>(
      new RankGroup(world->size(), world->rank(), 1, {}));
  group->meeting_->worlds[world->rank()] = std::move(world);
  return group;
}

absl::StatusOr<std::shared_ptr<comm::World>> RankGroup::World(int rank) {
  std::lock_guard<std::mutex> lock(meeting_->mutex);
  std::shared_ptr<comm::World>& world = meeting_->worlds[rank];
  if (world != nullptr) return world;
  comm::WorldOptions options = options_;
  // The others look at once instead of when their watchdogs come by.
  options.on_raise = [weak = std::weak_ptr<Meeting>(meeting_)] {
    const std::shared_ptr<Meeting> meeting = weak.lock();
    if (meeting == nullptr) return;
    std::lock_guard<std::mutex> lock(meeting->mutex);
    for (const auto& world : meeting->worlds) {
      if (world != nullptr) world->Wake();
    }
  };
  absl::StatusOr<std::unique_ptr<comm::World>> made = comm::World::Create(
      rank, size_, meeting_->store,
      [&](trace::FlightRecorder* recorder)
          -> absl::StatusOr<std::unique_ptr<comm::Backend>> {
        return meeting_->loopback.RankBackend(rank, recorder);
      },
      std::move(options));
  if (!made.ok()) return made.status();
  world = *std::move(made);
  return world;
}

// A rank that is in a long operation when another one fails gets what is left
// of the deadline to come back.
absl::Duration RankGroup::Patience() const {
  absl::Duration rest = std::min(options_.deadline / 16, absl::Seconds(1));
  for (const auto& world : meeting_->worlds) {
    if (world == nullptr) continue;
    const absl::Duration idle =
        absl::FromChrono(trace::FlightRecorder::Clock::now() -
                         world->recorder().last_progress());
    rest = std::max(rest, options_.deadline - idle);
  }
  return rest;
}

absl::Status RankGroup::RunThreads(const Work& work, bool meet) {
  struct First {
    std::mutex mutex;
    absl::Status status;
  };
  auto first = std::make_shared<First>();
  const bool all = threads_->Run(
      [work, meet, first, meeting = meeting_](int rank) {
        absl::Status status = Guarded(work, rank);
        if (status.ok()) return true;
        if (meet && meeting->worlds[rank] != nullptr) {
          status = meeting->worlds[rank]->Fail(status);
        } else {
          status = OfRank(rank, status);
        }
        std::lock_guard<std::mutex> lock(first->mutex);
        if (first->status.ok()) first->status = status;
        return !meet;
      },
      [this] { return Patience(); });
  stalled_ = !all;
  std::lock_guard<std::mutex> lock(first->mutex);
  return first->status;
}

absl::Status RankGroup::Run(const Work& work, bool meet) {
  if (!broken_.ok())
    return absl::FailedPreconditionError(
        absl::StrCat("an earlier run failed and ended the ranks' collectives; "
                     "load the plan again (",
                     broken_.message(), ")"));
  absl::Status status;
  if (threads_ != nullptr) {
    status = RunThreads(work, meet);
  } else {
    status = Guarded(work, first_);
    if (!status.ok() && meet && size_ > 1)
      status = meeting_->worlds[first_]->Fail(status);
  }
  if (meet && !status.ok()) broken_ = status;
  return status;
}

}  // namespace heddle::exec
