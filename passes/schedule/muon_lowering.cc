// optim.muon -> kernel steps: batch by batch, momentum of its matrices, one
// stacked Newton-Schulz per shape, their update. A rank's matrices are
// what `matrices` gives it, so every list has as many entries as the rank with
// most, and a rank leaves out what it does not have. Invariant: entry j of a
// list is the rank's j-th matrix of that shape in all lists. What would break
// it: operands in ranges of bytes of their own, which a rank-dependent choice
// could not address.
#include "ir/optim/OptimDialect.h"
#include "llvm/ADT/MapVector.h"
#include "passes/schedule/section_lowering.h"

namespace heddle {

using mlir::Attribute;
using mlir::failure;
using mlir::LogicalResult;
using mlir::success;
using mlir::Value;
using Matrix = optim::MuonOp::Matrix;

namespace {

// Of one shape: per rank, its matrices in order.
using ByRank = llvm::SmallVector<llvm::SmallVector<Matrix>>;

using ByShape = llvm::MapVector<std::pair<int64_t, int64_t>, ByRank>;

// Entries [first, first + count) of a shape's lists.
struct Piece {
  int64_t rows, columns;
  const ByRank* own;
  size_t first, count;
};
using Batch = llvm::SmallVector<Piece>;

size_t longest(const ByRank& ranks) {
  size_t length = 0;
  for (const auto& own : ranks) length = std::max(length, own.size());
  return length;
}

// All matrices in batches whose stacks, read and written, take at most `bytes`,
// except that a batch may hold two of a shape: one alone waits for itself.
// Shapes of more are cut into even pieces.
llvm::SmallVector<Batch> batchesOf(const ByShape& shapes, int64_t elementBytes,
                                   int64_t bytes) {
  llvm::SmallVector<Batch> batches;
  int64_t room = 0;
  for (const auto& [shape, own] : shapes) {
    const int64_t each = 2 * shape.first * shape.second * elementBytes;
    const int64_t count = longest(own);
    if (batches.empty() || each * count > room) {
      batches.emplace_back();
      room = bytes;
    }
    const int64_t fit =
        std::max<int64_t>(2, bytes / std::max<int64_t>(1, each));
    const int64_t pieces = (count + fit - 1) / fit;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      if (piece > 0) {
        batches.emplace_back();
        room = bytes;
      }
      const int64_t first = count * piece / pieces,
                    end = count * (piece + 1) / pieces;
      batches.back().push_back({shape.first, shape.second, &own,
                                static_cast<size_t>(first),
                                static_cast<size_t>(end - first)});
      room -= each * (end - first);
    }
  }
  return batches;
}

// The value that lies where entry `j` of each rank does, given the refs that
// the matrices' operands lie in.
Value entryRef(mlir::OpBuilder& builder, mlir::Location loc,
               llvm::ArrayRef<Value> operands, const ByRank& ranks, size_t j) {
  Value first = operands.front();
  auto like = first.getDefiningOp<sched::ValueOp>();
  mlir::Type element =
      mlir::cast<sched::RefType>(first.getType()).getTensor().getElementType();
  llvm::SmallVector<int64_t> offsets;
  mlir::RankedTensorType type;
  for (auto [rank, own] : llvm::enumerate(ranks)) {
    if (j >= own.size()) {
      offsets.push_back(-1);
      continue;
    }
    const Matrix& matrix = own[j];
    auto into = operands[matrix.operand].getDefiningOp<sched::ValueOp>();
    if (into.getBuffer() != like.getBuffer()) return nullptr;
    type = mlir::RankedTensorType::get({matrix.rows, matrix.columns}, element);
    bool part = !into.getRankOffsets().empty();
    offsets.push_back(into.getBase() +
                      (part ? into.getRankOffsets()[rank] + matrix.inShard
                            : matrix.inBucket));
  }
  return builder.create<sched::ValueOp>(
      loc, sched::RefType::get(type.getContext(), type), like.getBuffer(), 0, 0,
      offsets);
}

}  // namespace

// New parameters in the compute dtype are written where they belong: into this
// rank's part of what is gathered next, or of the state.
Value SectionLowering::muonCopyTarget(Value copy) {
  if (Value ref = wanted.lookup(copy)) return refs[copy] = ref;
  if (copy.hasOneUse()) {
    auto gather = mlir::dyn_cast<dist::AllGatherOp>(*copy.getUsers().begin());
    Value whole = gather ? wanted.lookup(gather.getResult()) : Value();
    if (whole)
      return refs[copy] = refInto(
                 builder, copy.getLoc(),
                 mlir::cast<mlir::RankedTensorType>(copy.getType()), whole,
                 partOf(gather.getBounds(),
                        mlir::cast<mlir::RankedTensorType>(copy.getType())
                            .getNumElements()));
  }
  mlir::emitError(copy.getLoc(),
                  "optim.muon's new parameters have no place of their own; "
                  "they must be a new bucket or gathered into one");
  return nullptr;
}

