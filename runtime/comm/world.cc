#include "runtime/comm/world.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "runtime/trace/dump.h"

namespace heddle::comm {
namespace {

constexpr char kAbortKey[] = "abort";
constexpr char kVerdictKey[] = "verdict";
// Finished collectives that a posted dump holds: enough to see the order of
// the last ones, small enough for a store that serves many ranks.
constexpr size_t kPostedRecords = 64;
// How long a rank that gives no sign is waited for where the deadline allows.
constexpr absl::Duration kPatience = absl::Seconds(2);

std::string RankKey(const char* what, int rank) {
  return absl::StrCat(what, "/", rank);
}

// FNV-1a; it guards against mistakes, not against malice.
std::string HashOf(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char letter : text) hash = (hash ^ letter) * 0x100000001b3;
  return absl::StrCat(absl::Hex(hash, absl::kZeroPad16), ".", text.size());
}

// The first line in which two texts differ, said for two ranks.
std::string FirstDifference(int rank, const std::string& text,
                            const std::string& other_text) {
  const std::vector<std::string> own = absl::StrSplit(text, '\n');
  const std::vector<std::string> other = absl::StrSplit(other_text, '\n');
  size_t line = 0;
  while (line < own.size() && line < other.size() && own[line] == other[line])
    ++line;
  const auto at = [&](const std::vector<std::string>& lines) {
    return line < lines.size() ? absl::StrCat("'", lines[line], "'")
                               : std::string("nothing");
  };
  return absl::StrCat("rank ", rank, " would run something else than rank 0; ",
                      "the first difference is in line ", line + 1, ": ",
                      at(own), " on rank ", rank, ", ", at(other),
                      " on rank 0");
}

}  // namespace

void ExitProcess(const absl::Status& why) {
  std::fprintf(stderr, "heddle: error: %s\n",
               std::string(why.message()).c_str());
  std::fflush(nullptr);
  // Not exit(): destructors would wait for the very collectives that hang.
  _exit(2);
}

absl::Status FillFromEnvironment(const Environment& get,
                                 WorldOptions* options) {
  if (const char* text = get("HEDDLE_DEADLINE");
      text != nullptr && options->deadline == absl::ZeroDuration()) {
    double seconds = 0;
    if (!absl::SimpleAtod(text, &seconds) || !(seconds > 0) || seconds > 1e9)
      return absl::InvalidArgumentError(
          absl::StrCat("the environment variable HEDDLE_DEADLINE is '", text,
                       "', not a positive number of seconds"));
    options->deadline = absl::Seconds(seconds);
  }
  if (options->deadline == absl::ZeroDuration())
    options->deadline = WorldOptions().deadline;
  if (const char* folder = get("HEDDLE_DUMPS");
      folder != nullptr && options->dump_directory.empty())
    options->dump_directory = folder;
  return absl::OkStatus();
}

World::World(int rank, int size, std::shared_ptr<Store> store,
             WorldOptions options)
    : rank_(rank),
      size_(size),
      store_(std::move(store)),
      options_(std::move(options)),
      grace_(std::min(options_.deadline / 4, absl::Seconds(5))),
      tick_(std::max(absl::Milliseconds(5),
                     std::min(options_.deadline / 40, absl::Seconds(1)))),
      recorder_(rank, size, options_.records) {}

absl::StatusOr<std::unique_ptr<World>> World::Create(
    int rank, int size, std::shared_ptr<Store> store,
    const MakeBackend& make_backend, WorldOptions options) {
  if (size < 1 || rank < 0 || rank >= size)
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " in a world of ", size));
  if (options.deadline <= absl::ZeroDuration())
    return absl::InvalidArgumentError(
        absl::StrCat("a deadline of ", absl::FormatDuration(options.deadline),
                     "; it must be positive"));
  auto world = std::unique_ptr<World>(
      new World(rank, size, std::move(store), std::move(options)));
  absl::StatusOr<Backend*> backend = world->AddBackend(make_backend);
  if (!backend.ok()) return backend.status();
  world->watchdog_ = std::thread([w = world.get()] { w->Watch(); });
  return world;
}

