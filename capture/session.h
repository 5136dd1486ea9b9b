// One capture in progress: turns operator calls on trace tensors into records
// of a tape. Invariant: identity of a tensor is (storage, dtype, sizes,
// strides, offset), never the TensorImpl, because autograd and nn.Module copy
// metadata between impls without dispatching. All storages stay alive until the
// session ends, so that an address names one storage. A session belongs to the
// thread that began it; autograd must run its backward on that thread.
#ifndef HEDDLE_CAPTURE_SESSION_H_
#define HEDDLE_CAPTURE_SESSION_H_

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "capture/autocast.h"
#include "capture/tape.h"

namespace heddle::capture {

// Host tensors of more bytes than this do not travel in the sidecar.
constexpr int64_t kMaxConstantBytes = 64 * 1024;
// More host-visible values than this make a program that fits one batch only.
constexpr int64_t kMaxGuardValues = 64;

// "aten::add.Tensor"; without a dot for the default overload.
std::string NameOf(const c10::OperatorName& name);

struct Options {
  std::string target = "cpu";
  std::string precision = "fp32";
  // Called for every forward op when set: the index into Tape::sources of the
  // caller's line.
  std::function<int32_t()> source_of_caller;
  // The same for guards, which are few, and whose failure has to be explained.
  std::function<int32_t()> source_of_guard;
};

class Session {
 public:
  explicit Session(Options options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The session of this thread, or nullptr.
  static Session* Current();

  // Arguments of the step. `sizes` and `strides` in elements. The returned
  // tensor lies on the trace device.
  at::Tensor AddParameter(at::IntArrayRef sizes, at::IntArrayRef strides,
                          at::ScalarType dtype, std::vector<std::string> names,
                          bool trainable, std::string role);
  // `data` may lie on meta when the buffer is persistent: its value then comes
  // with the weights.
  at::Tensor AddBuffer(const at::Tensor& data, std::string name,
                       bool persistent);
  // Integer and bool inputs are kept on the host, so that values read from them
  // can be evaluated.
  at::Tensor AddInput(const at::Tensor& data, std::string name);
  void AddResult(std::string kind, std::string name, const at::Tensor& tensor);

  void SetPhase(Phase phase) { phase_ = phase; }
  int32_t InternScope(const std::string& path);
  int32_t InternSource(const std::string& file, int64_t line);
  void PushScope(int32_t scope) { scopes_.push_back(scope); }
  void PopScope() {
    if (scopes_.size() > 1) scopes_.pop_back();
  }

  const std::string& CurrentScope() const {
    return tape_.scopes[scopes_.back()];
  }

  // Null once the session has ended.
  AutocastScope* autocast() const { return autocast_.get(); }

  // Recompute in a checkpoint must reuse the ids of the random ops it repeats:
  // torch.utils.checkpoint saves and restores this counter as the device's
  // generator state.
  const std::string& target() const { return options_.target; }
  int64_t rng_counter() const { return next_rng_; }
  void set_rng_counter(int64_t counter) {
    next_rng_ = counter;
    // Before and after each repetition.
    if (phase_ == Phase::kBackward) generator_set_back_ = !generator_set_back_;
  }

  // Executes one operator call symbolically: pops the arguments from the stack,
  // pushes trace tensors.
  void Record(const c10::OperatorHandle& op, torch::jit::Stack* stack);

  // An operator that draws from a generator which it was given. It may run on
  // the host, where nothing else of it is seen.
  void NoteGenerator(const std::string& op);
  // Raises where that happened: a program has no such generator.
  void CheckGenerators() const;

  // Ends recording; the session refuses further operators.
  Tape Finish();

  // "operator aten::x in model.layers.0.mlp": the place an error speaks of.
  std::string Place(const std::string& op) const;

 private:
  friend class ValueOracle;
  struct Key {
    const void* storage;
    at::ScalarType dtype;
    std::vector<int64_t> geometry;
    bool operator==(const Key& other) const {
      return storage == other.storage && dtype == other.dtype &&
             geometry == other.geometry;
    }
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };

  Key KeyOf(const at::Tensor& tensor) const;
  int32_t StorageIdOf(const at::Tensor& tensor);
  ValueId NewValue(const at::Tensor& tensor);
  // The number of a tensor that a call reads; host tensors become constants or
  // are refused.
  ValueId Use(const at::Tensor& tensor, const std::string& op);
  ValueId UseHostTensor(const at::Tensor& tensor, const std::string& op);
  at::Tensor MetaOf(const at::Tensor& tensor);
  at::Tensor FromMeta(const at::Tensor& meta);
  void RecordCall(const c10::OperatorHandle& op, torch::jit::Stack* stack);
  void RecordReshape(const c10::OperatorHandle& op, torch::jit::Stack* stack);
  bool RecordHostRead(const c10::OperatorHandle& op, torch::jit::Stack* stack);
  torch::jit::Stack InferFromValues(const c10::OperatorHandle& op,
                                    c10::ArrayRef<c10::IValue> arguments);
  at::Tensor ReadOnHost(const at::Tensor& tensor, const std::string& op);
  at::Tensor EmitScalarTensor(const at::Tensor& host);
  int64_t DrawnAgain(const OpRecord& record) const;
  void LinkToAutograd(OpRecord& record);
  bool Repeats() const;
  size_t CallHash(const OpRecord& record) const;
  void RememberForward(const OpRecord& record);
  void LinkToRepeated(OpRecord& record);
  void CheckState(const std::string& op) const;

  Options options_;
  Tape tape_;
  Phase phase_ = Phase::kForward;
  std::vector<int32_t> scopes_{0};
  std::unordered_map<std::string, int32_t> scope_ids_{{"", 0}};
  std::unordered_map<std::string, int32_t> source_ids_;
  std::unordered_map<const void*, int32_t> storage_ids_;
  std::vector<c10::Storage>
      storages_;  // Trace storages by id; keeps their addresses unique.
  std::vector<c10::Storage> meta_storages_;  // The meta twin of each.
  std::unordered_map<const void*, int32_t> meta_ids_;
  std::unordered_map<Key, ValueId, KeyHash> values_;
  std::unordered_map<int32_t, at::Tensor>
      host_inputs_;  // Storage id -> value on the host.
  std::unordered_map<const void*, ValueId>
      constants_;  // Host storage -> argument.
  std::vector<at::Tensor>
      kept_;  // Host tensors whose addresses are keys above.
  struct NodeInfo {
    int32_t scope;
    int32_t source;
  };
  const NodeInfo* RunningNode() const;
  std::unordered_map<int64_t, NodeInfo> nodes_;
  std::unordered_map<size_t, std::deque<size_t>>
      forward_ops_;  // Positions in the tape by CallHash, for checkpoints to
                     // find what they repeat.
  std::unordered_map<int32_t, int32_t>
      repeated_storages_;  // Storage that a checkpoint made again -> the first.
  std::unordered_map<ValueId, int64_t>
      generator_states_;  // Stand-ins for the state before a draw -> its id.
  std::unordered_set<int32_t>
      lazily_read_;  // Storages of both sides of a conjugated or negated view.
  uint64_t first_sequence_ = 0;
  uint64_t last_sequence_ = 0;
  int64_t next_rng_ = 0;
  std::string drawn_;  // What an operator with a generator of its own did.
  at::CallbackHandle generators_seen_ = 0;
  bool generator_set_back_ = false;
  int64_t guard_values_ = 0;
  bool finished_ = false;
  struct HostAllocations;
  std::shared_ptr<HostAllocations> host_allocations_;
  std::unique_ptr<c10::DebugInfoGuard> allocation_guard_;
  std::unique_ptr<AutocastScope> autocast_;
  Session* previous_ = nullptr;
};

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_SESSION_H_