LogicalResult SectionLowering::lowerMuon(optim::MuonOp op) {
  mlir::Location loc = op.getLoc();
  Attribute operand = sched::OperandAttr::get(op.getContext());
  llvm::SmallVector<Value> params, grads, momenta, copies;
  Attribute divisor = builder.getF64FloatAttr(1.0);
  for (size_t i = 0; i < op.getParams().size(); ++i) {
    Value grad = op.getGrads()[i];
    if (auto average = grad.getDefiningOp<optim::AverageOp>()) {
      grad = average.getValue();
      divisor = sched::RuntimeAttr::get(op.getContext(), average.getDivisor());
    }
    params.push_back(refOf(op.getParams()[i]));
    grads.push_back(refOf(grad));
    momenta.push_back(refOf(op.getMomenta()[i]));
    if (!params.back() || !grads.back() || !momenta.back()) return failure();
    if (liveness.lastUse(op.getParams()[i]) > position ||
        liveness.lastUse(op.getMomenta()[i]) > position)
      return op.emitOpError("replaces a value that a later op of section '")
             << section.getName() << "' still reads";
    refs[op.getNewParams()[i]] = params.back();
    refs[op.getNewMomenta()[i]] = momenta.back();
    if (op.getCopies().empty()) continue;
    copies.push_back(muonCopyTarget(op.getCopies()[i]));
    if (!copies.back()) return failure();
  }
  int64_t ranks = 1;
  for (int64_t size : section->getParentOfType<sched::PlanOp>().getMeshSizes())
    ranks *= size;
  ByShape shapes;
  for (const Matrix& matrix : op.getMatrixRows()) {
    ByRank& own = shapes[{matrix.rows, matrix.columns}];
    own.resize(ranks);
    own[matrix.rank].push_back(matrix);
  }

  auto element = mlir::cast<sched::RefType>(momenta.front().getType())
                     .getTensor()
                     .getElementType();
  if (element.getIntOrFloatBitWidth() < 32) element = builder.getF32Type();
  auto list = [&](size_t length) {
    return builder.getArrayAttr(llvm::SmallVector<Attribute>(length, operand));
  };
  auto setting = [&](llvm::StringRef name) {
    return std::pair(name, op.getSettings().get(name));
  };
  llvm::SmallVector<Value> factor, finite;
  for (auto [value, refs] : {std::pair(op.getFactor(), &factor),
                             std::pair(op.getFinite(), &finite)}) {
    if (!value) continue;
    refs->push_back(refOf(value));
    if (!refs->back()) return failure();
  }
  auto joined = [](std::initializer_list<llvm::ArrayRef<Value>> lists) {
    llvm::SmallVector<Value> all;
    for (llvm::ArrayRef<Value> each : lists) llvm::append_range(all, each);
    return all;
  };
  using Args = llvm::SmallVector<std::pair<llvm::StringRef, Attribute>>;
  for (const Batch& batch :
       batchesOf(shapes, element.getIntOrFloatBitWidth() / 8, muonStack)) {
    // Lists over all shapes, and the stack of each shape.
    llvm::SmallVector<Value> gradList, momentumList, paramList, copyList,
        inputs, updates;
    struct Stack {
      llvm::SmallVector<Value> in, out;
    };
    llvm::SmallVector<Stack> stacks;
    for (const Piece& piece : batch) {
      auto stackType = mlir::RankedTensorType::get(
          {static_cast<int64_t>(piece.count), piece.rows, piece.columns},
          element);
      Value in = makeBuffer(builder, loc, stackType, sched::Arena::Scratch,
                            sched::Category::Temporary, "");
      Value out = makeBuffer(builder, loc, stackType, sched::Arena::Scratch,
                             sched::Category::Temporary, "");
      Stack& stack = stacks.emplace_back();
      for (size_t j = 0; j < piece.count; ++j) {
        const size_t entry = piece.first + j;
        for (auto [list, operands] :
             {std::pair(&gradList, &grads), std::pair(&momentumList, &momenta),
              std::pair(&paramList, &params), std::pair(&copyList, &copies)}) {
          if (operands->empty()) continue;
          list->push_back(entryRef(builder, loc, *operands, *piece.own, entry));
          if (!list->back())
            return op.emitOpError(
                "has operands that do not share one range of bytes");
        }
        Window window;
        window.offset = static_cast<int64_t>(j) * piece.rows * piece.columns;
        if (ranks > 1)
          for (const auto& mine : *piece.own)
            window.rankOffsets.push_back(entry < mine.size() ? 0 : -1);
        auto type =
            mlir::RankedTensorType::get({piece.rows, piece.columns}, element);
        stack.in.push_back(refInto(builder, loc, type, in, window));
        stack.out.push_back(refInto(builder, loc, type, out, window));
      }
      llvm::append_range(inputs, stack.in);
      llvm::append_range(updates, stack.out);
    }
    Args momentumArgs = {{"grads", list(gradList.size())},
                         {"momenta", list(gradList.size())}};
    if (!factor.empty()) momentumArgs.push_back({"factor", operand});
    if (!finite.empty()) momentumArgs.push_back({"finite", operand});
    momentumArgs.append({setting("momentum"),
                         setting("form"),
                         setting("nesterov"),
                         {"divisor", divisor}});
    kernel(op, "muon_momentum", momentumArgs,
           joined({gradList, momentumList, factor, finite}),
           joined({momentumList, inputs}));
    for (const Stack& stack : stacks)
      kernel(op, "newton_schulz",
             {{"x", list(stack.in.size())},
              setting("ns"),
              setting("coefficients"),
              setting("steps"),
              setting("dtype"),
              setting("eps"),
              setting("norm_eps")},
             stack.in, stack.out);
    Args applyArgs = {{"params", list(paramList.size())},
                      {"updates", list(updates.size())}};
    if (!finite.empty()) applyArgs.push_back({"finite", operand});
    applyArgs.append({setting("scale"),
                      {"lr", sched::RuntimeAttr::get(op.getContext(), "lr")},
                      setting("lr_scale"),
                      setting("weight_decay")});
    kernel(op, "muon_apply", applyArgs, joined({paramList, updates, finite}),
           joined({paramList, copyList}));
  }
  return success();
}

}  // namespace heddle
