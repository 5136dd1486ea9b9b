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
namespace {

// The node whose backward runs, or nothing.
std::shared_ptr<torch::autograd::Node> CurrentNode() {
  auto node = torch::autograd::get_current_node();
  return node && node->sequence_nr() != UINT64_MAX ? node : nullptr;
}

}  // namespace

void Session::LinkToAutograd(OpRecord& record) {
  record.phase = phase_;
  record.scope = scopes_.back();
  uint64_t sequence = at::sequence_number::peek();
  // VariableType builds an operator's Node before it redispatches to us, so a
  // number that moved belongs to this operator.
  if ((phase_ == Phase::kForward || Repeats()) && at::GradMode::is_enabled() &&
      sequence != last_sequence_)
    record.node = static_cast<int64_t>(sequence - first_sequence_) - 1;
  last_sequence_ = sequence;
  if (phase_ == Phase::kForward) {
    if (options_.source_of_caller) record.source = options_.source_of_caller();
    if (record.node >= 0) nodes_[record.node] = {record.scope, record.source};
  } else if (const NodeInfo* forward = Repeats() ? nullptr : RunningNode()) {
    record.node =
        static_cast<int64_t>(CurrentNode()->sequence_nr() - first_sequence_);
    record.scope = forward->scope;
    record.source = forward->source;
  }
}

// Gradient mode is off in backward, but for the forward that a checkpoint runs
// again; where that turns it off too, the generator it set back tells.
bool Session::Repeats() const {
  return phase_ == Phase::kBackward &&
         (at::GradMode::is_enabled() || generator_set_back_) &&
         torch::autograd::get_current_node() != nullptr;
}

const Session::NodeInfo* Session::RunningNode() const {
  auto node = CurrentNode();
  if (!node) return nullptr;
  auto it =
      nodes_.find(static_cast<int64_t>(node->sequence_nr() - first_sequence_));
  return it == nodes_.end() ? nullptr : &it->second;
}

// What an operator is called on: its name, and where its operands lie, storages
// of a repetition standing for those that they repeat.
size_t Session::CallHash(const OpRecord& record) const {
  size_t hash = std::hash<c10::OperatorName>()(record.name);
  auto mix = [&](int64_t n) {
    hash = hash * 1000003 ^ std::hash<int64_t>()(n);
  };
  for (const Argument& argument : record.arguments) {
    for (ValueId id : argument.values) {
      if (id < 0) continue;
      const ValueInfo& info = tape_.values[id];
      auto repeated = repeated_storages_.find(info.storage);
      mix(repeated == repeated_storages_.end() ? info.storage
                                               : repeated->second);
      mix(info.offset);
      for (int64_t size : info.sizes) mix(size);
      for (int64_t stride : info.strides) mix(stride);
    }
  }
  return hash;
}

void Session::RememberForward(const OpRecord& record) {
  forward_ops_[CallHash(record)].push_back(tape_.ops.size());
}

// A checkpoint repeats its operators in their order on the same operands, so
// the repeated one is the first such call; it then goes behind its equals, for
// a checkpoint inside a checkpoint repeats it again.
void Session::LinkToRepeated(OpRecord& record) {
  std::deque<size_t>& candidates = forward_ops_[CallHash(record)];
  auto same_constants = [&](const OpRecord& forward) {
    return std::equal(forward.arguments.begin(), forward.arguments.end(),
                      record.arguments.begin(), record.arguments.end(),
                      [](const Argument& a, const Argument& b) {
                        return a.kind == b.kind &&
                               (a.kind != Argument::Kind::kConstant ||
                                a.constant == b.constant);
                      });
  };
  auto match =
      std::find_if(candidates.begin(), candidates.end(), [&](size_t index) {
        const OpRecord& forward = tape_.ops[index];
        return (forward.scope == record.scope || record.scope == 0) &&
               forward.name == record.name && same_constants(forward);
      });
  // What checkpoint itself does to its tensors repeats nothing.
  if (match != candidates.end()) {
    OpRecord& forward = tape_.ops[*match];
    // Outside autograd there is no number; one that autograd gives to nobody
    // else serves as well.
    if (forward.node < 0) {
      forward.node = static_cast<int64_t>(
          at::sequence_number::get_and_increment() - first_sequence_);
      last_sequence_ = at::sequence_number::peek();
    }
    record.scope = forward.scope;
    record.source = forward.source;
    record.recompute_of = forward.node;
    for (size_t i = 0; i < record.results.size(); ++i) {
      if (record.results[i] >= 0 && forward.results[i] >= 0)
        repeated_storages_.try_emplace(
            tape_.values[record.results[i]].storage,
            tape_.values[forward.results[i]].storage);
    }
    size_t index = *match;
    candidates.erase(match);
    candidates.push_back(index);
  }
  if (record.node >= 0) nodes_[record.node] = {record.scope, record.source};
}

std::string Session::Place(const std::string& op) const {
  NodeInfo where{scopes_.back(), 0};
  if (phase_ == Phase::kBackward) {
    if (const NodeInfo* forward = RunningNode()) where = *forward;
  }
  const std::string& scope = tape_.scopes[where.scope];
  const SourceLine& line = tape_.sources[where.source];
  return "operator " + op + " in module '" +
         (scope.empty() ? "<root>" : scope) + "'" +
         (phase_ == Phase::kBackward ? " (backward)" : "") +
         (line.file.empty()
              ? ""
              : " of " + line.file + ":" + std::to_string(line.line));
}

}  // namespace heddle::capture
