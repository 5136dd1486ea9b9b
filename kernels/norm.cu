// RMSNorm on the GPU. Rows go to warps (short ones) or blocks; a thread keeps
// its part of a row in registers between the sum and the result, and reads
// again only what does not fit. Invariant: sums are taken in an order that
// depends on the shape alone, so a run repeats its bits.

#include "kernels/vectors.cuh"

namespace heddle::kernels {
namespace {

constexpr int kBackwardThreads = 512;

// A thread keeps `kKept` packs of its row.
template <typename T, int V, int kKept>
__global__ void __launch_bounds__(kKept == 8 ? 128 : 1024)
    RmsNormKernel(const __grid_constant__ RmsNormDevice a) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  // Whole warps leave, and only where rows are warps' own.
  if (row >= a.shape.rows) return;
  const unsigned columns = a.shape.columns;
  const unsigned begin = threadIdx.x * V, step = blockDim.x * V;
  const RowIndex index(a.shape, row);
  const long long x = index.Offset(a.x);
  const bool adds = a.addend.data != nullptr;
  const long long addend = adds ? index.Offset(a.addend) : 0;
  const long long sum = adds ? index.Offset(a.sum) : 0;
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
  const long long y = index.Offset(a.y);
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
// row of threads. A thread keeps one pack of its row; what memory it needs
// after the row's sum it asks for before. `kWhole`: the threads' packs are the
// row.
template <typename T, int V, bool kWhole>
__global__ void __launch_bounds__(kBackwardThreads, kWhole ? 2 : 1)
    RmsNormBackwardKernel(const __grid_constant__ RmsNormBackwardDevice a) {
  // Slot (pack k, element i, thread): neighbours of a warp in one row of banks.
  extern __shared__ float accumulators[];
  const unsigned columns = a.shape.columns;
  const unsigned begin = threadIdx.x * V, step = blockDim.x * V;
  const unsigned slots = (columns + step - 1) / step * step;
  float* mine = accumulators + threadIdx.y * slots + threadIdx.x;
  auto slot = [&](unsigned c, int i) -> float& {
    return mine[(kWhole ? i : c / step * V + i) * blockDim.x];
  };
  for (unsigned c = begin; c < columns; c += step) {
#pragma unroll
    for (int i = 0; i < V; ++i) slot(c, i) = 0;
  }
  const bool keeps = begin < columns;
  const bool adds = a.residual.data != nullptr;
  for (unsigned row = blockIdx.x * blockDim.y + threadIdx.y; row < a.shape.rows;
       row += gridDim.x * blockDim.y) {
    const RowIndex index(a.shape, row);
    const long long x = index.Offset(a.x);
    long long dy[3];
#pragma unroll
    for (int p = 0; p < 3; ++p)
      dy[p] = a.dy[p].data == nullptr ? 0 : index.Offset(a.dy[p]);
    const long long residual = adds ? index.Offset(a.residual) : 0;
    const float root = a.rstd[row];
    float through = 0;
    auto read_dy = [&](unsigned c, float* sum) {
      const Pack<T, V> first = LoadPack<T, V>(a.dy[0].data, dy[0] + c);
      Pack<T, V> second, third;
      if (a.dy[1].data != nullptr)
        second = LoadPack<T, V>(a.dy[1].data, dy[1] + c);
      if (a.dy[2].data != nullptr)
        third = LoadPack<T, V>(a.dy[2].data, dy[2] + c);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        sum[i] = first[i];
        if (a.dy[1].data != nullptr) sum[i] += second[i];
        if (a.dy[2].data != nullptr) sum[i] += third[i];
      }
    };
    auto add = [&](const float* d, const Pack<T, V>& value,
                   const Pack<T, V>& weight) {
#pragma unroll
      for (int i = 0; i < V; ++i) through += d[i] * weight[i] * value[i];
    };
    Pack<T, V> kept_x, kept_residual;
    float kept_dy[V];
    if (keeps) {
      kept_x = LoadPack<T, V>(a.x.data, x + begin);
      if (adds)
        kept_residual = LoadPack<T, V>(a.residual.data, residual + begin);
      read_dy(begin, kept_dy);
      add(kept_dy, kept_x, LoadPack<T, V>(a.weight, begin));
    }
    for (unsigned c = begin + step; !kWhole && c < columns; c += step) {
      float d[V];
      read_dy(c, d);
      add(d, LoadPack<T, V>(a.x.data, x + c), LoadPack<T, V>(a.weight, c));
    }
    const float share = RowSum(through) * root * root / columns;
    const long long dx = index.Offset(a.dx);
    auto write = [&](unsigned c, const float* d, const Pack<T, V>& value,
                     const Pack<T, V>& weight, const Pack<T, V>& rest) {
      Pack<T, V> out;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        slot(c, i) += d[i] * value[i] * root;
        const float gradient = root * (d[i] * weight[i] - value[i] * share);
        out.Set(i, adds ? gradient + rest[i] : gradient);
      }
      StorePack(a.dx.data, dx + c, out);
    };
    if (keeps)
      write(begin, kept_dy, kept_x, LoadPack<T, V>(a.weight, begin),
            kept_residual);
    for (unsigned c = begin + step; !kWhole && c < columns; c += step) {
      float d[V];
      read_dy(c, d);
      Pack<T, V> rest;
      if (adds) rest = LoadPack<T, V>(a.residual.data, residual + c);
      write(c, d, LoadPack<T, V>(a.x.data, x + c), LoadPack<T, V>(a.weight, c),
            rest);
    }
  }
  if (blockDim.y > 1) __syncthreads();
  // The rows of threads share the packs among them.
  mine = accumulators + threadIdx.x;
  float* part = a.partials + static_cast<long long>(blockIdx.x) * columns;
  for (unsigned c = begin + threadIdx.y * step; c < columns;
       c += blockDim.y * step) {
    Pack<float, V> sums;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      sums.v[i] = 0;
      for (unsigned y = 0; y < blockDim.y; ++y)
        sums.v[i] += (&slot(c, i))[y * slots];
    }
    StorePack<float, V>(part, c, sums);
  }
}

