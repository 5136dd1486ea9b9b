// A Call of `loss_scale` as the struct that host and device code take.

#ifndef HEDDLE_KERNELS_LOSS_SCALE_CALL_H_
#define HEDDLE_KERNELS_LOSS_SCALE_CALL_H_

#include "absl/status/statusor.h"
#include "kernels/loss_scale.h"
#include "kernels/registry.h"

namespace heddle::kernels {

absl::StatusOr<LossScale> ReadLossScale(const Call& call);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_LOSS_SCALE_CALL_H_
