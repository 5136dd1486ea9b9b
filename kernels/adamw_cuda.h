// The plain-data border between the AdamW launch and its CUDA code.

#ifndef HEDDLE_KERNELS_ADAMW_CUDA_H_
#define HEDDLE_KERNELS_ADAMW_CUDA_H_

namespace heddle::kernels {

// *_element: a DeviceElement.
struct AdamWDevice {
  void* param;
  const void* grad;
  void* exp_avg;
  void* exp_avg_sq;
  const void* factor;           // nullptr: 1
  const unsigned char* finite;  // nullptr: true
  int param_element, grad_element, exp_avg_element, exp_avg_sq_element,
      factor_element;
  long long count;
  bool has_decay;
  double decay, weight1, beta2, weight2, eps, root, negative_step, divisor;
};

// nullptr, or why the launch failed.
const char* LaunchAdamW(const AdamWDevice& arguments, bool f64, void* stream);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_ADAMW_CUDA_H_
