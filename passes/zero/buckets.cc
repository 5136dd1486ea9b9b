// Groups parameters by layer, dtype and kind of update, and lays each group
// out. Invariant: a slot holds a tensor's whole storage in memory order, so a
// window on it is the tensor. A storage with gaps would put bytes on the wire
// that mean nothing.
#include "passes/zero/buckets.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/raw_ostream.h"

namespace heddle::zero {

using namespace mlir;

namespace {

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

// What must be equal for two parameters to share a bucket.
std::string updateKey(const Member& member) {
  std::string key;
  llvm::raw_string_ostream stream(key);
  stream << member.type.getElementType();
  auto elementOf = [](Value value) {
    return llvm::cast<RankedTensorType>(value.getType()).getElementType();
  };
  if (optim::AdamWOp op = member.adamw) {
    stream << ' ' << elementOf(op.getParam()) << ' ' << elementOf(op.getGrad())
           << ' ' << elementOf(op.getExpAvg()) << " adamw" << op.getGroup();
  } else if (optim::MuonOp op = member.muon) {
    stream << ' ' << elementOf(op.getParams()[0]) << ' '
           << elementOf(op.getGrads()[0]) << ' '
           << elementOf(op.getMomenta()[0]) << " muon" << op.getGroup();
    // Cut inside, not between parameters.
    if (op.getMatrixRows().size() > 1)
      stream << ' ' << member.role.getName().getValue();
  } else {
    stream << " frozen";
  }
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

Value Member::updated() const {
  if (optim::AdamWOp op = adamw) return op.getParam();
  if (optim::MuonOp op = muon) return op.getParams()[0];
  return nullptr;
}

int64_t Bucket::shard() const {
  int64_t longest = 0;
  for (size_t r = 1; r < bounds.size(); ++r)
    longest = std::max(longest, bounds[r] - bounds[r - 1]);
  return longest;
}

// The update ops of every parameter, by its name.
static FailureOr<llvm::StringMap<Member>> updatesOf(graph::StepOp step) {
  llvm::StringMap<Member> updates;
  for (Operation& op : step.getBody().front()) {
    Member member;
    member.adamw = llvm::dyn_cast<optim::AdamWOp>(op);
    member.muon = llvm::dyn_cast<optim::MuonOp>(op);
    if (!member.updated()) continue;
    StringAttr owner = ownerOf(step, member.updated());
    if (!owner)
      return op.emitOpError("updates a value that is no argument"), failure();
    Value gradient = member.adamw ? member.adamw.getGrad()
                                  : Value(member.muon.getGrads()[0]);
    member.average = gradient.getDefiningOp<optim::AverageOp>();
    if (member.average)
      member.accumulate =
          member.average.getValue().getDefiningOp<optim::AccumulateOp>();
    if (!member.accumulate)
      return op.emitOpError("does not take the average of an optim.accumulate"),
             failure();
    updates[owner.getValue()] = member;
  }
  return updates;
}

FailureOr<std::vector<Bucket>> planBuckets(graph::StepOp step, int64_t ranks,
                                           bool frozen) {
  FailureOr<llvm::StringMap<Member>> updates = updatesOf(step);
  if (failed(updates)) return failure();
  Block& block = step.getBody().front();
  llvm::MapVector<StringAttr, Bucket> buckets;
  for (auto [argument, role] :
       llvm::zip(block.getArguments(), step.getArgRoles())) {
    auto param = llvm::dyn_cast<graph::ParamAttr>(role);
    if (!param) continue;
    Member member = updates->lookup(param.getName().getValue());
    member.role = param;
    member.argument = argument.getArgNumber();
    member.type = llvm::cast<RankedTensorType>(argument.getType());
    member.elements = member.type.getNumElements();
    bool shards = frozen && llvm::isa<FloatType>(member.type.getElementType());
    if (!member.accumulate && !shards) continue;
    if (failed(checkLayout(step, member))) return failure();
    StringAttr key = StringAttr::get(step.getContext(),
                                     layerOf(param) + " " + updateKey(member));
    Bucket& bucket = buckets[key];
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
    for (int64_t r = 0; r <= ranks; ++r)
      bucket.bounds.push_back(r * (bucket.elements / ranks));
    result.push_back(std::move(bucket));
  }
  assignOwners(result, ranks);
  return result;
}

}  // namespace heddle::zero
