// RMSNorm on the GPU. Rows go to warps (short ones) or blocks; a thread keeps
// its part of a row in registers between the sum and the result, and reads
// again only what does not fit. Invariant: sums are taken in an order that
// depends on the shape alone, so a run repeats its bits.

#include "kernels/vectors.cuh"

namespace heddle::kernels {
namespace {

// Packs of a row that one thread keeps.
constexpr int kKept = 2;

template <typename T, int V>
__global__ void RmsNormKernel(RmsNormDevice a) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  // Whole warps leave, and only where rows are warps' own.
  if (row >= a.shape.rows) return;
  const unsigned columns = a.shape.columns;
  const unsigned begin = threadIdx.x * V, step = blockDim.x * V;
  const long long x = RowOffset(a.shape, a.x, row);
  const bool adds = a.addend.data != nullptr;
  const long long addend = adds ? RowOffset(a.shape, a.addend, row) : 0;
  const long long sum = adds ? RowOffset(a.shape, a.sum, row) : 0;
  Pack<T, V> kept[kKept];
  float squares = 0;
  auto read = [&](unsigned c) {
    Pack<T, V> value = LoadPack<T, V>(a.x.data, x + c);
    if (adds) {
      const Pack<T, V> other = LoadPack<T, V>(a.addend.data, addend + c);
#pragma unroll
      for (int i = 0; i < V; ++i) value.Set(i, value[i] + other[i]);
      StorePack(a.sum.data, sum + c, value);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) squares += value[i] * value[i];
    return value;
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k)
    if (begin + k * step < columns) kept[k] = read(begin + k * step);
  for (unsigned c = begin + kKept * step; c < columns; c += step) read(c);
  const float root = rsqrtf(RowSum(squares) / columns + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = root;
  const long long y = RowOffset(a.shape, a.y, row);
  auto write = [&](unsigned c, Pack<T, V> value) {
    const Pack<T, V> weight = LoadPack<T, V>(a.weight, c);
#pragma unroll
    for (int i = 0; i < V; ++i) value.Set(i, value[i] * root * weight[i]);
    StorePack(a.y.data, y + c, value);
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k)
    if (begin + k * step < columns) write(begin + k * step, kept[k]);
  for (unsigned c = begin + kKept * step; c < columns; c += step)
    write(c, adds ? LoadPack<T, V>(a.sum.data, sum + c)
                  : LoadPack<T, V>(a.x.data, x + c));
}

// Every block takes the rows part, part + parts, ... and sums their share of
// the weight's gradient in shared memory, where each column has one thread per
// row of threads.
template <typename T, int V>
__global__ void RmsNormBackwardKernel(RmsNormBackwardDevice a) {
  extern __shared__ float accumulators[];
  const unsigned columns = a.shape.columns;
  float* mine = accumulators + threadIdx.y * columns;
  const unsigned begin = threadIdx.x * V, step = blockDim.x * V;
  for (unsigned c = begin; c < columns; c += step) {
#pragma unroll
    for (int i = 0; i < V; ++i) mine[c + i] = 0;
  }
  for (unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
       row < a.shape.rows; row += gridDim.x * blockDim.y) {
    const long long x = RowOffset(a.shape, a.x, row);
    long long dy[3];
#pragma unroll
    for (int p = 0; p < 3; ++p)
      dy[p] = a.dy[p].data == nullptr ? 0 : RowOffset(a.shape, a.dy[p], row);
    Pack<T, V> kept_x[kKept];
    float kept_dy[kKept][V];
    float through = 0;
    auto read_dy = [&](unsigned c, float* sum) {
      const Pack<T, V> first = LoadPack<T, V>(a.dy[0].data, dy[0] + c);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] = first[i];
#pragma unroll
      for (int p = 1; p < 3; ++p) {
        if (a.dy[p].data == nullptr) continue;
        const Pack<T, V> more = LoadPack<T, V>(a.dy[p].data, dy[p] + c);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += more[i];
      }
    };
    auto add = [&](unsigned c, const float* d, const Pack<T, V>& value) {
      const Pack<T, V> weight = LoadPack<T, V>(a.weight, c);
#pragma unroll
      for (int i = 0; i < V; ++i) through += d[i] * weight[i] * value[i];
    };
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const unsigned c = begin + k * step;
      if (c >= columns) continue;
      kept_x[k] = LoadPack<T, V>(a.x.data, x + c);
      read_dy(c, kept_dy[k]);
      add(c, kept_dy[k], kept_x[k]);
    }
    for (unsigned c = begin + kKept * step; c < columns; c += step) {
      float d[V];
      read_dy(c, d);
      add(c, d, LoadPack<T, V>(a.x.data, x + c));
    }
    const float root = a.rstd[row];
    const float share = RowSum(through) * root * root / columns;
    const long long dx = RowOffset(a.shape, a.dx, row);
    const bool adds = a.residual.data != nullptr;
    const long long residual = adds ? RowOffset(a.shape, a.residual, row) : 0;
    auto write = [&](unsigned c, const float* d, const Pack<T, V>& value) {
      const Pack<T, V> weight = LoadPack<T, V>(a.weight, c);
      Pack<T, V> rest;
      if (adds) rest = LoadPack<T, V>(a.residual.data, residual + c);
      Pack<T, V> out;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        mine[c + i] += d[i] * value[i] * root;
        const float gradient = root * (d[i] * weight[i] - value[i] * share);
        out.Set(i, adds ? gradient + rest[i] : gradient);
      }
      StorePack(a.dx.data, dx + c, out);
    };
#pragma unroll
    for (int k = 0; k < kKept; ++k)
      if (begin + k * step < columns)
        write(begin + k * step, kept_dy[k], kept_x[k]);
    for (unsigned c = begin + kKept * step; c < columns; c += step) {
      float d[V];
      read_dy(c, d);
      write(c, d, LoadPack<T, V>(a.x.data, x + c));
    }
  }
  if (blockDim.y > 1) __syncthreads();
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  float* part = a.partials + static_cast<long long>(blockIdx.x) * columns;
  if (blockDim.y == 1) {
    for (unsigned c = begin; c < columns; c += step) {
#pragma unroll
      for (int i = 0; i < V; ++i) part[c + i] = mine[c + i];
    }
    return;
  }
  for (unsigned c = thread; c < columns; c += blockDim.x * blockDim.y) {
    float sum = 0;
    for (unsigned y = 0; y < blockDim.y; ++y)
      sum += accumulators[y * columns + c];
    part[c] = sum;
  }
}

