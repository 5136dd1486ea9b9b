// The plain-data border between the launches of the multi-tensor update and
// their CUDA code. Tensors travel in batches that fit a launch's arguments.

#ifndef HEDDLE_KERNELS_MULTI_UPDATE_CUDA_H_
#define HEDDLE_KERNELS_MULTI_UPDATE_CUDA_H_

namespace heddle::kernels {

enum UpdateElement { kUpdateF16, kUpdateBF16, kUpdateF32 };

// A number of the launch, or where in device memory it will be when it runs.
struct DeviceScalar {
  double value;
  const double* address;  // nullptr: `value`
};

constexpr int kUpdateBatch = 56;
// What one block works on at a time.
constexpr unsigned kUpdateChunk = 8192;

struct AdamWScalars {
  DeviceScalar lr, step, divisor;
  double lr_scale, beta1, beta2, eps, weight_decay;
  const float* factor;          // nullptr: 1
  const unsigned char* finite;  // nullptr: true
};

struct AdamWBatch {
  void* params[kUpdateBatch];
  const void* grads[kUpdateBatch];
  void* exp_avgs[kUpdateBatch];
  void* exp_avg_sqs[kUpdateBatch];
  void* copies[kUpdateBatch];
  unsigned long long counts[kUpdateBatch];
  // Tensor i has the chunks from first_chunk[i] to first_chunk[i + 1].
  unsigned first_chunk[kUpdateBatch + 1];
  int tensors;
  int param_element, grad_element, average_element, square_element;
  int copy_element;  // -1: no copies
  AdamWScalars scalars;
};
// nullptr, or why the launch failed.
const char* LaunchMultiAdamW(const AdamWBatch& batch, void* stream);

constexpr unsigned kNormPart = 65536;
constexpr int kNormBatch = 160;

struct NormBatch {
  const void* grads[kNormBatch];
  unsigned long long counts[kNormBatch];
  unsigned first_part[kNormBatch + 1];
  int tensors;
  int element;
  double* partials;  // of this batch's parts
  double* sums;      // one per tensor of this batch
};
const char* LaunchNormSums(const NormBatch& batch, void* stream);

struct NormResult {
  const double* sums;
  int count;
  DeviceScalar divisor;
  double max_norm;  // not positive: no limit
  float* norm;      // each of these may be nullptr
  float* factor;
  unsigned char* finite;
};
const char* LaunchNormResult(const NormResult& result, void* stream);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_MULTI_UPDATE_CUDA_H_
