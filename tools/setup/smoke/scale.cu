// One kernel through nvcc: the toolkit is described rightly.
#include <cuda_runtime_api.h>

__global__ void scaleKernel(float* values, int n, float factor) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) values[i] *= factor;
}

cudaError_t scale(float* values, int n, float factor) {
  scaleKernel<<<(n + 255) / 256, 256>>>(values, n, factor);
  return cudaGetLastError();
}
