// The gradient of a tied embedding: what the head's product gives plus the rows
// that the lookups scatter. The kernel adds the rows where they belong and does
// not make a matrix of zeros first.
#include "passes/fusion/forms.h"

namespace heddle::graph {

using namespace mlir;

namespace {

// The kernel looks for the tokens of one row among all tokens.
constexpr int64_t kMaxTokens = 16384;

}  // namespace

std::string embeddingSumForm(Operation* sum, Launch& launch) {
  auto alpha = sum->getAttrOfType<IntegerAttr>("alpha");
  if (sum->getName().stripDialect() != "add.Tensor" || !alpha ||
      alpha.getInt() != 1)
    return "-";
  Operation* scatter = nullptr;
  Value base;
  for (unsigned i : {0u, 1u}) {
    Operation* op = sum->getOperand(i).getDefiningOp();
    if (scatter || !op ||
        op->getName().stripDialect() != "embedding_dense_backward")
      continue;
    scatter = op;
    base = sum->getOperand(1 - i);
  }
  if (!scatter) return "-";
  Value rows = scatter->getOperand(0), indices = scatter->getOperand(1);
  Value out = sum->getResult(0);
  if (!scatter->getResult(0).hasOneUse())
    return "the embedding's own gradient is read too";
  if (scatter->getAttrOfType<BoolAttr>("scale_grad_by_freq").getValue())
    return "it is scaled by frequency";
  if (base.getType() != out.getType() ||
      scatter->getResult(0).getType() != out.getType() ||
      !isContiguous(tensorType(out)) || !isContiguous(tensorType(indices)) ||
      !elementOf(indices).isInteger(64))
    return "its tensors are not row-major and alike";
  if (std::string why = checkRows({out, rows}); !why.empty()) return why;
  if (tensorType(indices).getNumElements() > kMaxTokens)
    return std::to_string(tensorType(indices).getNumElements()) +
           " tokens are more than " + std::to_string(kMaxTokens);
  launch.kernel = "embedding_backward_add";
  launch.operand("base", base);
  launch.operand("dy", rows);
  launch.operand("indices", indices);
  launch.scalars = {{"padding_idx", scatter->getAttr("padding_idx")}};
  launch.replaces.push_back({out, launch.result(out.getType(), "base")});
  return "";
}

}  // namespace heddle::graph
