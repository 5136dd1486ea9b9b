// Kernel `loss_scale`: unscales the gradient norm and chooses the next loss
// scale (optim.loss_scale). One function that host and device both run.
//   norm       of the gradients as they are, f32 or f64.
//   state      none, or the scale (f32), the finite steps since it changed and
//              the overflows it still bears (i64); updated in place.
//   initial    the scale where there is no state.
//   seed       what the scale was multiplied by besides.
//   max_norm   0: no clipping.
//   window, hysteresis, consecutive_hysteresis, min_scale
//   results    norm and factor in norm's type; inverse, f32; finite, bool;
//              the scale that was used, f32; exhausted, bool; then the state.

#ifndef HEDDLE_KERNELS_LOSS_SCALE_H_
#define HEDDLE_KERNELS_LOSS_SCALE_H_

#include <math.h>

#ifdef __CUDACC__
#define HEDDLE_HOST_DEVICE __host__ __device__
#else
#define HEDDLE_HOST_DEVICE
#endif

namespace heddle::kernels {

struct LossScale {
  // Operands; scale is null where there is no state.
  const void *norm;
  float *scale;
  long long *good_steps, *borne;
  // Results.
  void *result_norm, *factor;
  float *inverse, *used;
  unsigned char *finite, *exhausted;
  double initial, seed, max_norm, min_scale;
  long long window, hysteresis;
  bool consecutive, wide;
};

template <typename T>
HEDDLE_HOST_DEVICE inline void UpdateLossScale(const LossScale &s) {
  const float scale =
      s.scale == nullptr ? static_cast<float>(s.initial) : *s.scale;
  const float inverse =
      static_cast<float>(1.0 / (static_cast<double>(scale) * s.seed));
  const T norm = *static_cast<const T *>(s.norm) * static_cast<T>(inverse);
  const bool overflow = !(norm - norm == T(0));  // inf and NaN
  T clip = 1;
  if (s.max_norm > 0) {
    clip = T(1) / (norm + static_cast<T>(1e-6)) * static_cast<T>(s.max_norm);
    if (clip > T(1)) clip = 1;
  }
  *static_cast<T *>(s.result_norm) = norm;
  *static_cast<T *>(s.factor) = clip * static_cast<T>(inverse);
  *s.inverse = inverse;
  *s.finite = overflow ? 0 : 1;
  *s.used = scale;
  *s.exhausted = 0;
  if (s.scale == nullptr) return;
  const float low = static_cast<float>(s.min_scale);
  if (overflow) {
    *s.good_steps = 0;
    if (*s.borne > 1) {
      *s.borne -= 1;
      return;
    }
    *s.exhausted = scale <= low ? 1 : 0;
    *s.scale = scale / 2 > low ? scale / 2 : low;
    return;
  }
  if (s.consecutive) *s.borne = s.hysteresis;
  *s.good_steps += 1;
  if (*s.good_steps < s.window) return;
  *s.good_steps = 0;
  *s.borne = s.hysteresis;
  const float doubled = scale * 2;
  if (doubled - doubled == 0) *s.scale = doubled;
}

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_LOSS_SCALE_H_
