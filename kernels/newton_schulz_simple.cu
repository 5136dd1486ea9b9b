// What surrounds the tensor cores: norms and casts into short-and-wide
// matrices, results into any type and orientation, and the products of fp32 and
// fp64 iterates, one launch each.

#include <cuda_runtime.h>

#include "kernels/elements.cuh"
#include "kernels/launch.cuh"
#include "kernels/newton_schulz_cuda.h"

namespace heddle::kernels::ns {
namespace {

constexpr int kThreads = 256;

__device__ int TensorOf(const Tensors& tensors, int matrix) {
  int tensor = 0;
  while (matrix >= tensors.first[tensor + 1]) ++tensor;
  return tensor;
}

template <typename From>
__device__ From* MatrixData(const Tensors& tensors, int matrix,
                            long long size) {
  const int tensor = TensorOf(tensors, matrix);
  return static_cast<From*>(tensors.data[tensor]) +
         (matrix - tensors.first[tensor]) * size;
}

// 16 bytes of `From` at once where the matrix allows it.
template <typename From>
struct alignas(16) Vector {
  static constexpr int kCount = 16 / sizeof(From);
  From values[kCount];
};

template <typename T, typename From>
__global__ void SumSquares(const __grid_constant__ Normalise a) {
  const long long size = static_cast<long long>(a.rows) * a.columns;
  const From* data = MatrixData<From>(a.x, blockIdx.y, size);
  T sum = 0;
  using V = Vector<From>;
  const bool aligned =
      size % V::kCount == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  const long long first = blockIdx.x * static_cast<long long>(kThreads) +
                          threadIdx.x,
                  step = static_cast<long long>(kThreads) * kPartials;
  if (aligned) {
#pragma unroll 4
    for (long long i = first; i < size / V::kCount; i += step) {
      const V vector = reinterpret_cast<const V*>(data)[i];
#pragma unroll
      for (const From value : vector.values) sum += As<T>(value) * As<T>(value);
    }
  } else {
    for (long long i = first; i < size; i += step)
      sum += As<T>(data[i]) * As<T>(data[i]);
  }
  for (int offset = 16; offset > 0; offset /= 2)
    sum += __shfl_down_sync(~0u, sum, offset);
  __shared__ T sums[kThreads / 32];
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kThreads / 32; ++i) sum += sums[i];
    static_cast<T*>(a.partials)[blockIdx.y * kPartials + blockIdx.x] = sum;
  }
}

template <typename T>
__device__ T Divisor(const Normalise& a, int matrix) {
  T sum = 0;
  for (int i = 0; i < kPartials; ++i)
    sum += static_cast<const T*>(a.partials)[matrix * kPartials + i];
  const T norm = sqrt(sum), eps = static_cast<T>(a.eps);
  return a.clamp ? (norm < eps ? eps : norm) : norm + eps;
}

// Wide matrices: 8 elements a thread along a row.
template <typename T, typename From, typename To>
__global__ void ScaleWide(const __grid_constant__ Normalise a) {
  const long long size = static_cast<long long>(a.rows) * a.columns;
  const From* data = MatrixData<From>(a.x, blockIdx.y, size);
  To* to = static_cast<To*>(a.to) + blockIdx.y * a.stride;
  const T divisor = Divisor<T>(a, blockIdx.y);
  const int groups = (a.columns + 7) / 8;
  const bool aligned =
      a.columns % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  const long long step = static_cast<long long>(gridDim.x) * kThreads;
  for (long long i =
           blockIdx.x * static_cast<long long>(kThreads) + threadIdx.x;
       i < static_cast<long long>(groups) * a.rows; i += step) {
    const int row = static_cast<int>(i / groups),
              column = static_cast<int>(i % groups) * 8;
    const From* from = data + static_cast<long long>(row) * a.columns + column;
    To* out = to + static_cast<long long>(row) * a.pitch + column;
    if (aligned) {
      From values[8];
      To results[8];
#pragma unroll
      for (int v = 0; v < 8; v += Vector<From>::kCount)
        *reinterpret_cast<Vector<From>*>(values + v) =
            *reinterpret_cast<const Vector<From>*>(from + v);
#pragma unroll
      for (int v = 0; v < 8; ++v)
        results[v] = Rounded<To>(As<T>(values[v]) / divisor);
#pragma unroll
      for (int v = 0; v < 8; v += Vector<To>::kCount)
        *reinterpret_cast<Vector<To>*>(out + v) =
            *reinterpret_cast<Vector<To>*>(results + v);
    } else {
      for (int v = 0; v < 8 && column + v < a.columns; ++v)
        out[v] = Rounded<To>(As<T>(from[v]) / divisor);
    }
  }
}

