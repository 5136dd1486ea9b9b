// The wrapper around libtorch's CPU allocator. Frees may come from any thread
// and after the step, so a block is recognised by its address, not by its
// scope.

#include "runtime/torch/planned_allocator.h"

#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::torch_runtime {
namespace {

constexpr size_t kBlockAlignment = 64;

size_t AlignUp(size_t bytes) {
  return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

thread_local Scope* current_scope = nullptr;
// The scopes of all threads, for allocations by ATen's worker threads, which
// have none of their own.
std::atomic<int> open_scope_count{0};
std::mutex& ScopesMutex() {
  static std::mutex& mutex = *new std::mutex();
  return mutex;
}
std::vector<Scope*>& OpenScopes() {
  static std::vector<Scope*>& scopes = *new std::vector<Scope*>();
  return scopes;
}

std::mutex& WorkspacesMutex() {
  static std::mutex& mutex = *new std::mutex();
  return mutex;
}
std::vector<Workspace*>& Workspaces() {
  static std::vector<Workspace*>& workspaces = *new std::vector<Workspace*>();
  return workspaces;
}

class PlannedAllocator final : public c10::Allocator, public Source {
 public:
  explicit PlannedAllocator(c10::Allocator* inner) : inner_(inner) {}

  c10::DataPtr allocate(size_t bytes) override {
    Scope* scope = Scope::Current(*this);
    if (scope == nullptr && bytes > 0 &&
        open_scope_count.load(std::memory_order_relaxed) > 0 &&
        at::in_parallel_region()) {
      void* address = Scope::AllocateOnWorker(*this, bytes);
      if (address != nullptr)
        return {address, address, &Delete, c10::Device(c10::DeviceType::CPU)};
    }
    if (scope == nullptr || bytes == 0) return inner_->allocate(bytes);
    bool planned = false;
    void* address = scope->Allocate(bytes, &planned);
    if (address == nullptr) return inner_->allocate(bytes);
    // A planned address belongs to an arena: giving it back means nothing.
    return {address, address, planned ? &c10::NoDelete : &Delete,
            c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  static PlannedAllocator* instance;
  static void Delete(void* address) {
    if (Scope* scope = Scope::Current(*instance)) scope->OnFree(address);
    if (!FreeInWorkspaces(address)) instance->GiveBack(address);
  }
  void* Take(size_t bytes) override { return inner_->raw_allocate(bytes); }
  void GiveBack(void* address) override { inner_->raw_deleter()(address); }

 private:
  c10::Allocator* inner_;
};

PlannedAllocator* PlannedAllocator::instance = nullptr;

}  // namespace

Source& CpuSource() { return *PlannedAllocator::instance; }

bool FreeInWorkspaces(void* address) {
  std::lock_guard<std::mutex> lock(WorkspacesMutex());
  for (Workspace* workspace : Workspaces()) {
    if (workspace->Free(address)) return true;
  }
  return false;
}

Workspace::~Workspace() {
  std::lock_guard<std::mutex> registry(WorkspacesMutex());
  auto& all = Workspaces();
  all.erase(std::remove(all.begin(), all.end(), this), all.end());
  std::lock_guard<std::mutex> lock(mutex_);
  // A block that outlived its step is somebody's tensor: its memory must stay
  // valid, so the region is given up instead of given back.
  if (base_ != nullptr && used_.empty()) source_.GiveBack(base_);
}

absl::Status Workspace::Reserve(size_t bytes) {
  std::lock_guard<std::mutex> registry(WorkspacesMutex());
  std::lock_guard<std::mutex> lock(mutex_);
  if (bytes <= capacity_ || !used_.empty()) return absl::OkStatus();
  constexpr size_t kPage = 4096;
  const size_t wanted = (bytes + kPage - 1) / kPage * kPage;
  void* address = nullptr;
  try {
    address = source_.Take(wanted);
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot reserve ", wanted, " bytes for the workspace"));
  }
  if (base_ != nullptr) source_.GiveBack(base_);
  if (base_ == nullptr) Workspaces().push_back(this);
  base_ = static_cast<char*>(address);
  capacity_ = wanted;
  ++moves_;
  free_ = {{0, wanted}};
  return absl::OkStatus();
}

void* Workspace::Allocate(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t wanted = AlignUp(bytes);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [offset, room] = *it;
    if (room < wanted) continue;
    free_.erase(it);
    if (room > wanted) free_[offset + wanted] = room - wanted;
    used_[offset] = wanted;
    high_water_ = std::max(high_water_, offset + wanted);
    return base_ + offset;
  }
  return nullptr;
}

bool Workspace::Free(void* address) {
  std::lock_guard<std::mutex> lock(mutex_);
  char* p = static_cast<char*>(address);
  if (base_ == nullptr || p < base_ || p >= base_ + capacity_) return false;
  const auto it = used_.find(static_cast<size_t>(p - base_));
  if (it == used_.end()) return false;
  auto [offset, bytes] = *it;
  used_.erase(it);
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      previous->second += bytes;
      return true;
    }
  }
  free_[offset] = bytes;
  return true;
}

size_t Workspace::live_blocks() {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_.size();
}

Scope::Scope(Source& source, std::vector<Expected> expected, Counters* counters)
    : source_(source),
      recording_(true),
      expected_(std::move(expected)),
      counters_(counters),
      outer_(current_scope) {
  Open();
}

