// The dialect's attributes: parsing, printing and the checks that need no
// operation around them. Invariant: what a layout attribute says is checked
// when the type is made, so every tensor type in a verified program has a
// storage that covers it. What would break it: arithmetic on strides that
// overflows unnoticed; every product and sum below is checked.
#include "ir/graph/GraphDialect.h"

#include "ir/graph/GraphOps.h"
#include "llvm/ADT/TypeSwitch.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"

using namespace mlir;

#include "ir/graph/GraphDialect.cc.inc"
#include "ir/graph/GraphEnums.cc.inc"
#include "ir/graph/GraphInterfaces.cc.inc"
#define GET_ATTRDEF_CLASSES
#include "ir/graph/GraphAttrs.cc.inc"

namespace heddle::graph {

void GraphDialect::initialize() {
  registerAttributes();
  registerAtenOps();
  addOperations<
#define GET_OP_LIST
#include "ir/graph/GraphOps.cc.inc"
      >();
}

void GraphDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "ir/graph/GraphAttrs.cc.inc"
      >();
}

int64_t elementBytes(Type type) {
  if (auto complex = llvm::dyn_cast<ComplexType>(type))
    return 2 * elementBytes(complex.getElementType());
  if (type.isInteger(1)) return 1;
  return type.isIntOrFloat() ? type.getIntOrFloatBitWidth() / 8 : 0;
}

llvm::SmallVector<int64_t> rowMajorStrides(llvm::ArrayRef<int64_t> shape) {
  llvm::SmallVector<int64_t> strides(shape.size(), 1);
  for (int64_t i = static_cast<int64_t>(shape.size()) - 2; i >= 0; --i)
    strides[i] = strides[i + 1] * std::max<int64_t>(shape[i + 1], 1);
  return strides;
}

Geometry geometryOf(RankedTensorType type) {
  if (auto layout = llvm::dyn_cast_or_null<LayoutAttr>(type.getEncoding())) {
    return {llvm::SmallVector<int64_t>(layout.getStrides()), layout.getOffset(),
            layout.getStorageBytes()};
  }
  return {rowMajorStrides(type.getShape()), 0,
          type.getNumElements() * elementBytes(type.getElementType())};
}

bool isRowMajor(RankedTensorType type) {
  if (!type.getEncoding()) return true;
  Geometry geometry = geometryOf(type);
  llvm::SmallVector<int64_t> want = rowMajorStrides(type.getShape());
  for (size_t i = 0; i < want.size(); ++i) {
    if (type.getDimSize(i) > 1 && geometry.strides[i] != want[i]) return false;
  }
  return true;
}

RankedTensorType denseType(RankedTensorType type) {
  return RankedTensorType::get(type.getShape(), type.getElementType());
}

//===--- #graph.layout ---===//

Attribute LayoutAttr::parse(AsmParser& parser, Type) {
  llvm::SmallVector<int64_t> strides;
  int64_t offset = 0;
  int64_t bytes = 0;
  auto parseStride = [&] {
    return parser.parseInteger(strides.emplace_back());
  };
  if (parser.parseLess() ||
      parser.parseCommaSeparatedList(AsmParser::Delimiter::Square,
                                     parseStride) ||
      parser.parseComma() || parser.parseInteger(offset) ||
      parser.parseComma() || parser.parseInteger(bytes) ||
      parser.parseGreater()) {
    return {};
  }
  return LayoutAttr::get(parser.getContext(), strides, offset, bytes);
}

void LayoutAttr::print(AsmPrinter& printer) const {
  printer << "<[";
  llvm::interleaveComma(getStrides(), printer);
  printer << "], " << getOffset() << ", " << getStorageBytes() << ">";
}

LogicalResult LayoutAttr::verifyEncoding(
    llvm::ArrayRef<int64_t> shape, Type elementType,
    llvm::function_ref<InFlightDiagnostic()> emitError) const {
  // MLIR's parser asks this even after an element type that it could not read.
  if (!elementType) return emitError() << "layout of a tensor without type";
  if (getStrides().size() != shape.size()) {
    return emitError() << "layout has " << getStrides().size()
                       << " strides for a tensor of rank " << shape.size()
                       << " (graph_layout_r1)";
  }
  if (llvm::any_of(shape, ShapedType::isDynamic)) {
    return emitError()
           << "layout of a tensor of unknown size (graph_layout_r4)";
  }
  if (getOffset() < 0 ||
      llvm::any_of(getStrides(), [](int64_t s) { return s < 0; })) {
    return emitError()
           << "layout has a negative stride or offset (graph_layout_r2)";
  }
  int64_t last = getOffset();
  for (auto [size, stride] : llvm::zip(shape, getStrides())) {
    int64_t reach = 0;
    if (size == 0) return success();
    if (__builtin_mul_overflow(size - 1, stride, &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return emitError()
             << "layout reaches beyond 2^63 elements (graph_layout_r3)";
    }
  }
  int64_t need = 0;
  if (__builtin_add_overflow(last, 1, &need) ||
      __builtin_mul_overflow(need, elementBytes(elementType), &need) ||
      need > getStorageBytes()) {
    return emitError() << "layout's storage of " << getStorageBytes()
                       << " bytes does not cover its last element " << last
                       << " (graph_layout_r3)";
  }
  return success();
}

}  // namespace heddle::graph
