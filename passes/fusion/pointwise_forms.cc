// SwiGLU, silu(gate) * up, and rotary embedding by halves, x * cos +
// rotate_half(x) * sin, with their gradients.
#include "llvm/ADT/STLExtras.h"
#include "passes/fusion/forms.h"

namespace heddle::graph {

using namespace mlir;

namespace {

Value resultMatching(CompositeOp composite, const Scope& scope,
                     llvm::StringRef pattern, Match& match) {
  for (OpResult result : composite.getResults())
    if (scope.matches(result, pattern, match)) return result;
  return nullptr;
}

bool sameTypes(std::initializer_list<Value> values) {
  return llvm::all_of(values, [&](Value value) {
    return value.getType() == (*values.begin()).getType();
  });
}

std::string denseAlike(std::initializer_list<Value> values) {
  if (std::string why = checkRows({*values.begin()}); !why.empty()) return why;
  if (!sameTypes(values)) return "its tensors are of different types";
  if (!isContiguous(tensorType(*values.begin())))
    return "its tensors are not row-major";
  return "";
}

// True if `slice` takes [start, end) of the last dimension.
bool takes(Operation* slice, int64_t start, int64_t end, int64_t size) {
  auto number = [&](llvm::StringRef name, int64_t otherwise) {
    auto value = slice->getAttrOfType<IntegerAttr>(name);
    return value ? value.getInt() : otherwise;
  };
  int64_t rank = tensorType(slice->getNumResults() ? slice->getResult(0)
                                                   : slice->getOperand(0))
                     .getRank();
  int64_t dim = number("dim", 0);
  return (dim == rank - 1 || dim == -1) && number("step", 1) == 1 &&
         number("start", 0) == start &&
         std::min(number("end", size), size) == end;
}

// Whether `table` is cos or sin for `x`: of its element type, the last
// dimension whole, every other either whole or one.
bool isTableFor(Value table, Value x) {
  llvm::ArrayRef<int64_t> have = tensorType(table).getShape(),
                          want = tensorType(x).getShape();
  if (have.size() > want.size() || have.back() != want.back()) return false;
  llvm::ArrayRef<int64_t> tail = want.take_back(have.size());
  return llvm::all_of(llvm::zip(have, tail), [](auto pair) {
    return std::get<0>(pair) == 1 || std::get<0>(pair) == std::get<1>(pair);
  });
}

// The type with which a value of `type` becomes, transposed as `transpose`
// does, the row-major `contiguous`.
RankedTensorType transposedFrom(RankedTensorType contiguous,
                                Operation* transpose, RankedTensorType type) {
  int64_t rank = type.getRank();
  auto dim = [&](llvm::StringRef name) {
    int64_t d = transpose->getAttrOfType<IntegerAttr>(name).getInt();
    return d < 0 ? d + rank : d;
  };
  llvm::SmallVector<int64_t> strides = stridesOf(contiguous);
  std::swap(strides[dim("dim0")], strides[dim("dim1")]);
  int64_t bytes = type.getNumElements() *
                  (type.getElementType().getIntOrFloatBitWidth() / 8);
  return RankedTensorType::get(
      type.getShape(), type.getElementType(),
      LayoutAttr::get(type.getContext(), strides, 0, bytes));
}

}  // namespace

std::string swigluForm(Pair& pair) {
  Scope scope(pair.forward, pair.backward);
  Match match;
  Value y = resultMatching(pair.forward, scope, "(mul.Tensor (silu ?gate) ?up)",
                           match);
  if (!y) return "its operators are not silu(gate) * up";
  Value gate = match["gate"], up = match["up"];
  if (std::string why = denseAlike({gate, up, y}); !why.empty()) return why;
  Launch& first = pair.first;
  first.kernel = "swiglu";
  first.operand("gate", gate);
  first.operand("up", up);
  first.replaces.push_back({y, first.result(y.getType())});
  if (!pair.backward) return "";

  Value dup = resultMatching(pair.backward, scope,
                             "(mul.Tensor ?dy (silu ?gate))", match);
  Value dgate =
      resultMatching(pair.backward, scope,
                     "(silu_backward (mul.Tensor ?dy ?up) ?gate)", match);
  if (!dup || !dgate || pair.backward.getNumResults() != 2)
    return "its gradient is not computed as expected";
  Value dy = match["dy"];
  if (dy.getDefiningOp() && scope.contains(dy.getDefiningOp()))
    return "its gradient is computed from a value in its midst";
  if (std::string why = denseAlike({gate, dy, dgate, dup}); !why.empty())
    return why;
  Launch& second = pair.second;
  second.kernel = "swiglu_backward";
  second.operand("dy", dy);
  second.operand("gate", gate);
  second.operand("up", up);
  second.replaces.push_back({dgate, second.result(gate.getType(), "gate")});
  second.replaces.push_back({dup, second.result(up.getType(), "up")});
  return "";
}

std::string rotaryForm(Pair& pair) {
  Scope scope(pair.forward, pair.backward);
  Match match;
  Value y = resultMatching(
      pair.forward, scope,
      "(add.Tensor (mul.Tensor ?x ?cos) (mul.Tensor (cat:cat (neg "
      "(slice.Tensor:high ?x)) (slice.Tensor:low ?x)) ?sin))",
      match);
  if (!y || pair.forward.getNumResults() != 1)
    return "its operators are not x * cos + rotate_half(x) * sin";
  Value x = match["x"], cosine = match["cos"], sine = match["sin"];
  if (std::string why = checkRows({x, cosine, sine, y}); !why.empty())
    return why;
  int64_t size = tensorType(x).getShape().back(), half = size / 2;
  auto dim = match.op("cat")->getAttrOfType<IntegerAttr>("dim");
  if (size % 2 != 0 || match.op("cat")->getNumOperands() != 2 || !dim ||
      (dim.getInt() != -1 && dim.getInt() != tensorType(x).getRank() - 1) ||
      !takes(match.op("low"), 0, half, size) ||
      !takes(match.op("high"), half, size, size) || !isTableFor(cosine, x) ||
      !isTableFor(sine, x) ||
      tensorType(y).getShape() != tensorType(x).getShape())
    return "it does not rotate the halves of the last dimension";
  Launch& first = pair.first;
  first.kernel = "rotary";
  first.operand("x", x);
  first.operand("cos", cosine);
  first.operand("sin", sine);
  first.replaces.push_back({y, first.result(y.getType(), "x")});
  if (!pair.backward) return "";

  if (pair.backward.getNumResults() != 1)
    return "its gradient is not computed as expected";
  Value dx = pair.backward.getResult(0);
  llvm::SmallVector<Value> terms = scope.termsOf(dx);
  // Finds each part among the terms; the order of the additions is autograd's.
  for (llvm::StringRef part :
       {"(slice_backward:high_of (neg (slice.Tensor:first (mul.Tensor ?dy "
        "?sin))))",
        "(slice_backward:low_of (slice.Tensor:second (mul.Tensor ?dy ?sin)))",
        "(mul.Tensor ?dy ?cos)"}) {
    auto at = llvm::find_if(
        terms, [&](Value term) { return scope.matches(term, part, match); });
    if (at == terms.end()) return "its gradient is not computed as expected";
    terms.erase(at);
  }
  Value dy = match["dy"];
  if (!terms.empty() || !takes(match.op("first"), 0, half, size) ||
      !takes(match.op("second"), half, size, size) ||
      !takes(match.op("high_of"), half, size, size) ||
      !takes(match.op("low_of"), 0, half, size) ||
      tensorType(dy).getShape() != tensorType(x).getShape())
    return "its gradient is not computed as expected";
  if (dy.getDefiningOp() && scope.contains(dy.getDefiningOp()))
    return "its gradient is computed from a value in its midst";
  if (std::string why = checkRows({dy, cosine, sine, dx}); !why.empty())
    return why;
  Launch& second = pair.second;
  second.kernel = "rotary_backward";
  second.operand("dy", dy);
  second.operand("cos", cosine);
  second.operand("sin", sine);
  // The copy that puts the transposed gradient in order is not needed if the
  // kernel writes it so.
  Operation* transpose = dx.hasOneUse() ? *dx.user_begin() : nullptr;
  Operation* clone =
      transpose && transpose->getName().stripDialect() == "transpose.int" &&
              transpose->hasOneUse()
          ? *transpose->user_begin()
          : nullptr;
  auto format = clone && clone->getName().stripDialect() == "clone"
                    ? clone->getAttrOfType<StringAttr>("memory_format")
                    : StringAttr();
  RankedTensorType type = tensorType(dx);
  if (format && format.getValue() == "contiguous" &&
      isContiguous(tensorType(clone->getResult(0)))) {
    type = transposedFrom(tensorType(clone->getResult(0)), transpose, type);
    pair.transposed = transpose;
    pair.clone = clone;
  }
  second.replaces.push_back(
      {dx, second.result(type, type == dy.getType() ? "dy" : "")});
  return "";
}

}  // namespace heddle::graph
