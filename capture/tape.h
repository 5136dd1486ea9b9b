// What a capture leaves behind: a flat list of operator calls on numbered
// values, as plain C++ data. The invariant a reader must hold: a value is a
// handle on a storage, so two values may alias; a call that mutates an operand
// gives that handle a new number, and only the storage says which other values
// changed with it. Reordering records without functionalizing them first breaks
// that.
#ifndef HEDDLE_CAPTURE_TAPE_H_
#define HEDDLE_CAPTURE_TAPE_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/operator_name.h>

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::capture {

using ValueId =
    int32_t;  // -1: an absent optional tensor, or a result nobody asked for.

enum class Phase : uint8_t { kForward, kBackward };

struct ValueInfo {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // In elements.
  int64_t offset = 0;            // In elements, from the start of the storage.
  int32_t storage = -1;
};

// One schema argument of a call. A constant keeps its IValue; tensors are value
// numbers.
struct Argument {
  enum class Kind : uint8_t { kConstant, kTensor, kTensorList };
  Kind kind = Kind::kConstant;
  std::vector<ValueId> values;
  c10::IValue constant;
};

struct OpRecord {
  c10::OperatorName name{"", ""};
  const c10::FunctionSchema* schema = nullptr;
  std::vector<Argument> arguments;  // Schema order.
  std::vector<ValueId> results;     // Tensor results, lists flattened.
  std::vector<int64_t>
      mutates;  // Positions among the flattened tensor operands.
  bool results_are_operands = false;  // The results of a mutating call are the
                                      // handles of what it wrote.
  Phase phase = Phase::kForward;
  int64_t node = -1;  // Autograd sequence number shared by a forward op and its
                      // backward ops.
  int64_t recompute_of =
      -1;  // Node of the forward op that this one repeats inside a checkpoint.
  int64_t rng_id = -1;
  int32_t scope = 0;   // Index into Tape::scopes.
  int32_t source = 0;  // Index into Tape::sources.
  std::vector<int64_t>
      guard_expected;  // Non-empty: a graph.guard on arguments[0] instead of an
                       // operator call.
};

// An argument of the captured step.
struct Binding {
  enum class Kind : uint8_t { kParameter, kBuffer, kInput, kConstant };
  Kind kind = Kind::kInput;
  std::vector<std::string> names;  // Several for tied weights.
  bool flag = false;               // Parameter: trainable. Buffer: persistent.
  std::string role;  // Parameter: embedding, head, norm, bias, matrix, stack,
                     // router_bias, other.
  ValueId value = -1;
  at::Tensor
      data;  // Constants and non-persistent buffers: what the sidecar holds.
};

struct Result {
  std::string kind;  // loss, gradient, output
  std::string name;
  ValueId value = -1;
};

struct SourceLine {
  std::string file;
  int64_t line = 0;
};

struct Tape {
  std::string target;     // cpu | cuda
  std::string precision;  // fp64 | fp32 | bf16 | fp16
  std::string torch_version;
  std::vector<ValueInfo> values;
  std::vector<int64_t> storage_bytes;
  std::vector<OpRecord> ops;
  std::vector<Binding> bindings;
  std::vector<Result> results;
  std::vector<std::string> scopes{""};
  std::vector<SourceLine> sources{SourceLine{}};
};

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_TAPE_H_
