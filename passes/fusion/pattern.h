// Compares a value's computation with an expression written down as text:
//   (mul.Tensor ?w (mul.Tensor ?x (rsqrt:root (add.Scalar:eps ...))))
// A name in parentheses is a graph op, `?name` a value, `:label` names the op
// for later questions, `=3` demands that number as the op's exponent, factor or
// divisor. Invariant: two `?x` are one value. add.Tensor and mul.Tensor take
// their operands in either order. Casts between floats inside the composites
// are looked through; so is the border between a forward and its backward
// composite, so that a gradient is compared with what the forward one computed.
#ifndef HEDDLE_PASSES_FUSION_PATTERN_H_
#define HEDDLE_PASSES_FUSION_PATTERN_H_

#include <map>
#include <string>

#include "ir/graph/GraphOps.h"

namespace heddle::graph {

struct Match {
  std::map<std::string, mlir::Value> values;
  std::map<std::string, mlir::Operation*> ops;

  mlir::Value operator[](llvm::StringRef name) const {
    auto found = values.find(name.str());
    return found == values.end() ? mlir::Value() : found->second;
  }
  mlir::Operation* op(llvm::StringRef label) const {
    return ops.at(label.str());
  }
};

// What is looked into: a forward composite and its backward one, which may be
// null. Everything outside is taken as it is.
class Scope {
 public:
  Scope(CompositeOp forward, CompositeOp backward)
      : forward(forward.getOperation()), backward(backward) {}

  // The value behind float casts and the borders of the scope: an op's result
  // inside, or a value of the step.
  mlir::Value origin(mlir::Value value) const;
  // True if `value` is computed as `pattern` says; `match`, which may hold
  // values already, then holds the new ones too. Unchanged otherwise.
  bool matches(mlir::Value value, llvm::StringRef pattern, Match& match) const;
  // The terms of a tree of additions inside; `value` itself if it is none.
  llvm::SmallVector<mlir::Value> termsOf(mlir::Value value) const;
  bool contains(mlir::Operation* op) const;

 private:
  mlir::Operation* forward;
  mlir::Operation* backward;
};

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_FUSION_PATTERN_H_
