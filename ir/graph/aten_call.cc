// Reads an op as an ATen call: ODS ops through their row of the op table,
// graph.call through its args. Invariant: operands are consumed in schema
// order; the verifiers have made sure that their number fits.
#include "ir/graph/aten_call.h"

#include "ir/graph/GraphOps.h"

using namespace mlir;

namespace heddle::graph {
namespace {

const OpRow* rowOf(Operation* op) {
  llvm::StringRef name = op->getName().getStringRef();
  return findOpByMlirName(std::string_view(name.data(), name.size()));
}

bool isTensorKind(ArgKind kind) {
  return kind == ArgKind::kTensor || kind == ArgKind::kTensorList ||
         kind == ArgKind::kOptionalTensorList;
}

// Number of operands of each tensor argument.
llvm::SmallVector<int64_t, 8> segments(Operation* op, const OpRow& row) {
  llvm::SmallVector<int64_t, 8> sizes;
  if (row.segmented) {
    auto attr =
        llvm::cast<DenseI32ArrayAttr>(op->getAttr("operandSegmentSizes"));
    sizes.append(attr.asArrayRef().begin(), attr.asArrayRef().end());
    return sizes;
  }
  int64_t single = 0;
  for (const ArgRow& arg : llvm::ArrayRef(row.args, row.numArgs))
    single += arg.kind == ArgKind::kTensor && !arg.nullable;
  for (const ArgRow& arg : llvm::ArrayRef(row.args, row.numArgs)) {
    if (isTensorKind(arg.kind))
      sizes.push_back(arg.kind == ArgKind::kTensor && !arg.nullable
                          ? 1
                          : op->getNumOperands() - single);
  }
  return sizes;
}

AtenCall decodeRow(Operation* op, const OpRow& row) {
  AtenCall call;
  call.name = row.atenName;
  llvm::SmallVector<int64_t, 8> sizes = segments(op, row);
  size_t segment = 0;
  OperandRange operands = op->getOperands();
  for (const ArgRow& schema : llvm::ArrayRef(row.args, row.numArgs)) {
    AtenArg& arg = call.args.emplace_back();
    arg.name = schema.name;
    arg.schemaKind = schema.kind;
    if (!isTensorKind(schema.kind)) {
      arg.constant = op->getAttr(schema.name);
      arg.kind = arg.constant ? AtenArg::Kind::kConstant : AtenArg::Kind::kNone;
      continue;
    }
    OperandRange own = operands.take_front(sizes[segment]);
    operands = operands.drop_front(sizes[segment++]);
    if (schema.kind == ArgKind::kTensor) {
      if (own.empty()) continue;
      arg.kind = AtenArg::Kind::kOperand;
      arg.value = own.front();
      continue;
    }
    arg.kind = AtenArg::Kind::kOperandList;
    if (schema.kind == ArgKind::kTensorList) {
      llvm::append_range(arg.list, own);
      continue;
    }
    auto present = llvm::cast<DenseBoolArrayAttr>(
        op->getAttr((llvm::Twine(schema.name) + "_present").str()));
    size_t next = 0;
    for (bool there : present.asArrayRef())
      arg.list.push_back(there && next < own.size() ? own[next++] : Value());
  }
  return call;
}

AtenCall decodeCall(CallOp op) {
  AtenCall call;
  call.name = op.getCallee().str();
  size_t next = 0;
  for (Attribute entry : op.getArgs()) {
    AtenArg& arg = call.args.emplace_back();
    if (llvm::isa<UnitAttr>(entry)) continue;
    if (llvm::isa<OperandMarkerAttr>(entry)) {
      arg.kind = AtenArg::Kind::kOperand;
      arg.value = op.getInputs()[next++];
    } else if (auto list = llvm::dyn_cast<ArrayAttr>(entry)) {
      arg.kind = AtenArg::Kind::kOperandList;
      for (Attribute item : list)
        arg.list.push_back(llvm::isa<OperandMarkerAttr>(item)
                               ? op.getInputs()[next++]
                               : Value());
    } else {
      arg.kind = AtenArg::Kind::kConstant;
      arg.constant = entry;
    }
  }
  if (op.getMutates())
    call.mutates.assign(op.getMutates()->begin(), op.getMutates()->end());
  call.dps = op.getDps();
  return call;
}

}  // namespace

bool isAtenCall(Operation* op) { return llvm::isa<CallOp>(op) || rowOf(op); }

AtenCall decodeAtenCall(Operation* op) {
  if (auto call = llvm::dyn_cast<CallOp>(op)) return decodeCall(call);
  return decodeRow(op, *rowOf(op));
}

}  // namespace heddle::graph
