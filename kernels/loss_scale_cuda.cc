// Registers the device code of loss_scale.

#ifdef HEDDLE_HAVE_CUDA

#include "kernels/loss_scale_cuda.h"

#include "absl/strings/str_cat.h"
#include "kernels/loss_scale_call.h"

namespace heddle::kernels {
namespace {

absl::Status LossScaleOnDevice(const Call& call) {
  absl::StatusOr<LossScale> scale = ReadLossScale(call);
  if (!scale.ok()) return scale.status();
  const char* error = LaunchLossScale(*scale, call.stream);
  return error == nullptr
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("kernel loss_scale: ", error));
}

const DeviceRegistration kLossScale("loss_scale", &LossScaleOnDevice);

}  // namespace
}  // namespace heddle::kernels

#endif
