// Turns handles into values: every write makes a new value of the storage it
// went to, and whatever looks into that storage afterwards looks into the new
// value. Invariant: `current` of a storage has the type of the value that made
// the storage, so a view op can be repeated on it unchanged. What would break
// it: an op that aliases its operand and is neither ViewLike nor a graph.call
// with `mutates`.
#include "ir/graph/GraphOps.h"
#include "ir/graph/aten_call.h"
#include "llvm/ADT/DenseMap.h"
#include "passes/graph/Passes.h"
#include "passes/graph/functional_forms.h"

namespace heddle::graph {
#define GEN_PASS_DEF_FUNCTIONALIZE
#include "passes/graph/Passes.h.inc"

using namespace mlir;

namespace {

struct Storage {
  Value made;     // the handle that the storage began with
  Value current;  // its value now, of made's type
  int64_t version = 0;
};

// A handle that looks into a storage through `op`.
struct View {
  Value source;
  Operation* op = nullptr;
};

struct Shown {
  int64_t version = -1;
  Value value;
};

class Handles {
 public:
  // The storage that a handle speaks of; a handle met for the first time has
  // one of its own.
  unsigned storageOf(Value handle) {
    auto [it, inserted] = storageIndex.try_emplace(handle, storages.size());
    if (inserted) storages.push_back({handle, handle});
    return it->second;
  }

  Value canonical(Value handle) const {
    auto it = sameHandle.find(handle);
    return it == sameHandle.end() ? handle : it->second;
  }

  void recordView(Value result, Value source, Operation* op) {
    source = canonical(source);
    unsigned storage = storageOf(source);
    storageIndex[result] = storage;
    views[result] = {source, op};
    shown[result] = {storages[storage].version, result};
  }

  void recordSame(Value result, Value handle) {
    sameHandle[result] = canonical(handle);
  }

  // The value behind a handle now; takes views again where a write has made
  // them stale.
  Value current(Value handle, OpBuilder& builder) {
    handle = canonical(handle);
    Storage& storage = storages[storageOf(handle)];
    llvm::SmallVector<Value> stale;
    Value value;
    for (Value at = handle; !value;) {
      if (at == storage.made) {
        value = storage.current;
      } else if (shown[at].version == storage.version) {
        value = shown[at].value;
      } else {
        stale.push_back(at);
        at = views[at].source;
      }
    }
    for (Value at : llvm::reverse(stale)) {
      Operation* again = builder.clone(*views[at].op);
      again->setOperand(0, value);
      for (auto [old, result] :
           llvm::zip(views[at].op->getResults(), again->getResults()))
        shown[old] = {storage.version, result};
      value = shown[at].value;
    }
    return value;
  }

  // `handle` now holds `value`, of the handle's shape and element type.
  LogicalResult write(Operation* writer, Value handle, Value value,
                      OpBuilder& builder) {
    handle = canonical(handle);
    Storage& storage = storages[storageOf(handle)];
    auto made = llvm::cast<RankedTensorType>(storage.made.getType());
    if (handle.getType() == made && value.getType() == made) {
      storage.current = value;
    } else if (handle.getType() == made && !made.getEncoding()) {
      storage.current =
          createAten(builder, writer->getLoc(), "graph.clone", made, value,
                     builder.getNamedAttr("memory_format",
                                          builder.getStringAttr("contiguous")),
                     writer)
              ->getResult(0);
    } else {
      auto type = llvm::cast<RankedTensorType>(handle.getType());
      if (!ownsEverything(made) && reachesAnywhere(handle, storage.made)) {
        return writer->emitOpError("writes through ")
               << type << ", a view that may reach beyond its base " << made
               << "; write to the base instead";
      }
      Geometry at = geometryOf(type);
      auto layout = LayoutAttr::get(builder.getContext(), at.strides, at.offset,
                                    at.storageBytes);
      auto update = builder.create<ViewUpdateOp>(
          writer->getLoc(), made, storage.current, value, layout);
      for (NamedAttribute attribute : writer->getDiscardableAttrs())
        update->setDiscardableAttr(attribute.getName(), attribute.getValue());
      update->removeDiscardableAttr(GraphDialect::kRngIdAttr);
      storage.current = update;
    }
    ++storage.version;
    return success();
  }

  Value madeBy(Value handle) {
    return storages[storageOf(canonical(handle))].made;
  }

 private:
  static bool ownsEverything(RankedTensorType type) {
    return geometryOf(type).storageBytes ==
           type.getNumElements() * elementBytes(type.getElementType());
  }

