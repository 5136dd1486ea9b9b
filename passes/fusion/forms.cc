// Questions about types that all forms ask.
#include "passes/fusion/forms.h"

#include "llvm/ADT/STLExtras.h"

namespace heddle::graph {

using namespace mlir;

llvm::SmallVector<int64_t> stridesOf(RankedTensorType type) {
  if (auto layout = llvm::dyn_cast_or_null<LayoutAttr>(type.getEncoding()))
    return llvm::to_vector(layout.getStrides());
  llvm::SmallVector<int64_t> strides(type.getRank(), 1);
  for (int64_t d = type.getRank() - 2; d >= 0; --d)
    strides[d] = strides[d + 1] * type.getDimSize(d + 1);
  return strides;
}

std::string checkRows(std::initializer_list<Value> values) {
  Type element;
  for (Value value : values) {
    RankedTensorType type = tensorType(value);
    std::string text;
    llvm::raw_string_ostream(text) << type;
    Type its = type.getElementType();
    if (!its.isBF16() && !its.isF16() && !its.isF32())
      return "kernels take bf16, f16 and f32, not " + text;
    if (element && element != its)
      return "its tensors are of different element types, one is " + text;
    element = its;
    if (type.getRank() < 1 || type.getRank() > 4)
      return "kernels walk one to four dimensions, not " + text;
    if (type.getNumElements() == 0) return text + " has no elements";
    if (type.getShape().back() != 1 && stridesOf(type).back() != 1)
      return "the last dimension of " + text + " is not dense";
  }
  return "";
}

RankedTensorType rowMajor(llvm::ArrayRef<int64_t> shape, Type element) {
  return RankedTensorType::get(shape, element);
}

bool isContiguous(RankedTensorType type) { return !type.getEncoding(); }

}  // namespace heddle::graph
