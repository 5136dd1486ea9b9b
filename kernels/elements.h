// Reading and writing one element of any floating type, for host references.

#ifndef HEDDLE_KERNELS_ELEMENTS_H_
#define HEDDLE_KERNELS_ELEMENTS_H_

#include <cstdint>

#include "kernels/registry.h"

namespace heddle::kernels {

// Exact for every element type.
double Load(const Operand& operand, int64_t index);
// Rounds to nearest even, once, from double.
void Store(const Operand& operand, int64_t index, double value);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_ELEMENTS_H_
