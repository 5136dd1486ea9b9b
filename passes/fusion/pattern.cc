// A recursive comparison with backtracking over the operand order of sums and
// products. Invariant: a failed attempt leaves no binding behind.
#include "passes/fusion/pattern.h"

#include <optional>

namespace heddle::graph {

using namespace mlir;

namespace {

// One parenthesis of a pattern, or a variable (no parts).
struct Node {
  std::string name;
  std::string label;
  std::optional<double> number;
  std::vector<Node> parts;
  bool variable = false;
};

Node parse(llvm::StringRef& text) {
  Node node;
  text = text.ltrim();
  bool parenthesis = text.consume_front("(");
  node.variable = !parenthesis && text.consume_front("?");
  node.name = text.take_until([](char c) {
                    return c == ' ' || c == ')' || c == ':' || c == '=';
                  })
                  .str();
  text = text.drop_front(node.name.size());
  if (text.consume_front(":")) {
    node.label =
        text.take_until([](char c) { return c == ' ' || c == ')' || c == '='; })
            .str();
    text = text.drop_front(node.label.size());
  }
  if (text.consume_front("=")) {
    llvm::StringRef number =
        text.take_until([](char c) { return c == ' ' || c == ')'; });
    double value = 0;
    number.getAsDouble(value);
    node.number = value;
    text = text.drop_front(number.size());
  }
  if (!parenthesis) return node;
  for (text = text.ltrim(); !text.consume_front(")"); text = text.ltrim())
    node.parts.push_back(parse(text));
  return node;
}

bool hasNumber(Operation* op, double want) {
  for (llvm::StringRef name : {"exponent", "other"}) {
    Attribute value = op->getAttr(name);
    if (auto integer = llvm::dyn_cast_or_null<IntegerAttr>(value))
      return static_cast<double>(integer.getInt()) == want;
    if (auto real = llvm::dyn_cast_or_null<FloatAttr>(value))
      return real.getValueAsDouble() == want;
  }
  return false;
}

bool isPlainSum(Operation* op) {
  auto alpha = op->getAttrOfType<IntegerAttr>("alpha");
  return op->getName().stripDialect() == "add.Tensor" && alpha &&
         alpha.getInt() == 1;
}

bool matchNode(const Scope& scope, Value value, const Node& node,
               Match& match) {
  value = scope.origin(value);
  if (node.variable) {
    auto [at, fresh] = match.values.try_emplace(node.name, value);
    return fresh || at->second == value;
  }
  Operation* op = value.getDefiningOp();
  if (!op || op->getName().stripDialect() != node.name ||
      op->getNumOperands() < node.parts.size() || op->getResult(0) != value ||
      !scope.contains(op))
    return false;
  if (node.number && !hasNumber(op, *node.number)) return false;
  if (node.name == "add.Tensor" && !isPlainSum(op)) return false;
  bool swaps = node.name == "add.Tensor" || node.name == "mul.Tensor";
  for (bool swapped : {false, true}) {
    if (swapped && !swaps) break;
    Match attempt = match;
    bool same = true;
    for (size_t i = 0; same && i < node.parts.size(); ++i)
      same = matchNode(scope, op->getOperand(swapped ? 1 - i : i),
                       node.parts[i], attempt);
    if (!same) continue;
    match = std::move(attempt);
    if (!node.label.empty()) match.ops[node.label] = op;
    return true;
  }
  return false;
}

bool isFloatCast(Operation* op) {
  if (op->getName().stripDialect() != "_to_copy") return false;
  auto from = llvm::cast<RankedTensorType>(op->getOperand(0).getType());
  auto to = llvm::cast<RankedTensorType>(op->getResult(0).getType());
  return llvm::isa<FloatType>(from.getElementType()) &&
         llvm::isa<FloatType>(to.getElementType()) &&
         from.getShape() == to.getShape();
}

}  // namespace

bool Scope::contains(Operation* op) const {
  Operation* parent = op->getParentOp();
  return parent && (parent == forward || parent == backward);
}

Value Scope::origin(Value value) const {
  auto isOurs = [&](Operation* op) {
    return op && (op == forward || op == backward);
  };
  for (;;) {
    if (auto argument = llvm::dyn_cast<BlockArgument>(value)) {
      Operation* parent = argument.getOwner()->getParentOp();
      if (!isOurs(parent)) return value;
      value = parent->getOperand(argument.getArgNumber());
      continue;
    }
    Operation* op = value.getDefiningOp();
    if (isOurs(op)) {
      value = op->getRegion(0).front().getTerminator()->getOperand(
          llvm::cast<OpResult>(value).getResultNumber());
      continue;
    }
    if (!contains(op) || !isFloatCast(op)) return value;
    value = op->getOperand(0);
  }
}

bool Scope::matches(Value value, llvm::StringRef pattern, Match& match) const {
  Node node = parse(pattern);
  Match attempt = match;
  if (!matchNode(*this, value, node, attempt)) return false;
  match = std::move(attempt);
  return true;
}

llvm::SmallVector<Value> Scope::termsOf(Value value) const {
  value = origin(value);
  Operation* op = value.getDefiningOp();
  if (!op || !contains(op) || !isPlainSum(op)) return {value};
  llvm::SmallVector<Value> terms = termsOf(op->getOperand(0));
  llvm::append_range(terms, termsOf(op->getOperand(1)));
  return terms;
}

}  // namespace heddle::graph