World::~World() {
  Leave();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (watchdog_.joinable()) watchdog_.join();
}

absl::StatusOr<Backend*> World::AddBackend(const MakeBackend& make_backend) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = make_backend(&recorder_);
  if (!backend.ok()) return backend.status();
  backends_.push_back(*std::move(backend));
  std::string names;
  for (const auto& b : backends_)
    absl::StrAppend(&names, names.empty() ? "" : "+", b->name());
  recorder_.SetBackend(names);
  return backends_.back().get();
}

absl::StatusOr<Communicator*> World::Connect(std::string name,
                                             std::vector<int> ranks,
                                             Backend* backend) {
  absl::StatusOr<Group> group =
      MakeGroup(std::move(name), std::move(ranks), rank_);
  if (!group.ok()) return group.status();
  if (absl::Status s = status(); !s.ok()) return s;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& known : communicators_) {
      if (known->group().name != group->name) continue;
      if (known->group().ranks == group->ranks) return known.get();
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank_, " connects to group ", group->name,
                       ", which it knows with other ranks"));
    }
  }
  // A rank that does not come to the meeting is missing like any other.
  recorder_.AddGroup(group->name, group->ranks);
  trace::Record record;
  record.group = group->name;
  record.signature = "connect";
  const uint64_t ticket = recorder_.Enqueued(std::move(record));
  recorder_.Started(ticket);
  absl::StatusOr<std::unique_ptr<Communicator>> made =
      (backend == nullptr ? backends_[0].get() : backend)->Connect(*group);
  if (!made.ok()) {
    recorder_.Failed(ticket, std::string(made.status().message()));
    return made.status();
  }
  recorder_.Finished(ticket);
  Communicator* communicator = made->get();
  std::lock_guard<std::mutex> lock(mutex_);
  // The watchdog may have passed over the communicators already.
  if (concluded_) communicator->Abort(status_);
  communicators_.push_back(*std::move(made));
  return communicator;
}

absl::Status World::Agree(const Identity& identity) {
  const std::string round = absl::StrCat("agree", agreements_++, ".");
  const std::string text = absl::StrCat("world=", size_, "\n", identity.text);
  const std::string hash_key = round + "hash";
  const std::string text_key = round + "text";
  if (absl::Status s =
          store_->Set(RankKey(hash_key.c_str(), rank_), HashOf(text));
      !s.ok())
    return Fail(s);
  std::vector<std::string> hashes;
  for (int q = 0; q < size_; ++q) {
    absl::StatusOr<std::string> hash =
        store_->Get(RankKey(hash_key.c_str(), q), options_.deadline - grace_);
    if (!hash.ok())
      return Fail(absl::DeadlineExceededError(
          absl::StrCat("rank ", q, " has not said which program it runs (",
                       hash.status().message(), ")")));
    hashes.push_back(*std::move(hash));
  }
  int different = 0;
  while (different < size_ && hashes[different] == hashes[0]) ++different;
  if (different == size_) return absl::OkStatus();
  // Every rank sees the same hashes, so these two know that they are asked.
  if (rank_ == 0 || rank_ == different) {
    if (absl::Status s = store_->Set(RankKey(text_key.c_str(), rank_), text);
        !s.ok())
      return Fail(s);
  }
  std::string texts[2];
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<std::string> got =
        store_->Get(RankKey(text_key.c_str(), i == 0 ? different : 0), grace_);
    if (!got.ok()) return Fail(got.status());
    texts[i] = *std::move(got);
  }
  return absl::FailedPreconditionError(
      FirstDifference(different, texts[0], texts[1]));
}

absl::Status World::Publish(const std::string& key, const std::string& value) {
  const absl::Status set = store_->Set(key, value);
  return set.ok() ? set : Fail(set);
}