// Tall matrices are transposed on the way, 32 x 32 at a time.
template <typename T, typename From, typename To>
__global__ void ScaleTall(const __grid_constant__ Normalise a) {
  __shared__ T tile[32][33];
  const long long size = static_cast<long long>(a.rows) * a.columns;
  const From* data = MatrixData<From>(a.x, blockIdx.y, size);
  To* to = static_cast<To*>(a.to) + blockIdx.y * a.stride;
  const T divisor = Divisor<T>(a, blockIdx.y);
  const int across = (a.columns + 31) / 32,
            tiles = across * ((a.rows + 31) / 32);
  const int x = threadIdx.x % 32, y = threadIdx.x / 32;
  for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int row = t / across * 32, column = t % across * 32;
    for (int i = y; i < 32; i += kThreads / 32)
      if (row + i < a.rows && column + x < a.columns)
        tile[i][x] = As<T>(data[static_cast<long long>(row + i) * a.columns +
                                column + x]) /
                     divisor;
    __syncthreads();
    for (int i = y; i < 32; i += kThreads / 32)
      if (column + i < a.columns && row + x < a.rows)
        to[static_cast<long long>(column + i) * a.pitch + row + x] =
            Rounded<To>(tile[x][i]);
    __syncthreads();
  }
}

template <typename T, typename From, typename To>
const char* NormaliseTyped(const Normalise& a, cudaStream_t stream) {
  const int matrices = a.x.first[a.x.count];
  SumSquares<T, From><<<dim3(kPartials, matrices), kThreads, 0, stream>>>(a);
  const long long work = static_cast<long long>(a.rows) * a.columns / 8;
  const long long blocks = (work + 4 * kThreads - 1) / (4 * kThreads);
  const dim3 grid(static_cast<unsigned>(blocks < 1      ? 1
                                        : blocks > 4096 ? 4096
                                                        : blocks),
                  matrices);
  if (a.rows <= a.columns) {
    ScaleWide<T, From, To><<<grid, kThreads, 0, stream>>>(a);
  } else {
    ScaleTall<T, From, To><<<grid, kThreads, 0, stream>>>(a);
  }
  return LastError();
}

template <typename T, typename To>
const char* NormaliseTo(const Normalise& a, cudaStream_t stream) {
  switch (a.x.type) {
    case kHalf:
      return NormaliseTyped<T, __half, To>(a, stream);
    case kBFloat16:
      return NormaliseTyped<T, __nv_bfloat16, To>(a, stream);
    case kFloat:
      return NormaliseTyped<T, float, To>(a, stream);
    default:
      return NormaliseTyped<T, double, To>(a, stream);
  }
}

struct Write {
  Tensors results;
  int rows, columns;
  const void* from;
  long long stride;
  int pitch;
};

template <typename From, typename To>
__global__ void WriteKernel(const __grid_constant__ Write w) {
  const long long size = static_cast<long long>(w.rows) * w.columns;
  To* to = MatrixData<To>(w.results, blockIdx.y, size);
  const From* from = static_cast<const From*>(w.from) + blockIdx.y * w.stride;
  const bool tall = w.rows > w.columns;
  for (long long i =
           blockIdx.x * static_cast<long long>(kThreads) + threadIdx.x;
       i < size; i += static_cast<long long>(gridDim.x) * kThreads) {
    const long long row = i / w.columns, column = i % w.columns;
    to[i] = Rounded<To>(As<double>(tall ? from[column * w.pitch + row]
                                        : from[row * w.pitch + column]));
  }
}

template <typename From>
const char* WriteTyped(const Write& w, cudaStream_t stream) {
  const long long work = static_cast<long long>(w.rows) * w.columns;
  const long long blocks = (work + 4 * kThreads - 1) / (4 * kThreads);
  const dim3 grid(static_cast<unsigned>(blocks > 4096 ? 4096 : blocks),
                  w.results.first[w.results.count]);
  switch (w.results.type) {
    case kHalf:
      WriteKernel<From, __half><<<grid, kThreads, 0, stream>>>(w);
      break;
    case kBFloat16:
      WriteKernel<From, __nv_bfloat16><<<grid, kThreads, 0, stream>>>(w);
      break;
    case kFloat:
      WriteKernel<From, float><<<grid, kThreads, 0, stream>>>(w);
      break;
    case kDouble:
      WriteKernel<From, double><<<grid, kThreads, 0, stream>>>(w);
      break;
  }
  return LastError();
}

