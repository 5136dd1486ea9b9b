// The composites that kernels exist for. A form looks at a forward composite
// and its backward one and says what would be launched in their place.
// Invariant: forms read the program and change nothing; a form that fails says
// why, in words that fit after "left to be inlined: ".
#ifndef HEDDLE_PASSES_FUSION_FORMS_H_
#define HEDDLE_PASSES_FUSION_FORMS_H_

#include <string>

#include "passes/fusion/pattern.h"

namespace heddle::graph {

// One graph.kernel to be. Its operands are values of the step, or results of
// the forward kernel of the same pair.
struct Launch {
  struct Operand {
    std::string name;
    mlir::Value value;
    int forwardResult = -1;
  };

  std::string kernel;
  llvm::SmallVector<Operand> operands;
  llvm::SmallVector<mlir::Type> results;
  // Per result, the name of the operand that it may be written over, or "".
  llvm::SmallVector<std::string> overwrites;
  llvm::SmallVector<std::pair<std::string, mlir::Attribute>> scalars;
  // Values of the step that results take the place of.
  llvm::SmallVector<std::pair<mlir::Value, unsigned>> replaces;

  void operand(std::string name, mlir::Value value) {
    operands.push_back({std::move(name), value});
  }
  void saved(std::string name, unsigned forwardResult) {
    operands.push_back(
        {std::move(name), mlir::Value(), static_cast<int>(forwardResult)});
  }
  // Returns the result's number.
  unsigned result(mlir::Type type, std::string over = "") {
    results.push_back(type);
    overwrites.push_back(std::move(over));
    return results.size() - 1;
  }
};

// A forward composite, its backward one (or null), and what replaces them.
struct Pair {
  CompositeOp forward;
  CompositeOp backward;
  Launch first;
  Launch second;
  // Where the gradient's only reader is a copy of its transpose that the kernel
  // makes needless.
  mlir::Operation* transposed = nullptr;
  mlir::Operation* clone = nullptr;
};

// "" or why not.
using Form = std::string (*)(Pair& pair);
std::string rmsNormForm(Pair& pair);
std::string swigluForm(Pair& pair);
std::string rotaryForm(Pair& pair);
std::string crossEntropyForm(Pair& pair);

// The gradient of an embedding added to another gradient of its weight (a tied
// head's): `sum` is the addition. "" or why not; a sum of other things is no
// form at all and gives "-".
std::string embeddingSumForm(mlir::Operation* sum, Launch& launch);

// What types say about a kernel's reach.

inline mlir::RankedTensorType tensorType(mlir::Value value) {
  return llvm::cast<mlir::RankedTensorType>(value.getType());
}
inline mlir::Type elementOf(mlir::Value value) {
  return tensorType(value).getElementType();
}
llvm::SmallVector<int64_t> stridesOf(mlir::RankedTensorType type);
// "" if every value is a bf16, f16 or f32 tensor of one element type and of up
// to four dimensions whose last one is dense; else what is not.
std::string checkRows(std::initializer_list<mlir::Value> values);
mlir::RankedTensorType rowMajor(llvm::ArrayRef<int64_t> shape,
                                mlir::Type element);
bool isContiguous(mlir::RankedTensorType type);

}  // namespace heddle::graph

#endif  // HEDDLE_PASSES_FUSION_FORMS_H_