absl::StatusOr<std::string> World::Await(const std::string& key, int from) {
  const std::string life_key = RankKey("alive", from);
  std::string life;
  absl::Time seen = absl::Now();
  absl::Duration pause = absl::Milliseconds(1);
  for (;;) {
    if (absl::Status s = status(); !s.ok()) return s;
    const auto value = store_->TryGet(key);
    if (!value.ok()) return Fail(value.status());
    if (value->has_value()) return **value;
    const auto sign = store_->TryGet(life_key);
    if (!sign.ok()) return Fail(sign.status());
    if (sign->has_value() && **sign != life) {
      life = **sign;
      seen = absl::Now();
    }
    if (absl::Now() - seen > options_.deadline - grace_)
      return Fail(absl::DeadlineExceededError(absl::StrCat(
          "rank ", from, " is missing: it gave no sign of life for ",
          absl::FormatDuration(options_.deadline - grace_), " while rank ",
          rank_, " waited for its ", key)));
    absl::SleepFor(pause);
    pause = std::min(pause * 2, absl::Milliseconds(20));
  }
}

void World::Wake() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

absl::Status World::Fail(const absl::Status& why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (concluded_) return status_;
  }
  // An error that a collective gave is a symptom; the records tell the cause.
  const std::string reason(why.message());
  if (!recorder_.failed()) recorder_.SetFailure(reason);
  // Before the others hear of it: who judges finds the cause, however long this
  // rank's watchdog takes to come by.
  (void)PostDump();
  Raise(reason);
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return concluded_; });
  return status_;
}

void World::Raise(const std::string& reason) {
  // If the store is gone the others find out as this rank did.
  (void)store_->SetOnce(kAbortKey, absl::StrCat("rank ", rank_, ": ", reason));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    raised_ = true;
  }
  changed_.notify_all();
  if (options_.on_raise) options_.on_raise();
}

bool World::Stalled() const {
  const auto idle =
      trace::FlightRecorder::Clock::now() - recorder_.last_progress();
  return recorder_.pending() &&
         absl::FromChrono(idle) >= options_.deadline - grace_;
}

void World::Watch() {
  for (;;) {
    bool raised;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, absl::ToChronoNanoseconds(tick_),
                        [&] { return stopping_ || raised_ || woken_; });
      if (stopping_ && !raised_) return;
      raised = raised_;
      woken_ = false;
      for (auto& communicator : communicators_) communicator->Poll();
    }
    if (options_.announce)
      (void)store_->Set(RankKey("alive", rank_),
                        absl::StrCat(++signs_of_life_));
    if (!raised) {
      const auto abort = store_->TryGet(kAbortKey);
      raised = abort.ok() && abort->has_value();
    }
    if (!raised && (recorder_.failed() || Stalled())) {
      Raise(recorder_.failed() ? "a collective failed"
                               : "a collective makes no progress");
      raised = true;
    }
    if (!raised) continue;
    Conclude();
    return;
  }
}

absl::Status World::PostDump(trace::Dump* posted) {
  trace::Dump own = trace::Recent(recorder_.Snapshot(), kPostedRecords);
  const absl::Status set =
      store_->Set(RankKey("dump", rank_), trace::DumpJson(own));
  if (posted != nullptr) *posted = std::move(own);
  return set;
}

std::map<int, trace::Dump> World::CollectDumps(bool& store_gone) {
  std::map<int, trace::Dump> dumps;
  store_gone = !PostDump(&dumps[rank_]).ok();
  // A failure that was noticed early leaves more time for ranks that a busy
  // machine keeps from answering.
  const absl::Duration idle = absl::FromChrono(
      trace::FlightRecorder::Clock::now() - recorder_.last_progress());
  const absl::Duration window =
      std::max(grace_ * 0.6,
               std::min(options_.deadline - idle - grace_ * 0.4, kPatience));
  const absl::Time end = absl::Now() + window;
  while (!store_gone) {
    for (int q = 0; q < size_; ++q) {
      if (dumps.count(q) != 0) continue;
      const auto text = store_->TryGet(RankKey("dump", q));
      if (!text.ok()) store_gone = true;
      if (!text.ok() || !text->has_value()) continue;
      absl::StatusOr<trace::Dump> dump = trace::ParseDump(**text);
      if (dump.ok()) dumps[q] = *std::move(dump);
    }
    if (static_cast<int>(dumps.size()) == size_ || absl::Now() >= end) break;
    const auto spoken = store_->TryGet(kVerdictKey);
    if (spoken.ok() && spoken->has_value()) break;
    absl::SleepFor(std::min(tick_, absl::Milliseconds(20)));
  }
  return dumps;
}