Scope::Scope(Source& source, const Learned& learned, Workspace* workspace,
             Counters* counters)
    : source_(source),
      recording_(false),
      learned_(&learned),
      workspace_(workspace),
      counters_(counters),
      outer_(current_scope) {
  Open();
}

Scope::~Scope() {
  current_scope = outer_;
  {
    std::lock_guard<std::mutex> lock(ScopesMutex());
    auto& open = OpenScopes();
    open.erase(std::remove(open.begin(), open.end(), this), open.end());
    open_scope_count.fetch_sub(1, std::memory_order_relaxed);
  }
  if (recording_) return;
  counters_->escaped += workspace_->live_blocks();
  uint64_t before = counters_->workspace_high_water.load();
  while (before < workspace_->high_water() &&
         !counters_->workspace_high_water.compare_exchange_weak(
             before, workspace_->high_water())) {
  }
}

Scope* Scope::Current(const Source& source) {
  return current_scope != nullptr && &current_scope->source_ == &source
             ? current_scope
             : nullptr;
}

void* Scope::Allocate(size_t bytes, bool* planned) {
  if (recording_) {
    const auto expected =
        std::find_if(expected_.begin(), expected_.end(),
                     [&](const Expected& e) { return e.size == bytes; });
    *planned = expected != expected_.end();
    void* address = *planned ? expected->address : source_.Take(bytes);
    if (*planned) expected_.erase(expected);
    const int index = static_cast<int>(recorded_.size());
    recorded_.push_back({address, bytes});
    live_[address] = index;
    events_.push_back(index + 1);
    return address;
  }
  const uint32_t ordinal = seen_[bytes]++;
  for (const Placement& placement : learned_->placements) {
    *planned = placement.size == bytes && placement.ordinal == ordinal;
    if (*planned) return placement.address;
  }
  void* address = workspace_->Allocate(bytes);
  if (address == nullptr) counters_->outside_workspace += 1;
  return address;
}

void Scope::Open() {
  std::lock_guard<std::mutex> lock(ScopesMutex());
  OpenScopes().push_back(this);
  open_scope_count.fetch_add(1, std::memory_order_relaxed);
  current_scope = this;
}

void* Scope::AllocateOnWorker(Source& source, size_t bytes) {
  // A worker does not know which stream's or rank's step it works for. A step
  // that is recorded counts what it may have been; otherwise any open scope's
  // workspace is as good, since blocks go back one by one.
  std::lock_guard<std::mutex> lock(ScopesMutex());
  Scope* last = nullptr;
  bool recorded = false;
  for (Scope* scope : OpenScopes()) {
    if (&scope->source_ != &source) continue;
    last = scope;
    if (!scope->recording_) continue;
    recorded = true;
    scope->worker_bytes_ += AlignUp(bytes);
  }
  if (recorded) return source.Take(bytes);
  for (auto it = OpenScopes().rbegin(); it != OpenScopes().rend(); ++it) {
    if (&(*it)->source_ != &source) continue;
    if (void* address = (*it)->workspace_->Allocate(bytes)) return address;
  }
  if (last != nullptr) last->counters_->outside_workspace += 1;
  return nullptr;
}

void Scope::OnFree(void* address) {
  if (!recording_) return;
  const auto it = live_.find(address);
  if (it == live_.end()) return;
  events_.push_back(-(it->second + 1));
  live_.erase(it);
}

int Scope::Find(const void* address) const {
  for (int i = static_cast<int>(recorded_.size()) - 1; i >= 0; --i) {
    if (recorded_[static_cast<size_t>(i)].address == address) return i;
  }
  return -1;
}

size_t Scope::PeakWithout(const std::vector<int>& placed) const {
  size_t live = 0;
  size_t peak = 0;
  for (int event : events_) {
    const int index = std::abs(event) - 1;
    if (std::find(placed.begin(), placed.end(), index) != placed.end())
      continue;
    const size_t bytes = AlignUp(recorded_[static_cast<size_t>(index)].size);
    if (event > 0) {
      live += bytes;
    } else {
      live -= bytes;
    }
    peak = std::max(peak, live);
  }
  return peak + worker_bytes_;
}

absl::Status InstallPlannedAllocator() {
  static std::mutex& mutex = *new std::mutex();
  std::lock_guard<std::mutex> lock(mutex);
  // Priorities only grow: the highest keeps a later library from taking the
  // place unnoticed.
  constexpr uint8_t kPriority = 255;
  if (PlannedAllocator::instance == nullptr) {
    c10::Allocator* inner = c10::GetCPUAllocator();
    if (inner->raw_deleter() == nullptr)
      return absl::FailedPreconditionError(
          "libtorch's CPU allocator was replaced by one without a raw deleter; "
          "load Heddle before whatever replaced it");
    PlannedAllocator::instance = new PlannedAllocator(inner);
    c10::SetCPUAllocator(PlannedAllocator::instance, kPriority);
  }
  if (c10::GetCPUAllocator() != PlannedAllocator::instance)
    return absl::FailedPreconditionError(
        "libtorch's CPU allocator was replaced by another library after Heddle "
        "was loaded; planned memory cannot be enforced");
  return absl::OkStatus();
}

}  // namespace heddle::torch_runtime