// Sums the parts of 32 columns: 16 threads a column, each its parts in order,
// then those sums in order.
template <typename T>
__global__ void SumPartsKernel(const float* partials, unsigned parts,
                               unsigned columns, void* out) {
  __shared__ float sums[16][33];
  const unsigned c = blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (c < columns) {
#pragma unroll 4
    for (unsigned p = threadIdx.y; p < parts; p += 16)
      sum += partials[static_cast<long long>(p) * columns + c];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  for (int y = 1; y < 16; ++y) sum += sums[y][threadIdx.x];
  static_cast<T*>(out)[c] = FromFloat<T>(sum);
}

dim3 ThreadsFor(unsigned columns, unsigned vector) {
  const unsigned packs = (columns + vector - 1) / vector;
  if (packs <= 32 * kKept) return dim3(32, 8);
  const unsigned wanted = (packs + kKept - 1) / kKept;
  // A thread per pack while a block holds that many.
  const unsigned threads = packs <= 512 ? packs : wanted;
  return dim3(threads >= 1024 ? 1024 : (threads + 31) / 32 * 32);
}

}  // namespace

const char* LaunchRmsNorm(const RmsNormDevice& a, int element, void* stream) {
  return WithElement(element, [&](auto type) {
    using T = decltype(type);
    constexpr unsigned kVector = 16 / sizeof(T);
    const bool adds = a.addend.data != nullptr;
    const bool vectors =
        a.shape.columns % kVector == 0 && IsAligned(a.weight) &&
        TakesVectors(a.x, kVector) && TakesVectors(a.y, kVector) &&
        (!adds ||
         (TakesVectors(a.addend, kVector) && TakesVectors(a.sum, kVector)));
    const dim3 threads = ThreadsFor(a.shape.columns, vectors ? kVector : 1);
    const unsigned blocks = (a.shape.rows + threads.y - 1) / threads.y;
    const auto on = static_cast<cudaStream_t>(stream);
    if (vectors) {
      RmsNormKernel<T, kVector><<<blocks, threads, 0, on>>>(a);
    } else {
      RmsNormKernel<T, 1><<<blocks, threads, 0, on>>>(a);
    }
    return LastError();
  });
}

const char* LaunchRmsNormBackward(const RmsNormBackwardDevice& a, int element,
                                  void* stream) {
  return WithElement(element, [&](auto type) -> const char* {
    using T = decltype(type);
    constexpr unsigned kVector = 16 / sizeof(T);
    bool vectors = a.shape.columns % kVector == 0 && IsAligned(a.weight) &&
                   TakesVectors(a.x, kVector) && TakesVectors(a.dx, kVector);
    for (const RowsOf& more : {a.dy[0], a.dy[1], a.dy[2], a.residual})
      vectors &= more.data == nullptr || TakesVectors(more, kVector);
    const dim3 threads = ThreadsFor(a.shape.columns, vectors ? kVector : 1);
    const size_t bytes = sizeof(float) * threads.y * a.shape.columns;
    const auto on = static_cast<cudaStream_t>(stream);
    auto* kernel = vectors ? &RmsNormBackwardKernel<T, kVector>
                           : &RmsNormBackwardKernel<T, 1>;
    if (bytes > 48 * 1024) {
      const cudaError_t error =
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes));
      if (error != cudaSuccess) return cudaGetErrorString(error);
    }
    kernel<<<a.parts, threads, bytes, on>>>(a);
    if (const char* error = LastError()) return error;
    SumPartsKernel<T><<<(a.shape.columns + 31) / 32, dim3(32, 16), 0, on>>>(
        a.partials, a.parts, a.shape.columns, a.dw);
    return LastError();
  });
}

}  // namespace heddle::kernels
