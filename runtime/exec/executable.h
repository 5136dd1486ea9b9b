// A plan, loaded: prepare (arenas, streams, events, one prepared step per
// step), then Run as often as wanted. Invariant: nothing runs that plan::Verify
// has not accepted; after a failed Run the state arena may hold half a step,
// and the executable refuses to go on. One caller at a time.

#ifndef HEDDLE_RUNTIME_EXEC_EXECUTABLE_H_
#define HEDDLE_RUNTIME_EXEC_EXECUTABLE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/exec/handler.h"
#include "runtime/exec/memory.h"
#include "runtime/exec/section_graph.h"
#include "runtime/plan/plan.h"

namespace heddle::exec {

// Which of the plan's ranks an executable is.
struct Place {
  // Along axis "dp".
  int64_t coordinate = 0;
  // True if another rank's executable has had the same plan verified.
  bool verified = false;
};

class Executable {
 public:
  // Called after each step of a traced run, with the step's index in its
  // section.
  using StepCallback = std::function<absl::Status(size_t)>;

  // `device` outlives the executable. `handlers` needs an entry for every step
  // kind that the plan uses; Unimplemented names the first one without.
  static absl::StatusOr<std::unique_ptr<Executable>> Load(
      plan::Plan plan, device::Device& device, HandlerTable handlers,
      uint64_t seed, std::shared_ptr<StateArena> state = nullptr,
      Place place = {});
  ~Executable();

  // Whether sections run as graphs; before the first run. FailedPrecondition
  // names the step because of which kOn cannot be kept.
  [[nodiscard]] absl::Status SetGraphs(GraphMode mode);
  // "yes", or why not (yet), for a section of the plan.
  std::string GraphState(const std::string& section) const;

  // Runs one section. On an asynchronous device it returns when all work is
  // enqueued, else when it is done; inputs lie in memory() before it, results
  // after it, in the order of streams()[0].
  [[nodiscard]] absl::Status Run(const std::string& section);
  // The same on the caller's thread, stream order ignored (the global order is
  // a valid one), with `callback` after every step.
  [[nodiscard]] absl::Status RunTraced(const std::string& section,
                                       const StepCallback& callback);

  void SetScalar(const std::string& name, double value) {
    scalars_[name] = value;
  }
  const plan::Plan& plan() const { return plan_; }
  const Memory& memory() const { return *memory_; }
  // Device memory that the handlers keep for themselves.
  uint64_t reserved_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [kind, handler] : handlers_)
      bytes += handler->ReservedBytes();
    return bytes;
  }
  // Empty where steps run on the caller's thread. Between two runs all streams
  // have joined the first.
  const std::vector<std::unique_ptr<device::Stream>>& streams() const {
    return streams_;
  }

 private:
  struct PreparedSection {
    const plan::Section* section = nullptr;
    std::vector<std::unique_ptr<PreparedStep>> steps;
    std::vector<std::unique_ptr<device::Event>> events;
    // True if all steps are on one stream: they run on the caller's thread,
    // without a stream's thread.
    bool single_stream = true;
    // Streams other than the first that its steps are on.
    std::vector<uint16_t> others;
    SectionGraph graph;
  };

  Executable() = default;
  absl::Status Prepare();
  absl::StatusOr<int64_t> GlobalMicro(const plan::Section& section) const;
  absl::StatusOr<PreparedSection*> Find(const std::string& section);
  absl::Status RunSection(PreparedSection& prepared,
                          const StepCallback* callback);
  absl::Status RunDirect(PreparedSection& prepared, const RunContext& context,
                         const StepCallback* callback);
  absl::Status RunGraph(PreparedSection& prepared, RunContext& context);
  absl::Status Capture(PreparedSection& prepared, RunContext& context,
                       uint64_t version);
  absl::Status EnqueueSteps(PreparedSection& prepared,
                            const RunContext& context,
                            const StepCallback* callback);
  absl::Status Synchronize();
  uint64_t MemoryVersion() const;
  absl::Status BeginRun(PreparedSection& prepared, const RunContext& context);
  absl::Status EndRun(PreparedSection& prepared);
  absl::Status RunInOrder(PreparedSection& prepared, const RunContext& context,
                          const StepCallback* callback);
  absl::Status RunOnStreams(PreparedSection& prepared,
                            const RunContext& context);
  absl::Status Explain(const absl::Status& status,
                       const PreparedSection& prepared, size_t step) const;

  plan::Plan plan_;
  device::Device* device_ = nullptr;
  HandlerTable handlers_;
  uint64_t seed_ = 0;
  std::unique_ptr<Memory> memory_;
  std::map<std::string, PreparedSection> sections_;
  std::vector<std::unique_ptr<device::Stream>> streams_;
  // One per stream: where it leaves the first one and where it joins it again.
  std::vector<std::unique_ptr<device::Event>> joints_;
  GraphMode graphs_ = GraphMode::kOff;
  std::map<std::string, double> scalars_;
  Place place_;
  int64_t micro_ = 0;
  absl::Status broken_;
};

}  // namespace heddle::exec

#endif  // HEDDLE_RUNTIME_EXEC_EXECUTABLE_H_
