// SwiGLU and rotary embedding on the GPU, forward and backward: every element
// read once, computed in float, written once. Results may lie over operands: a
// thread has read what it overwrites.

#include "kernels/vectors.cuh"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float value) { return 1.0f / (1.0f + expf(-value)); }

template <typename T, int V, bool kBackward>
__global__ void SwiGluKernel(SwiGluDevice a) {
  const long long at =
      (blockIdx.x * static_cast<long long>(kThreads) + threadIdx.x) * V;
  if (at >= a.count) return;
  const Pack<T, V> gate = LoadPack<T, V>(a.gate, at);
  const Pack<T, V> up = LoadPack<T, V>(a.up, at);
  Pack<T, V> first;
  if (!kBackward) {
#pragma unroll
    for (int i = 0; i < V; ++i)
      first.Set(i, gate[i] * Sigmoid(gate[i]) * up[i]);
    StorePack(a.first, at, first);
    return;
  }
  const Pack<T, V> dy = LoadPack<T, V>(a.dy, at);
  Pack<T, V> second;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float g = gate[i], d = dy[i], s = Sigmoid(g);
    first.Set(i, d * up[i] * s * (1.0f + g * (1.0f - s)));
    second.Set(i, d * g * s);
  }
  StorePack(a.first, at, first);
  StorePack(a.second, at, second);
}

// A thread rotates V elements of a row's first half with those of its second.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    RotaryKernel(const __grid_constant__ RotaryDevice a) {
  const unsigned half = a.shape.columns / 2, packs = half / V;
  // Of a launch of at most 2^32 threads: LaunchRotary sees to it.
  const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
  const unsigned row = thread / packs;
  if (row >= a.shape.rows) return;
  const unsigned c = (thread - row * packs) * V;
  const RowIndex index(a.shape, row);
  const long long x = index.Offset(a.x) + c, y = index.Offset(a.y) + c;
  const long long cosine = index.Offset(a.cosine) + c;
  const long long sine = index.Offset(a.sine) + c;
  const Pack<T, V> low = LoadPack<T, V>(a.x.data, x);
  const Pack<T, V> high = LoadPack<T, V>(a.x.data, x + half);
  const Pack<T, V> cos_low = LoadPack<T, V>(a.cosine.data, cosine);
  const Pack<T, V> cos_high = LoadPack<T, V>(a.cosine.data, cosine + half);
  const Pack<T, V> sin_low = LoadPack<T, V>(a.sine.data, sine);
  const Pack<T, V> sin_high = LoadPack<T, V>(a.sine.data, sine + half);
  Pack<T, V> first, second;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (a.back) {
      first.Set(i, low[i] * cos_low[i] + high[i] * sin_high[i]);
      second.Set(i, high[i] * cos_high[i] - low[i] * sin_low[i]);
    } else {
      first.Set(i, low[i] * cos_low[i] - high[i] * sin_low[i]);
      second.Set(i, high[i] * cos_high[i] + low[i] * sin_high[i]);
    }
  }
  StorePack(a.y.data, y, first);
  StorePack(a.y.data, y + half, second);
}

}  // namespace

const char* LaunchSwiGlu(const SwiGluDevice& a, int element, void* stream) {
  return WithElement(element, [&](auto type) {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    bool vectors = a.count % kVector == 0;
    for (const void* data :
         {a.gate, a.up, a.dy, static_cast<const void*>(a.first),
          static_cast<const void*>(a.second)})
      vectors &= IsAligned(data);
    auto* kernel = a.dy == nullptr ? (vectors ? &SwiGluKernel<T, kVector, false>
                                              : &SwiGluKernel<T, 1, false>)
                                   : (vectors ? &SwiGluKernel<T, kVector, true>
                                              : &SwiGluKernel<T, 1, true>);
    const long long threads = a.count / (vectors ? kVector : 1);
    const auto blocks =
        static_cast<unsigned>((threads + kThreads - 1) / kThreads);
    kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    return LastError();
  });
}

const char* LaunchRotary(const RotaryDevice& a, int element, void* stream) {
  return WithElement(element, [&](auto type) -> const char* {
    using T = decltype(type);
    constexpr int kVector = 16 / sizeof(T);
    const unsigned half = a.shape.columns / 2;
    bool vectors = half % kVector == 0;
    for (const RowsOf& t : {a.x, a.y, a.cosine, a.sine})
      vectors &= TakesVectors(t, kVector);
    const long long threads =
        a.shape.rows * static_cast<long long>(half / (vectors ? kVector : 1));
    if (threads > 0xffffff00ll) return "more rows than a launch can take";
    const auto blocks =
        static_cast<unsigned>((threads + kThreads - 1) / kThreads);
    auto* kernel = vectors ? &RotaryKernel<T, kVector> : &RotaryKernel<T, 1>;
    kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
    return LastError();
  });
}

}  // namespace heddle::kernels
