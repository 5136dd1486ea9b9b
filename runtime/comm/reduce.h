// The arithmetic of the host backends: element i of several inputs -> one
// value, taken in the order of the inputs. Invariant: the result depends on
// that order only, never on how a range is split among threads.

#ifndef HEDDLE_RUNTIME_COMM_REDUCE_H_
#define HEDDLE_RUNTIME_COMM_REDUCE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "runtime/comm/collective.h"

namespace heddle::comm {

// Reduces elements [begin, end) of every input and writes them to the same
// elements of every output. An output may be one of the inputs. The dtype is
// one that Validate lets reduce.
void ReduceRange(plan::DType dtype, Reduction reduction,
                 absl::Span<const void* const> inputs,
                 absl::Span<void* const> outputs, int64_t begin, int64_t end);

}  // namespace heddle::comm

#endif  // HEDDLE_RUNTIME_COMM_REDUCE_H_
