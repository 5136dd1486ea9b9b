// Registration of the sched dialect and the arithmetic of layouts. Invariant:
// what a layout means is the graph dialect's to say. An element type that it
// does not know has 0 bytes, and the verifiers refuse it.
#include "ir/sched/Sched.h"

#include <algorithm>

#include "ir/graph/GraphDialect.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"

// clang-format off
#include "ir/sched/SchedDialect.cc.inc"
#include "ir/sched/SchedEnums.cc.inc"
#include "ir/sched/SchedInterfaces.cc.inc"

#define GET_TYPEDEF_CLASSES
#include "ir/sched/SchedTypes.cc.inc"

#define GET_ATTRDEF_CLASSES
#include "ir/sched/SchedAttrs.cc.inc"

#define GET_OP_CLASSES
#include "ir/sched/SchedOps.cc.inc"
// clang-format on

namespace heddle::sched {

void SchedDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "ir/sched/SchedTypes.cc.inc"
      >();
  addAttributes<
#define GET_ATTRDEF_LIST
#include "ir/sched/SchedAttrs.cc.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "ir/sched/SchedOps.cc.inc"
      >();
}

int64_t Geometry::elements() const {
  int64_t n = 1;
  for (int64_t size : sizes) n *= size;
  return n;
}

int64_t Geometry::end() const {
  int64_t last = offset;
  for (auto [size, stride] : llvm::zip(sizes, strides)) {
    if (size == 0) return offset;
    last += (size - 1) * stride;
  }
  return last + 1;
}

bool Geometry::dense() const {
  llvm::SmallVector<std::pair<int64_t, int64_t>, 6> dims;
  for (auto [size, stride] : llvm::zip(sizes, strides))
    if (size != 1) dims.push_back({stride, size});
  llvm::sort(dims);
  int64_t expected = 1;
  for (auto [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

Geometry geometryOf(mlir::RankedTensorType type) {
  graph::Geometry layout = graph::geometryOf(type);
  Geometry g;
  llvm::append_range(g.sizes, type.getShape());
  llvm::append_range(g.strides, layout.strides);
  g.offset = layout.offset;
  g.elementBytes = graph::elementBytes(type.getElementType());
  g.storageBytes = layout.storageBytes;
  return g;
}

Extent extentOf(mlir::Value ref) {
  Geometry g = geometryOf(mlir::cast<RefType>(ref.getType()));
  auto value = ref.getDefiningOp<ValueOp>();
  if (!value) return {g.offset * g.elementBytes, g.end() * g.elementBytes};
  int64_t base = value.getBase(), first = 0, last = 0, ranks = 1;
  if (value.getRankStride() != 0)
    for (int64_t size : value->getParentOfType<PlanOp>().getMeshSizes())
      ranks *= size;
  last = (ranks - 1) * value.getRankStride();
  if (value.getRankOffsets().empty())
    return {(base + g.offset) * g.elementBytes,
            (base + last + g.end()) * g.elementBytes};
  // From the first element that any rank reaches to the last.
  bool any = false;
  for (auto [c, offset] : llvm::enumerate(value.getRankOffsets())) {
    if (offset < 0) continue;
    int64_t end =
        offset +
        (value.getRankSizes().empty() ? g.end() : value.getRankSizes()[c]);
    first = any ? std::min(first, offset) : offset;
    last = any ? std::max(last, end) : end;
    any = true;
  }
  return {(base + first) * g.elementBytes, (base + last) * g.elementBytes};
}

bool isMatrix(const Geometry& g) {
  if (g.sizes.size() != 2 || g.elements() == 0) return false;
  auto along = [&](int inner, int outer) {
    return (g.sizes[inner] == 1 || g.strides[inner] == 1) &&
           (g.sizes[outer] == 1 || g.strides[outer] >= g.sizes[inner]);
  };
  return along(1, 0) || along(0, 1);
}

BufferOp bufferOf(mlir::Value ref) {
  auto value = ref.getDefiningOp<ValueOp>();
  return value ? value.getBuffer().getDefiningOp<BufferOp>() : BufferOp();
}

}  // namespace heddle::sched