  bool reachesAnywhere(Value handle, Value made) {
    for (; handle != made; handle = views[handle].source) {
      llvm::StringRef name = views[handle].op->getName().stripDialect();
      if (name == "as_strided" || name == "_reshape_alias") return true;
    }
    return false;
  }

  std::vector<Storage> storages;
  llvm::DenseMap<Value, unsigned> storageIndex;
  llvm::DenseMap<Value, View> views;
  llvm::DenseMap<Value, Shown> shown;
  llvm::DenseMap<Value, Value> sameHandle;
};

// The rewrite of one step.
class Rewrite {
 public:
  explicit Rewrite(StepOp step) : step(step) {}

  LogicalResult run() {
    for (Operation& op : llvm::make_early_inc_range(step.getBody().front())) {
      auto call = llvm::dyn_cast<CallOp>(op);
      bool writes = call && call.getMutates() && !call.getDps() &&
                    !call.getMutates()->empty();
      if (writes) {
        if (failed(rewriteWrite(call))) return failure();
      } else {
        rewriteRead(op);
      }
    }
    returnWrittenBuffers();
    for (Operation* call : llvm::reverse(replaced)) call->erase();
    return success();
  }

 private:
  void rewriteRead(Operation& op) {
    OpBuilder builder(&op);
    bool isView = llvm::isa<ViewLike>(op);
    Value source = isView ? op.getOperand(0) : Value();
    for (OpOperand& operand : op.getOpOperands())
      operand.set(handles.current(operand.get(), builder));
    if (!isView) return;
    for (Value result : op.getResults())
      handles.recordView(result, source, &op);
  }

  LogicalResult rewriteWrite(CallOp call) {
    OpBuilder builder(call);
    llvm::SmallVector<Value> before(call.getInputs());
    llvm::ArrayRef<int64_t> mutates = *call.getMutates();
    for (int64_t i : mutates) {
      if (failed(mayWrite(call, before[i]))) return failure();
    }
    for (OpOperand& operand : call->getOpOperands())
      operand.set(handles.current(operand.get(), builder));
    llvm::SmallVector<Value> fresh;
    FailureOr<llvm::SmallVector<Value>> values =
        functionalForm(call, builder, fresh);
    if (failed(values)) return failure();
    for (auto [i, value] : llvm::zip(mutates, *values)) {
      if (failed(handles.write(call, before[i], value, builder)))
        return failure();
    }
    if (call.getFreshResults()) {
      call->replaceAllUsesWith(fresh);
    } else {
      for (auto [i, result] : llvm::zip(mutates, call.getResults()))
        handles.recordSame(result, before[i]);
    }
    // Its results stay as keys of the maps until every op has been rewritten.
    replaced.push_back(call);
    return success();
  }

  LogicalResult mayWrite(CallOp call, Value handle) {
    auto argument = llvm::dyn_cast<BlockArgument>(handles.madeBy(handle));
    if (!argument) return success();
    Attribute role = step.getArgRoles()[argument.getArgNumber()];
    if (llvm::isa<BufferAttr>(role)) written.insert(argument);
    if (llvm::isa<BufferAttr, ConstantAttr, StateAttr>(role)) return success();
    return call.emitOpError("writes to ")
           << role
           << "; the step may only write buffers and tensors that it made: "
              "copy the tensor first";
  }

  void returnWrittenBuffers() {
    Operation* ret = step.getBody().front().getTerminator();
    llvm::SmallVector<Attribute> roles(step.getResultRoles().getValue());
    OpBuilder builder(ret);
    for (BlockArgument argument : step.getBody().front().getArguments()) {
      if (!written.contains(argument)) continue;
      auto buffer =
          llvm::cast<BufferAttr>(step.getArgRoles()[argument.getArgNumber()]);
      roles.push_back(NewValueAttr::get(step.getContext(), buffer.getName()));
      ret->insertOperands(ret->getNumOperands(),
                          handles.current(argument, builder));
    }
    step.setResultRolesAttr(builder.getArrayAttr(roles));
  }

  StepOp step;
  Handles handles;
  llvm::SmallVector<Operation*> replaced;
  llvm::DenseSet<Value> written;
};

class Functionalize : public impl::FunctionalizeBase<Functionalize> {
  void runOnOperation() override {
    if (failed(Rewrite(getOperation()).run())) signalPassFailure();
  }
};

}  // namespace
}  // namespace heddle::graph
