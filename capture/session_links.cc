// Ties every record to its place in the model: autograd node, module path, and
// the forward operator that a checkpoint repeats. Invariant: a forward operator
// and its backward operators carry one number. It rests on VariableType
// building a Node before it redispatches.
#include <ATen/SequenceNumber.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>

#include "capture/session.h"

namespace heddle::capture {

void Session::LinkToAutograd(OpRecord& record) {
  record.phase = phase_;
  record.scope = scopes_.back();
  uint64_t sequence = at::sequence_number::peek();
  auto node = torch::autograd::get_current_node();
  // Gradient mode is off in backward, but for the forward that a checkpoint
  // runs again.
  bool recomputes =
      phase_ == Phase::kBackward && node && at::GradMode::is_enabled();
  if (phase_ == Phase::kForward || recomputes) {
    // VariableType builds an operator's Node before it redispatches to us, so a
    // number that moved belongs to this operator.
    if (at::GradMode::is_enabled() && sequence != last_sequence_)
      record.node = static_cast<int64_t>(sequence - first_sequence_) - 1;
    last_sequence_ = sequence;
    if (recomputes) {
      LinkToRepeated(record);
    } else {
      if (options_.source_of_caller)
        record.source = options_.source_of_caller();
      if (record.schema != nullptr)
        forward_ops_[record.name].push_back(tape_.ops.size());
    }
    if (record.node >= 0) nodes_[record.node] = {record.scope, record.source};
    return;
  }
  last_sequence_ = sequence;
  if (!node || node->sequence_nr() == UINT64_MAX) return;
  auto it =
      nodes_.find(static_cast<int64_t>(node->sequence_nr() - first_sequence_));
  if (it == nodes_.end()) return;
  record.node = it->first;
  record.scope = it->second.scope;
  record.source = it->second.source;
}

// A checkpoint repeats its operators in their order, each once, so the first
// unmatched forward call of the same operator is the repeated one.
void Session::LinkToRepeated(OpRecord& record) {
  std::deque<size_t>& candidates = forward_ops_[record.name];
  auto match =
      std::find_if(candidates.begin(), candidates.end(), [&](size_t index) {
        const OpRecord& forward = tape_.ops[index];
        return forward.scope == record.scope || record.scope == 0;
      });
  if (match != candidates.end()) {
    const OpRecord& forward = tape_.ops[*match];
    record.scope = forward.scope;
    record.source = forward.source;
    if (forward.node >= 0) last_repeated_ = forward.node;
    candidates.erase(match);
  }
  // An operator outside autograd repeats for the sake of the differentiable one
  // before it.
  record.recompute_of = std::max<int64_t>(last_repeated_, 0);
}

}  // namespace heddle::capture