// Sums the parts of 32 columns: 32 threads a column, each its parts in order,
// then those sums in order.
template <typename T>
__global__ void SumPartsKernel(const float* partials, unsigned parts,
                               unsigned columns, void* out) {
  __shared__ float sums[32][33];
  const unsigned c = blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (c < columns) {
#pragma unroll 8
    for (unsigned p = threadIdx.y; p < parts; p += 32)
      sum += partials[static_cast<long long>(p) * columns + c];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  for (int y = 1; y < 32; ++y) sum += sums[y][threadIdx.x];
  static_cast<T*>(out)[c] = FromFloat<T>(sum);
}

unsigned WholeWarps(unsigned threads) { return (threads + 31) / 32 * 32; }

// Forward: a warp per row of up to eight packs a thread, then a block of up to
// four; what is longer is read twice.
dim3 ForwardThreads(unsigned packs) {
  if (packs <= 256) return dim3(32, 4);
  const unsigned threads = (packs + 3) / 4;
  return dim3(threads >= 1024 ? 1024 : WholeWarps(threads));
}

// Backward: a warp per row where rows are short, then a thread per pack while a
// block holds that many.
dim3 BackwardThreads(unsigned packs) {
  if (packs <= 64) return dim3(32, 8);
  return dim3(packs >= kBackwardThreads ? kBackwardThreads : WholeWarps(packs));
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
    const unsigned vector = vectors ? kVector : 1;
    const dim3 threads =
        ForwardThreads((a.shape.columns + vector - 1) / vector);
    const unsigned blocks = (a.shape.rows + threads.y - 1) / threads.y;
    const auto on = static_cast<cudaStream_t>(stream);
    auto* kernel = threads.y > 1 ? (vectors ? &RmsNormKernel<T, kVector, 8>
                                            : &RmsNormKernel<T, 1, 8>)
                                 : (vectors ? &RmsNormKernel<T, kVector, 4>
                                            : &RmsNormKernel<T, 1, 4>);
    kernel<<<blocks, threads, 0, on>>>(a);
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
    const unsigned vector = vectors ? kVector : 1;
    const dim3 threads =
        BackwardThreads((a.shape.columns + vector - 1) / vector);
    const unsigned step = threads.x * vector;
    const size_t bytes = sizeof(float) * threads.y *
                         ((a.shape.columns + step - 1) / step * step);
    const auto on = static_cast<cudaStream_t>(stream);
    const bool whole = step >= a.shape.columns;
    auto* kernel = vectors ? (whole ? &RmsNormBackwardKernel<T, kVector, true>
                                    : &RmsNormBackwardKernel<T, kVector, false>)
                           : &RmsNormBackwardKernel<T, 1, false>;
    if (bytes > 48 * 1024) {
      const cudaError_t error = cudaFuncSetAttribute(
          reinterpret_cast<const void*>(kernel),
          cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
      if (error != cudaSuccess) return cudaGetErrorString(error);
    }
    kernel<<<a.parts, threads, bytes, on>>>(a);
    if (const char* error = LastError()) return error;
    SumPartsKernel<T><<<(a.shape.columns + 31) / 32, dim3(32, 32), 0, on>>>(
        a.partials, a.parts, a.shape.columns, a.dw);
    return LastError();
  });
}

}  // namespace heddle::kernels
