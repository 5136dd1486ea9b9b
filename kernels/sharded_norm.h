// The arguments of grad_sumsq, taken apart for the host's loops and the
// device's launches.

#ifndef HEDDLE_KERNELS_SHARDED_NORM_H_
#define HEDDLE_KERNELS_SHARDED_NORM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/registry.h"

namespace heddle::kernels {

// What this rank holds of one parameter's gradient: `count` elements from
// element `first` of gradient `grad`; none where the parameter lies elsewhere.
struct GradPiece {
  size_t grad = 0;
  int64_t first = 0;
  int64_t count = 0;
};

// One piece a parameter, in the order of the result. InvalidArgument for
// segments, shards or bounds that do not fit the gradients.
absl::StatusOr<std::vector<GradPiece>> ReadGradPieces(const Call& call);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_SHARDED_NORM_H_
