// Groups parameters by layer, dtype and kind of update, and lays each group
// out. Invariant: a slot holds a tensor's whole storage in memory order, so a
// window on it is the tensor. A storage with gaps would put bytes on the wire
// that mean nothing.
#include "passes/zero/buckets.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"

namespace heddle::zero {

using namespace mlir;

namespace {

int64_t alignUp(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

// "model.layers.3" of "model.layers.3.mlp.up_proj.weight": the path up to its
// first number. Parameters outside of numbered layers share one bucket each
// with those of their top-level module and role: "model" has embeddings and a
// final norm, which are needed at different times.
std::string layerOf(graph::ParamAttr param) {
  llvm::SmallVector<llvm::StringRef> parts;
  param.getName().getValue().split(parts, '.');
  std::string path;
  for (llvm::StringRef part : parts) {
    path += (path.empty() ? "" : ".") + part.str();
    if (llvm::all_of(part, llvm::isDigit)) return path;
  }
  return (parts.front() + "." + param.getKind().getValue()).str();
}

// What must be equal for two updates to be one.
std::string updateKey(const Member& member) {
  std::string key;
  llvm::raw_string_ostream stream(key);
  stream << member.type.getElementType();
  if (!member.adamw) return key + " frozen";
  optim::AdamWOp op = member.adamw;
  for (Value value : {op.getParam(), op.getGrad(), op.getExpAvg()})
    stream << ' '
           << llvm::cast<RankedTensorType>(value.getType()).getElementType();
  stream << " adamw" << op.getGroup();
  return key;
}

// The name of the parameter that `value`, an argument, is or belongs to.
StringAttr ownerOf(graph::StepOp step, Value value) {
  auto argument = llvm::dyn_cast<BlockArgument>(value);
  if (!argument) return nullptr;
  Attribute role = step.getArgRoles()[argument.getArgNumber()];
  if (auto param = llvm::dyn_cast<graph::ParamAttr>(role))
    return param.getName();
  if (auto state = llvm::dyn_cast<graph::StateAttr>(role))
    return state.getName();
  return nullptr;
}

LogicalResult checkLayout(graph::StepOp step, const Member& member) {
  graph::Geometry g = graph::geometryOf(member.type);
  int64_t bytes = member.type.getNumElements() *
                  graph::elementBytes(member.type.getElementType());
  if (g.offset == 0 && g.storageBytes == bytes) return success();
  return step.emitError("cannot put ")
         << member.role.getName() << " of type " << member.type
         << " into a bucket: its storage has gaps or holds more than the "
            "parameter; make it contiguous before capture";
}

}  // namespace

RankedTensorType withElement(RankedTensorType type, Type element) {
  Attribute encoding = type.getEncoding();
  if (auto layout = llvm::dyn_cast_if_present<graph::LayoutAttr>(encoding)) {
    int64_t from = graph::elementBytes(type.getElementType());
    encoding = graph::LayoutAttr::get(
        type.getContext(), layout.getStrides(), layout.getOffset(),
        layout.getStorageBytes() / from * graph::elementBytes(element));
  }
  return RankedTensorType::get(type.getShape(), element, encoding);
}

ArrayAttr membersOf(const Bucket& bucket, Type element) {
  Builder builder(element.getContext());
  llvm::SmallVector<Attribute> members;
  for (const Member& member : bucket.members)
    members.push_back(dist::MemberAttr::get(
        element.getContext(), member.role.getNames(), member.offset,
        TypeAttr::get(withElement(member.type, element)),
        member.role.getTrainable(), member.role.getKind()));
  return builder.getArrayAttr(members);
}

FailureOr<std::vector<Bucket>> planBuckets(graph::StepOp step, int64_t ranks,
                                           bool frozen) {
  llvm::StringMap<optim::AdamWOp> updates;
  Block& block = step.getBody().front();
  for (auto adamw : block.getOps<optim::AdamWOp>()) {
    StringAttr owner = ownerOf(step, adamw.getParam());
    if (!owner)
      return adamw.emitOpError("updates a value that is no argument"),
             failure();
    updates[owner.getValue()] = adamw;
  }
  llvm::MapVector<StringAttr, Bucket> buckets;
  for (auto [argument, role] :
       llvm::zip(block.getArguments(), step.getArgRoles())) {
    auto param = llvm::dyn_cast<graph::ParamAttr>(role);
    if (!param) continue;
    Member member;
    member.role = param;
    member.argument = argument.getArgNumber();
    member.type = llvm::cast<RankedTensorType>(argument.getType());
    member.adamw = updates.lookup(param.getName().getValue());
    bool shards = frozen && llvm::isa<FloatType>(member.type.getElementType());
    if (!member.adamw && !shards) continue;
    if (failed(checkLayout(step, member))) return failure();
    if (member.adamw) {
      auto average = member.adamw.getGrad().getDefiningOp<optim::AverageOp>();
      member.accumulate =
          average ? average.getValue().getDefiningOp<optim::AccumulateOp>()
                  : nullptr;
      if (!member.accumulate)
        return member.adamw.emitOpError(
                   "does not take the average of an optim.accumulate"),
               failure();
    }
    member.elements = member.type.getNumElements();
    StringAttr key = StringAttr::get(step.getContext(),
                                     layerOf(param) + " " + updateKey(member));
    Bucket& bucket = buckets[key];
    bucket.trained = static_cast<bool>(member.adamw);
    member.offset = alignUp(bucket.elements, dist::kSlotAlignment);
    bucket.elements = member.offset + member.elements;
    bucket.members.push_back(member);
  }
  std::vector<Bucket> result;
  llvm::StringMap<int> numbers;
  for (auto& [key, bucket] : buckets) {
    std::string layer = layerOf(bucket.members.front().role);
    bucket.name = layer + "#" + std::to_string(numbers[layer]++);
    bucket.elements = std::max(bucket.elements, int64_t{1});
    bucket.elements = alignUp(bucket.elements, ranks * dist::kSlotAlignment);
    result.push_back(std::move(bucket));
  }
  return result;
}

}  // namespace heddle::zero