// 64 x 64 of the result a block, 4 x 4 a thread.
template <typename T>
__global__ void SimpleKernel(const __grid_constant__ Simple s) {
  constexpr int kTile = 64, kDepth = 16;
  // The upper half of a symmetric result is written by the lower.
  if (s.symmetric && blockIdx.x > blockIdx.y) return;
  __shared__ T a_tile[kDepth][kTile + 1], b_tile[kDepth][kTile + 1];
  const T* a = static_cast<const T*>(s.a) + blockIdx.z * s.a_stride;
  const T* b = static_cast<const T*>(s.b) + blockIdx.z * s.b_stride;
  const int row = blockIdx.y * kTile, column = blockIdx.x * kTile;
  const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
  T sums[4][4] = {};
  for (int k = 0; k < s.inner; k += kDepth) {
    for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
      const int r = i / kDepth, d = i % kDepth;
      a_tile[d][r] = row + r < s.rows && k + d < s.inner
                         ? a[static_cast<long long>(row + r) * s.inner + k + d]
                         : T(0);
      if (s.transpose_b)
        b_tile[d][r] =
            column + r < s.columns && k + d < s.inner
                ? b[static_cast<long long>(column + r) * s.inner + k + d]
                : T(0);
    }
    if (!s.transpose_b) {
      for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
        const int r = i % kTile, d = i / kTile;
        b_tile[d][r] =
            column + r < s.columns && k + d < s.inner
                ? b[static_cast<long long>(k + d) * s.columns + column + r]
                : T(0);
      }
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sums[i][j] += a_tile[d][y + i] * b_tile[d][x + j];
    __syncthreads();
  }
  T* out = static_cast<T*>(s.out) + blockIdx.z * s.out_stride;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int r = row + y + i, c = column + x + j;
      if (r >= s.rows || c >= s.columns || (s.symmetric && c > r)) continue;
      const long long at = static_cast<long long>(r) * s.columns + c;
      T value = static_cast<T>(s.alpha) * sums[i][j];
      if (s.c != nullptr)
        value += static_cast<T>(s.beta) *
                 (static_cast<const T*>(s.c) + blockIdx.z * s.out_stride)[at];
      if (r == c) value += static_cast<T>(s.diagonal);
      out[at] = value;
      if (s.symmetric) out[static_cast<long long>(c) * s.columns + r] = value;
    }
  }
}

}  // namespace

const char* LaunchNormalise(const Normalise& arguments, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (arguments.to_type) {
    case kHalf:
      return NormaliseTo<float, __half>(arguments, on);
    case kBFloat16:
      return NormaliseTo<float, __nv_bfloat16>(arguments, on);
    case kFloat:
      return NormaliseTo<float, float>(arguments, on);
    default:
      return NormaliseTo<double, double>(arguments, on);
  }
}

const char* LaunchWriteResults(const Tensors& results, int rows, int columns,
                               const void* from, DeviceType from_type,
                               int64_t stride, int pitch, void* stream) {
  const Write write{results, rows, columns, from, stride, pitch};
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (from_type) {
    case kHalf:
      return WriteTyped<__half>(write, on);
    case kBFloat16:
      return WriteTyped<__nv_bfloat16>(write, on);
    case kFloat:
      return WriteTyped<float>(write, on);
    default:
      return WriteTyped<double>(write, on);
  }
}

const char* LaunchSimple(const Simple& arguments, bool f64, void* stream) {
  const dim3 grid((arguments.columns + 63) / 64, (arguments.rows + 63) / 64,
                  arguments.matrices);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (f64) {
    SimpleKernel<double><<<grid, kThreads, 0, on>>>(arguments);
  } else {
    SimpleKernel<float><<<grid, kThreads, 0, on>>>(arguments);
  }
  return LastError();
}

const char* MultiprocessorCount(int* count) {
  int device;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error =
        cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
  return TextOf(error);
}

const char* EncodeMap(CUtensorMap* map, bool bfloat16, void* data,
                      int64_t columns, int64_t rows, int64_t matrices,
                      int64_t pitch, int64_t stride) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                         12000, cudaEnableDefault,
                                         &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
      function = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled";
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns),
                              static_cast<cuuint64_t>(rows),
                              static_cast<cuuint64_t>(matrices)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(pitch) * 2,
                                static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[] = {kBox, kBox, 1}, steps[] = {1, 1, 1};
  const CUresult result =
      encode(map,
             bfloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             3, data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refused";
}

}  // namespace heddle::kernels::ns
