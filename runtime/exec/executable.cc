// Runs sections. With one stream the steps run on the caller's thread, so that
// a one-stream plan behaves as eager code does (thread-local settings
// included).

#include "runtime/exec/executable.h"

#include <atomic>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/plan/verify.h"
#include "runtime/trace/range.h"

namespace heddle::exec {
namespace {

// What a profiler shows of a step: its operator and where it is in the model.
std::string RangeName(const plan::Plan& plan, const plan::Step& step) {
  if (!trace::Watched()) return "";
  const std::string location = plan::LocationText(plan, step);
  return absl::StrCat(
      step.name.empty() ? plan::StepKindName(step.kind) : step.name,
      location.empty() ? "" : " ", location);
}

}  // namespace

absl::StatusOr<double> RuntimeScalar(const RunContext& context,
                                     const std::string& name) {
  const auto it = context.scalars->find(name);
  if (it == context.scalars->end())
    return absl::FailedPreconditionError(
        absl::StrCat("the run-time scalar '", name,
                     "' was not set before the run; call set_scalar(\"", name,
                     "\", value)"));
  return it->second;
}

Executable::~Executable() = default;

absl::StatusOr<std::unique_ptr<Executable>> Executable::Load(
    plan::Plan plan, device::Device& device, HandlerTable handlers,
    uint64_t seed, std::shared_ptr<StateArena> state, Place place) {
  if (plan.target != device.target())
    return absl::FailedPreconditionError(absl::StrCat(
        "the plan was compiled for ", plan.target, " and cannot run on ",
        device.target(), "; compile the step for ", device.target()));
  if (!place.verified) {
    if (absl::Status status = plan::Verify(plan); !status.ok()) return status;
  }
  auto executable = std::unique_ptr<Executable>(new Executable());
  executable->plan_ = plan::HasRankTables(plan)
                          ? plan::ForRank(plan, place.coordinate)
                          : std::move(plan);
  executable->device_ = &device;
  executable->handlers_ = std::move(handlers);
  executable->seed_ = seed;
  executable->place_ = place;
  executable->SetScalar("rank", static_cast<double>(place.coordinate));
  absl::StatusOr<std::unique_ptr<Memory>> memory = Memory::Create(
      executable->plan_, device, std::move(state), place.coordinate);
  if (!memory.ok()) return memory.status();
  executable->memory_ = *std::move(memory);
  if (absl::Status status = executable->Prepare(); !status.ok()) return status;
  return executable;
}

absl::Status Executable::Prepare() {
  bool many_streams = false;
  for (const plan::Section& section : plan_.sections) {
    PreparedSection& prepared = sections_[section.name];
    prepared.section = &section;
    std::set<uint16_t> used;
    for (size_t i = 0; i < section.steps.size(); ++i) {
      const plan::Step& step = section.steps[i];
      used.insert(step.stream);
      const auto handler = handlers_.find(step.kind);
      if (handler == handlers_.end()) {
        return Explain(
            absl::UnimplementedError(absl::StrCat(
                "this runtime has no handler for ",
                plan::StepKindName(step.kind), " steps on ", plan_.target)),
            prepared, i);
      }
      absl::StatusOr<std::unique_ptr<PreparedStep>> ready =
          handler->second->Prepare(plan_, section, step, *memory_);
      if (!ready.ok()) return Explain(ready.status(), prepared, i);
      prepared.steps.push_back(*std::move(ready));
    }
    prepared.single_stream = used.size() <= 1;
    used.erase(0);
    prepared.others.assign(used.begin(), used.end());
    prepared.graph = MakeSectionGraph(plan_, section, graphs_);
    many_streams |= !prepared.single_stream;
    for (uint32_t e = 0; e < section.events; ++e) {
      absl::StatusOr<std::unique_ptr<device::Event>> event =
          device_->CreateEvent();
      if (!event.ok()) return event.status();
      prepared.events.push_back(*std::move(event));
    }
  }
  if (!many_streams && plan_.target == std::string("cpu"))
    return absl::OkStatus();
  for (const std::string& name : plan_.streams) {
    absl::StatusOr<std::unique_ptr<device::Stream>> stream =
        device_->CreateStream(name);
    if (!stream.ok()) return stream.status();
    streams_.push_back(*std::move(stream));
    absl::StatusOr<std::unique_ptr<device::Event>> joint =
        device_->CreateEvent();
    if (!joint.ok()) return joint.status();
    joints_.push_back(*std::move(joint));
  }
  return absl::OkStatus();
}

absl::StatusOr<Executable::PreparedSection*> Executable::Find(
    const std::string& section) {
  const auto it = sections_.find(section);
  if (it != sections_.end()) return &it->second;
  std::string known;
  for (const auto& [name, unused] : sections_)
    absl::StrAppend(&known, known.empty() ? "" : ", ", name);
  return absl::NotFoundError(
      absl::StrCat("the plan has no section '", section, "'; it has ", known));
}

absl::Status Executable::Explain(const absl::Status& status,
                                 const PreparedSection& prepared,
                                 size_t index) const {
  const plan::Step& step = prepared.section->steps[index];
  const std::string location = plan::LocationText(plan_, step);
  return absl::Status(
      status.code(),
      absl::StrCat(
          "section ", prepared.section->name, " step ", index, " ",
          step.name.empty() ? plan::StepKindName(step.kind) : step.name,
          location.empty() ? "" : " at ", location, ": ", status.message()));
}

absl::Status Executable::Run(const std::string& section) {
  absl::StatusOr<PreparedSection*> prepared = Find(section);
  if (!prepared.ok()) return prepared.status();
  return RunSection(**prepared, nullptr);
}

absl::Status Executable::RunTraced(const std::string& section,
                                   const StepCallback& callback) {
  absl::StatusOr<PreparedSection*> prepared = Find(section);
  if (!prepared.ok()) return prepared.status();
  return RunSection(**prepared, &callback);
}

// The number of the micro-batch in the step over all ranks: rank r's are
// [r*M, (r+1)*M), so that random steps draw what one rank would that ran all.
absl::StatusOr<int64_t> Executable::GlobalMicro(
    const plan::Section& section) const {
  const int64_t ranks = plan::AxisSize(plan_, "dp");
  if (ranks == 1) return micro_;
  const auto all = scalars_.find("micro_batches");
  if (all != scalars_.end())
    return place_.coordinate * (static_cast<int64_t>(all->second) / ranks) +
           micro_;
  for (const plan::Step& step : section.steps) {
    if (step.rng_id >= 0)
      return absl::FailedPreconditionError(
          absl::StrCat("section ", section.name,
                       " has random steps and the run-time scalar "
                       "'micro_batches', counted over all ranks, was not set"));
  }
  return micro_;
}

absl::Status Executable::RunSection(PreparedSection& prepared,
                                    const StepCallback* callback) {
  if (!broken_.ok())
    return absl::FailedPreconditionError(
        absl::StrCat("an earlier run failed and may have left half a step in "
                     "the state; load the plan again (",
                     broken_.message(), ")"));
  const std::string& name = prepared.section->name;
  if (name == "micro_first") micro_ = 0;
  if (name == "micro_next") ++micro_;
  // Where several plans share one step's micro-batches, none of them sees all.
  if (const auto micro = scalars_.find("micro"); micro != scalars_.end())
    micro_ = static_cast<int64_t>(micro->second);
  const trace::Range range(name);
  RunContext context;
  context.scalars = &scalars_;
  context.seed = seed_;
  absl::StatusOr<int64_t> micro = GlobalMicro(*prepared.section);
  if (!micro.ok()) return micro.status();
  context.micro = *micro;
  if (const auto step = scalars_.find("step"); step != scalars_.end())
    context.step = static_cast<int64_t>(step->second);
  absl::Status status = callback == nullptr && prepared.graph.Ready()
                            ? RunGraph(prepared, context)
                            : RunDirect(prepared, context, callback);
  // A guard that does not hold is found before the prologue writes anything;
  // every other failure may have come between two writes of one update.
  if (!status.ok() && name != "prologue" && name != "replay" &&
      name != "evaluate")
    broken_ = status;
  return status;
}

absl::Status Executable::BeginRun(PreparedSection& prepared,
                                  const RunContext& context) {
  absl::Status status;
  for (auto& [kind, handler] : handlers_) {
    if (status.ok()) status = handler->BeginRun(*prepared.section, context);
  }
  return status;
}

absl::Status Executable::EndRun(PreparedSection& prepared) {
  absl::Status status;
  for (auto& [kind, handler] : handlers_) {
    if (absl::Status ended = handler->EndRun(*prepared.section);
        !ended.ok() && status.ok())
      status = ended;
  }
  return status;
}

uint64_t Executable::MemoryVersion() const {
  uint64_t version = 0;
  for (const auto& [kind, handler] : handlers_)
    version += handler->MemoryVersion();
  return version;
}

absl::Status Executable::Synchronize() {
  absl::Status status;
  for (auto& stream : streams_) {
    if (absl::Status done = stream->Synchronize(); !done.ok() && status.ok())
      status = done;
  }
  return status;
}

absl::Status Executable::RunDirect(PreparedSection& prepared,
                                   const RunContext& context,
                                   const StepCallback* callback) {
  absl::Status status = BeginRun(prepared, context);
  if (status.ok()) status = EnqueueSteps(prepared, context, callback);
  if (callback == nullptr) ++prepared.graph.direct_runs;
  absl::Status done;
  if (status.ok() && callback == nullptr && device_->asynchronous()) {
    for (auto& stream : streams_) {
      if (done.ok()) done = stream->Failure();
    }
  } else {
    done = Synchronize();
  }
  if (absl::Status ended = EndRun(prepared); !ended.ok() && done.ok())
    done = ended;
  return status.ok() ? done : status;
}

absl::Status Executable::RunGraph(PreparedSection& prepared,
                                  RunContext& context) {
  SectionGraph& graph = prepared.graph;
  const uint64_t version = MemoryVersion();
  if (graph.MustCapture(version)) {
    absl::Status captured = Capture(prepared, context, version);
    if (!captured.ok()) {
      graph.graph = nullptr;
      graph.reason = std::string(captured.message());
      if (graphs_ == GraphMode::kOn && GraphIsDue(*prepared.section))
        return absl::FailedPreconditionError(absl::StrCat(
            "cuda_graph=True cannot be kept: ", captured.message()));
      return RunDirect(prepared, context, nullptr);
    }
  }
  device::Stream& stream = *streams_[0];
  absl::Status status;
  for (auto& [kind, handler] : handlers_) {
    if (status.ok()) status = handler->BeginLaunch(*prepared.section, stream);
  }
  if (status.ok()) status = graph.graph->Launch(stream);
  for (auto& [kind, handler] : handlers_) {
    if (status.ok()) status = handler->EndLaunch(*prepared.section, stream);
  }
  return status;
}

absl::Status Executable::Capture(PreparedSection& prepared, RunContext& context,
                                 uint64_t version) {
  SectionGraph& graph = prepared.graph;
  context.capturing = true;
  absl::Status status = BeginRun(prepared, context);
  if (status.ok()) {
    status = device_->BeginCapture(*streams_[0]);
    if (status.ok()) {
      status = EnqueueSteps(prepared, context, nullptr);
      absl::StatusOr<std::unique_ptr<device::Graph>> captured =
          device_->EndCapture(*streams_[0], std::move(graph.graph));
      if (status.ok()) status = captured.status();
      if (status.ok()) graph.graph = *std::move(captured);
    }
  }
  if (absl::Status ended = EndRun(prepared); !ended.ok() && status.ok())
    status = ended;
  context.capturing = false;
  if (status.ok() && MemoryVersion() != version)
    status = absl::InternalError(
        "memory of an operator moved while the section was captured");
  graph.memory_version = version;
  return status;
}

// All streams start where the first one is and join it at the end, so that runs
// follow each other without anybody waiting for them, and so that a capture of
// the first stream takes in the others.
absl::Status Executable::EnqueueSteps(PreparedSection& prepared,
                                      const RunContext& context,
                                      const StepCallback* callback) {
  const bool join = device_->asynchronous() && !prepared.others.empty();
  if (join) {
    streams_[0]->Record(*joints_[0]);
    for (uint16_t other : prepared.others) streams_[other]->Wait(*joints_[0]);
  }
  absl::Status status = prepared.single_stream || callback != nullptr
                            ? RunInOrder(prepared, context, callback)
                            : RunOnStreams(prepared, context);
  if (join) {
    for (uint16_t other : prepared.others) {
      streams_[other]->Record(*joints_[other]);
      streams_[0]->Wait(*joints_[other]);
    }
  }
  return status;
}

absl::Status Executable::SetGraphs(GraphMode mode) {
  graphs_ = mode;
  for (auto& [name, prepared] : sections_) {
    prepared.graph = MakeSectionGraph(plan_, *prepared.section, mode);
    if (mode == GraphMode::kOn && GraphIsDue(*prepared.section) &&
        !prepared.graph.reason.empty())
      return absl::FailedPreconditionError(
          absl::StrCat("cuda_graph=True cannot be kept: section ", name, ": ",
                       prepared.graph.reason,
                       "; use cuda_graph=\"auto\", which runs such a section "
                       "without a graph"));
  }
  return absl::OkStatus();
}

std::string Executable::GraphState(const std::string& section) const {
  return sections_.at(section).graph.State();
}

absl::Status Executable::RunInOrder(PreparedSection& prepared,
                                    const RunContext& context,
                                    const StepCallback* callback) {
  for (size_t i = 0; i < prepared.steps.size(); ++i) {
    device::Stream* stream =
        streams_.empty() ? nullptr
                         : streams_[prepared.section->steps[i].stream].get();
    const trace::Range range(RangeName(plan_, prepared.section->steps[i]));
    if (absl::Status status = prepared.steps[i]->Execute(context, stream);
        !status.ok())
      return Explain(status, prepared, i);
    if (callback == nullptr) continue;
    if (stream != nullptr) {
      if (absl::Status status = stream->Synchronize(); !status.ok())
        return Explain(status, prepared, i);
    }
    if (absl::Status status = (*callback)(i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Executable::RunOnStreams(PreparedSection& prepared,
                                      const RunContext& context) {
  std::mutex mutex;
  absl::Status first_error;
  // Read without the lock: streams must not be ordered by anything but events,
  // or ThreadSanitizer would take a missing one for granted.
  std::atomic<bool> failed{false};
  for (size_t i = 0; i < prepared.steps.size(); ++i) {
    const plan::Step& step = prepared.section->steps[i];
    device::Stream& stream = *streams_[step.stream];
    for (uint32_t event : step.waits) stream.Wait(*prepared.events[event]);
    stream.Enqueue([&, i, stream_address = &stream] {
      if (failed.load(std::memory_order_relaxed)) return;
      const trace::Range range(RangeName(plan_, prepared.section->steps[i]));
      absl::Status status = prepared.steps[i]->Execute(context, stream_address);
      if (status.ok()) return;
      std::lock_guard<std::mutex> lock(mutex);
      if (first_error.ok()) first_error = Explain(status, prepared, i);
      failed.store(true, std::memory_order_relaxed);
    });
    if (step.signal >= 0)
      stream.Record(*prepared.events[static_cast<size_t>(step.signal)]);
  }
  // Work that is not done when it is enqueued refers to this call's variables.
  absl::Status done =
      device_->asynchronous() ? absl::OkStatus() : Synchronize();
  std::lock_guard<std::mutex> lock(mutex);
  return first_error.ok() ? done : first_error;
}

}  // namespace heddle::exec
