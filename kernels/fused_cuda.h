// The plain-data border between the fused launches and their CUDA code: no
// other header of the project enters the .cu files. Every launch returns
// nullptr, or why it failed.

#ifndef HEDDLE_KERNELS_FUSED_CUDA_H_
#define HEDDLE_KERNELS_FUSED_CUDA_H_

namespace heddle::kernels {

// The element type of a launch's tensors.
enum FusedElement { kFusedF16, kFusedBF16, kFusedF32 };

// A tensor of rows of one length; row r = (i0, i1, i2) begins at the sum of
// i * stride.
struct RowsOf {
  void* data;
  long long strides[3];
};
struct RowShape {
  unsigned sizes[3];
  unsigned rows;
  unsigned columns;
};

struct RmsNormDevice {
  RowShape shape;
  RowsOf x, addend, y, sum;  // addend.data nullptr: no sum either
  const void* weight;
  float* rstd;
  float eps;
};
const char* LaunchRmsNorm(const RmsNormDevice& a, int element, void* stream);

struct RmsNormBackwardDevice {
  RowShape shape;
  RowsOf dy[3];  // data nullptr: absent
  RowsOf x, residual, dx;
  const void* weight;
  const float* rstd;
  void* dw;
  float* partials;  // [parts, columns]
  unsigned parts;
};
const char* LaunchRmsNormBackward(const RmsNormBackwardDevice& a, int element,
                                  void* stream);

struct SwiGluDevice {
  const void* gate;
  const void* up;
  const void* dy;  // nullptr: forward
  void* first;     // y, or dgate
  void* second;    // dup
  long long count;
};
const char* LaunchSwiGlu(const SwiGluDevice& a, int element, void* stream);

struct RotaryDevice {
  RowShape shape;
  RowsOf x, cosine, sine, y;
  bool back;
};
const char* LaunchRotary(const RotaryDevice& a, int element, void* stream);

struct CrossEntropyDevice {
  const void* logits;  // [rows, classes]
  const long long* labels;
  long long label_stride;
  long long ignore;
  unsigned rows;
  unsigned classes;
  bool mean;
  int scalar_element;  // of loss, total_weight and dloss
  void* loss;
  void* total_weight;
  float* lse;
  float* row_loss;
  const void* dloss;
  void* dlogits;  // nullptr: forward
};
const char* LaunchCrossEntropy(const CrossEntropyDevice& a, int element,
                               void* stream);

struct EmbeddingAddDevice {
  RowShape shape;  // of dy: a row per token
  RowsOf dy;
  const long long* indices;
  long long padding;
  long long weights;  // rows of out
  const void* base;
  void* out;
};
const char* LaunchEmbeddingAdd(const EmbeddingAddDevice& a, int element,
                               void* stream);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_FUSED_CUDA_H_
