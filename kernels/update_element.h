// The element types of the multi-tensor update as its launches name them; apart
// from multi_update_cuda.h, which is all that CUDA code includes.

#ifndef HEDDLE_KERNELS_UPDATE_ELEMENT_H_
#define HEDDLE_KERNELS_UPDATE_ELEMENT_H_

#include "kernels/multi_update_cuda.h"
#include "kernels/registry.h"

namespace heddle::kernels {

// -1 for a type that these launches do not take.
inline int UpdateElementOf(Element element) {
  switch (element) {
    case Element::kF16:
      return kUpdateF16;
    case Element::kBF16:
      return kUpdateBF16;
    case Element::kF32:
      return kUpdateF32;
    default:
      return -1;
  }
}

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_UPDATE_ELEMENT_H_
