// RMSNorm: y = x * rsqrt(mean(x^2) + eps) * w over the last dimension, and its
// gradients.
#include "ir/dist/DistDialect.h"
#include "passes/fusion/forms.h"

namespace heddle::graph {

using namespace mlir;

namespace {

// What one block of the gradient kernel keeps in shared memory.
constexpr int64_t kMaxHidden = 50000;
// Rows are spread over that many partial sums of the weight's gradient.
constexpr int64_t kMaxPartials = 512;

bool overLast(Operation* op) {
  auto dims = op->getAttrOfType<DenseI64ArrayAttr>("dim");
  int64_t rank = tensorType(op->getOperand(0)).getRank();
  return dims && dims.size() == 1 && (dims[0] == -1 || dims[0] == rank - 1);
}

bool overAllButLast(Operation* op) {
  auto dims = op->getAttrOfType<DenseI64ArrayAttr>("dim");
  int64_t rank = tensorType(op->getOperand(0)).getRank();
  if (!dims || dims.size() != rank - 1) return false;
  for (int64_t i = 0; i + 1 < rank; ++i)
    if (dims[i] != i) return false;
  return true;
}

bool keeps(Operation* op) {
  auto kept = op->getAttrOfType<BoolAttr>("keepdim");
  return kept && kept.getValue();
}

// The sum of two values of the step that `value` is, if it may be computed
// where `at` stands.
Operation* sumBefore(Value value, Operation* at) {
  Operation* sum = value.getDefiningOp();
  if (!sum || sum->getName().stripDialect() != "add.Tensor" ||
      sum->getBlock() != at->getBlock())
    return nullptr;
  auto alpha = sum->getAttrOfType<IntegerAttr>("alpha");
  if (!alpha || alpha.getInt() != 1 ||
      sum->getOperand(0).getType() != value.getType() ||
      sum->getOperand(1).getType() != value.getType())
    return nullptr;
  return sum;
}

// A sum that nobody reads before `at`, which then makes it.
Operation* sumMadeBy(Value value, Operation* at) {
  Operation* sum = sumBefore(value, at);
  if (!sum) return nullptr;
  for (Operation* user : sum->getUsers()) {
    Operation* here = at->getBlock()->findAncestorOpInBlock(*user);
    if (here != at && here->isBeforeInBlock(at)) return nullptr;
  }
  return sum;
}

// The up to three values whose sum `gradient` is.
llvm::SmallVector<Value> addends(Value gradient, Operation* at) {
  llvm::SmallVector<Value> parts = {gradient};
  for (size_t i = 0; i < parts.size() && parts.size() < 3;) {
    Operation* sum = parts[i].hasOneUse() ? sumBefore(parts[i], at) : nullptr;
    if (!sum) {
      ++i;
      continue;
    }
    parts[i] = sum->getOperand(0);
    parts.insert(parts.begin() + i + 1, sum->getOperand(1));
  }
  return parts;
}

std::string forwardForm(Pair& pair, const Scope& scope, Match& match) {
  CompositeOp forward = pair.forward;
  Value y;
  for (OpResult result : forward.getResults()) {
    if (scope.matches(result,
                      "(mul.Tensor ?w (mul.Tensor ?x (rsqrt:root "
                      "(add.Scalar:eps (mean.dim:mean "
                      "(pow.Tensor_Scalar=2 ?x))))))",
                      match)) {
      y = result;
      break;
    }
  }
  if (!y) return "its operators are not x * rsqrt(mean(x^2) + eps) * w";
  Value x = match["x"], w = match["w"];
  if (std::string why = checkRows({x, w, y}); !why.empty()) return why;
  int64_t hidden = tensorType(x).getShape().back();
  if (tensorType(w).getRank() != 1 || tensorType(w).getDimSize(0) != hidden ||
      tensorType(y).getShape() != tensorType(x).getShape() ||
      !overLast(match.op("mean")) || !keeps(match.op("mean")))
    return "it does not scale the last dimension by a vector";
  if (hidden > kMaxHidden)
    return "rows of " + std::to_string(hidden) + " elements are longer than " +
           std::to_string(kMaxHidden);
  auto rootType =
      llvm::cast<RankedTensorType>(match.op("root")->getResult(0).getType());
  if (!rootType.getElementType().isF32() || !isContiguous(rootType))
    return "it is not computed in f32";
  auto other = match.op("eps")->getAttr("other");
  double eps =
      llvm::isa<FloatAttr>(other)
          ? llvm::cast<FloatAttr>(other).getValueAsDouble()
          : static_cast<double>(llvm::cast<IntegerAttr>(other).getInt());

  Launch& launch = pair.first;
  launch.kernel = "rms_norm";
  Operation* sum = sumMadeBy(x, forward);
  launch.operand("x", sum ? sum->getOperand(0) : x);
  if (sum) launch.operand("addend", sum->getOperand(1));
  launch.operand("weight", w);
  launch.scalars = {
      {"eps", FloatAttr::get(Float64Type::get(x.getContext()), eps)}};
  launch.replaces.push_back({y, launch.result(y.getType())});
  launch.result(rootType);
  if (sum) launch.replaces.push_back({x, launch.result(x.getType(), "x")});
  for (OpResult result : forward.getResults()) {
    if (result != y && scope.origin(result) == match.op("root")->getResult(0))
      launch.replaces.push_back({result, 1});
  }
  return "";
}

// One value, or what two gathers of one shard bring: the backward pass over a
// sharded layer has its parameters from a gather of its own.
bool isSameParameter(Value a, Value b) {
  if (a == b) return true;
  auto first = a.getDefiningOp<dist::SlotOp>(),
       second = b.getDefiningOp<dist::SlotOp>();
  if (!first || !second || first.getOffset() != second.getOffset() ||
      a.getType() != b.getType())
    return false;
  auto gathered = first.getBucket().getDefiningOp<dist::AllGatherOp>(),
       again = second.getBucket().getDefiningOp<dist::AllGatherOp>();
  return gathered && again && gathered.getValue() == again.getValue();
}

std::string backwardForm(Pair& pair, const Scope& scope, Match match) {
  CompositeOp backward = pair.backward;
  match.values["root"] = match.op("root")->getResult(0);
  match.values["again"] = match["w"];
  for (Value operand : backward->getOperands())
    if (isSameParameter(match["w"], operand)) match.values["again"] = operand;
  const llvm::StringRef direct = "(mul.Tensor (mul.Tensor ?dy ?again) ?root)";
  const llvm::StringRef throughMean =
      "(mul.Tensor (div.Scalar:count (expand (mul.Tensor (mul.Scalar=-0.5 "
      "(sum.dim_IntList:sum (mul.Tensor (mul.Tensor ?dy ?again) ?x))) "
      "(pow.Tensor_Scalar=3 ?root)))) (mul.Scalar=2 (pow.Tensor_Scalar=1 "
      "?x)))";
  Value dx, residual;
  for (OpResult result : backward.getResults()) {
    llvm::SmallVector<Value> terms = scope.termsOf(result);
    if (terms.size() < 2 || terms.size() > 3) continue;
    Match attempt = match;
    auto take = [&](llvm::StringRef pattern) {
      for (Value* at = terms.begin(); at != terms.end(); ++at) {
        if (!scope.matches(*at, pattern, attempt)) continue;
        terms.erase(at);
        return true;
      }
      return false;
    };
    if (!take(direct) || !take(throughMean)) continue;
    match = attempt;
    dx = result;
    if (!terms.empty()) residual = terms[0];
    break;
  }
  Value x = match["x"], w = match["again"];
  int64_t hidden = tensorType(x).getShape().back();
  if (!dx || !overLast(match.op("sum")) || !keeps(match.op("sum")))
    return "its gradient is not computed as expected";
  Match count;
  if (!scope.matches(match.op("count")->getResult(0),
                     "(div.Scalar=" + std::to_string(hidden) + " ?any)", count))
    return "its gradient is not computed as expected";
  Value dw;
  for (OpResult result : backward.getResults()) {
    if (result == dx) continue;
    for (llvm::StringRef pattern :
         {"(view (sum.dim_IntList:rows (mul.Tensor ?dy (mul.Tensor ?x "
          "?root))))",
          "(sum.dim_IntList:rows (mul.Tensor ?dy (mul.Tensor ?x ?root)))"}) {
      if (scope.matches(result, pattern, match)) dw = result;
      if (dw) break;
    }
    if (!dw || !overAllButLast(match.op("rows")) || dw != result)
      return "it has a result that is neither gradient";
  }
  // A value of the backward body cannot be an operand of its kernel.
  Value dy = match["dy"];
  for (Value value : {dy, residual}) {
    if (value && value.getDefiningOp() && scope.contains(value.getDefiningOp()))
      return "its gradient is computed from a value in its midst";
  }
  if (std::string why = checkRows({dy, x, w, dx}); !why.empty()) return why;
  if (residual)
    if (std::string why = checkRows({residual, dx}); !why.empty()) return why;
  if (dw && (tensorType(dw).getShape() != tensorType(w).getShape() ||
             elementOf(dw) != elementOf(w)))
    return "the weight's gradient is not of the weight's type";
  for (Value value : {dy, dx, residual}) {
    if (value && tensorType(value).getShape() != tensorType(x).getShape())
      return "its gradients are not of its operand's shape";
  }

  Launch& launch = pair.second;
  launch.kernel = "rms_norm_backward";
  const char* const names[] = {"dy", "dy1", "dy2"};
  for (auto [i, part] : llvm::enumerate(addends(dy, backward)))
    launch.operand(names[i], part);
  launch.operand("x", x);
  launch.operand("weight", w);
  launch.saved("rstd", 1);
  if (residual) launch.operand("residual", residual);
  launch.replaces.push_back({dx, launch.result(dx.getType(), "dy")});
  if (dx.getType() != launch.operands[0].value.getType())
    launch.overwrites.back() = "";
  launch.result(dw ? dw.getType() : Type(tensorType(w)));
  if (dw) launch.replaces.push_back({dw, 1});
  int64_t rows = tensorType(x).getNumElements() / hidden;
  launch.result(rowMajor({std::min(rows, kMaxPartials), hidden},
                         Float32Type::get(x.getContext())));
  return "";
}

}  // namespace

std::string rmsNormForm(Pair& pair) {
  Scope scope(pair.forward, pair.backward);
  Match match;
  if (std::string why = forwardForm(pair, scope, match); !why.empty())
    return why;
  return pair.backward ? backwardForm(pair, scope, match) : "";
}

}  // namespace heddle::graph