// Lets every rank that is alive read the store before a process goes that may
// hold it, and before torchrun's agent sees one exit and ends the rest.
void World::AwaitOthers(const std::map<int, trace::Dump>& dumps) {
  if (!store_->Set(RankKey("done", rank_), "1").ok()) return;
  const absl::Time end = absl::Now() + grace_ * 0.3;
  for (const auto& [q, dump] : dumps) {
    while (!dump.left && absl::Now() < end) {
      const auto done = store_->TryGet(RankKey("done", q));
      if (!done.ok()) return;
      if (done->has_value()) break;
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
}

void World::Conclude() {
  bool store_gone = false;
  const std::map<int, trace::Dump> dumps = CollectDumps(store_gone);
  trace::Verdict verdict = trace::Judge(size_, dumps);
  if (store_gone) {
    verdict.finding = trace::Finding::kMissing;
    verdict.ranks.clear();
    if (options_.store_host >= 0) verdict.ranks.push_back(options_.store_host);
    verdict.text = absl::StrCat(
        options_.store_host >= 0
            ? absl::StrCat("rank ", options_.store_host, " is missing: the")
            : std::string("the"),
        " store that its process holds is gone; rank ", rank_, " was in ",
        trace::WaitingText(dumps.at(rank_)));
  } else {
    // The first rank to conclude speaks for all.
    const auto agreed =
        store_->SetOnce(kVerdictKey, trace::VerdictJson(verdict));
    if (agreed.ok()) {
      absl::StatusOr<trace::Verdict> parsed = trace::ParseVerdict(*agreed);
      if (parsed.ok()) verdict = *std::move(parsed);
    }
  }
  std::string message = verdict.text;
  if (!options_.dump_directory.empty()) {
    trace::Dump dump = recorder_.Snapshot();
    dump.verdict = verdict.text;
    const absl::Status written =
        trace::WriteDump(dump, options_.dump_directory);
    absl::StrAppend(&message, written.ok()
                                  ? absl::StrCat("; flight records are in ",
                                                 options_.dump_directory)
                                  : absl::StrCat("; ", written.message()));
  }
  const absl::Status status = absl::AbortedError(message);
  if (!store_gone) AwaitOthers(dumps);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    verdict_ = verdict;
  }
  // Before the aborts: a process that exits anyway need not wait for them.
  if (options_.on_failure) options_.on_failure(status);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& communicator : communicators_) communicator->Abort(status);
    concluded_ = true;
  }
  changed_.notify_all();
}

void World::Leave() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (concluded_ || raised_ || left_ ||
        watchdog_.get_id() == std::thread::id())
      return;
    left_ = true;
  }
  recorder_.SetLeft();
  if (!PostDump().ok() || !store_->Set(RankKey("left", rank_), "1").ok() ||
      rank_ != options_.store_host)
    return;
  const absl::Time end = absl::Now() + options_.deadline;
  for (int q = 0; q < size_; ++q) {
    while (absl::Now() < end) {
      const auto left = store_->TryGet(RankKey("left", q));
      const auto abort = store_->TryGet(kAbortKey);
      if (!left.ok() || left->has_value()) break;
      if (abort.ok() && abort->has_value()) return;
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
}

absl::Status World::status() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

trace::Verdict World::verdict() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return verdict_;
}

}  // namespace heddle::comm
