// Momentum and parameter update of Muon on the GPU, many tensors a launch.
// Invariant: one rounding an operation, as the host reference, so the bits are
// the same. Memory is what limits both: a thread has kGroups groups of four
// elements of every tensor it reads on their way before it uses the first, and
// nothing that it wrote is read again.

#include <cuda_runtime.h>

#include "kernels/elements.cuh"
#include "kernels/launch.cuh"
#include "kernels/muon_cuda.h"

namespace heddle::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kGroups = 4;
static_assert(kMuonBlock == kThreads * 4 * kGroups, "all of a block's loads");

// A constant of the launch kept in a register: the compiler would make it again
// for every element, from doubles.
__device__ float Kept(float value) {
  asm volatile("" : "+f"(value));
  return value;
}
__device__ double Kept(double value) {
  asm volatile("" : "+d"(value));
  return value;
}
__device__ bool Kept(bool value) {
  int word = value;
  asm volatile("" : "+r"(word));
  return word != 0;
}

// torch.lerp by a weight that all elements share: from its nearer end.
template <typename T>
struct Lerp {
  bool from_start;
  T share;
  __device__ explicit Lerp(T weight)
      : from_start(Kept((weight < T(0) ? -weight : weight) < T(0.5))),
        share(Kept(from_start ? weight : -Add(T(1), -weight))) {}
  __device__ T operator()(T start, T end) const {
    return Add(from_start ? start : end, Mul(share, Add(end, -start)));
  }
};

__device__ const MuonEntry& EntryOf(const MuonDevice& a, int block) {
  int low = 0, high = a.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (a.entries[middle].blocks_before <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return a.entries[low];
}

// Four elements of a type as they lie in memory, 16-bit ones in the first half.
__device__ uint4 LoadFour(const void* data, int element, long long i) {
  if (element == kDeviceF32) {
    return *reinterpret_cast<const uint4*>(static_cast<const float*>(data) + i);
  }
  const uint2 half =
      *reinterpret_cast<const uint2*>(static_cast<const __half*>(data) + i);
  return {half.x, half.y, 0, 0};
}

// In assembly, since the compiler may make four stores of an assignment.
__device__ void StoreFour(void* data, int element, long long i, uint4 four) {
  if (element == kDeviceF32) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(
                     static_cast<float*>(data) + i),
                 "r"(four.x), "r"(four.y), "r"(four.z), "r"(four.w)
                 : "memory");
  } else {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(
                     static_cast<__half*>(data) + i),
                 "r"(four.x), "r"(four.y)
                 : "memory");
  }
}

struct Values {
  float v[4];
};

__device__ Values Widen(int element, uint4 four) {
  if (element == kDeviceF32)
    return {__uint_as_float(four.x), __uint_as_float(four.y),
            __uint_as_float(four.z), __uint_as_float(four.w)};
  float2 low, high;
  if (element == kDeviceBF16) {
    low = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&four.x));
    high = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&four.y));
  } else {
    low = __half22float2(*reinterpret_cast<__half2*>(&four.x));
    high = __half22float2(*reinterpret_cast<__half2*>(&four.y));
  }
  return {low.x, low.y, high.x, high.y};
}

__device__ uint4 Narrow(int element, const Values& from) {
  const float* v = from.v;
  if (element == kDeviceF32)
    return {__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
            __float_as_uint(v[3])};
  uint4 four = {};
  if (element == kDeviceBF16) {
    *reinterpret_cast<__nv_bfloat162*>(&four.x) =
        __floats2bfloat162_rn(v[0], v[1]);
    *reinterpret_cast<__nv_bfloat162*>(&four.y) =
        __floats2bfloat162_rn(v[2], v[3]);
  } else {
    *reinterpret_cast<__half2*>(&four.x) = __floats2half2_rn(v[0], v[1]);
    *reinterpret_cast<__half2*>(&four.y) = __floats2half2_rn(v[2], v[3]);
  }
  return four;
}

__device__ bool Skipped(const MuonDevice& a) {
  return a.finite != nullptr && *a.finite == 0;
}

// What a kernel does to an element, in the arithmetic of T: the state, one of
// the two tensors read, and the third tensor, from the state as it was stored.
// kZeroesThird: in a step that is skipped; else that leaves everything alone.
template <typename T>
struct MomentumBase {
  static constexpr bool kWritesFirst = false, kZeroesThird = true;
  T beta, divisor, scale;
  bool nesterov;
  __device__ explicit MomentumBase(const MuonDevice& a)
      : beta(Kept(static_cast<T>(a.momentum))),
        divisor(Kept(static_cast<T>(a.divisor))),
        scale(a.gradient_factor == nullptr
                  ? T(1)
                  : static_cast<T>(*a.gradient_factor)),
        nesterov(a.nesterov) {}
  __device__ T Scaled(T gradient) const {
    if (divisor != T(1)) gradient = Div(gradient, divisor);
    return scale != T(1) ? Mul(gradient, scale) : gradient;
  }
};

// The new `second`, the momentum; `first` becomes the scaled gradient. Third:
// the matrix.
template <typename T>
struct Momentum : MomentumBase<T> {
  __device__ explicit Momentum(const MuonDevice& a, const MuonEntry&)
      : MomentumBase<T>(a) {}
  __device__ T State(T& first, T second) const {
    first = this->Scaled(first);
    return Add(Mul(this->beta, second), first);
  }
  __device__ T Third(T first, T state) const {
    return this->nesterov ? Add(first, Mul(this->beta, state)) : state;
  }
};

template <typename T>
struct EmaMomentum : MomentumBase<T> {
  Lerp<T> to_gradient, to_state;
  __device__ explicit EmaMomentum(const MuonDevice& a, const MuonEntry&)
      : MomentumBase<T>(a),
        to_gradient(static_cast<T>(1 - a.momentum)),
        to_state(this->beta) {}
  __device__ T State(T& first, T second) const {
    first = this->Scaled(first);
    return to_gradient(second, first);
  }
  __device__ T Third(T first, T state) const {
    return this->nesterov ? to_state(first, state) : state;
  }
};

template <typename T>
struct Apply {
  static constexpr bool kWritesFirst = true, kZeroesThird = false;
  T decay, factor;
  __device__ explicit Apply(const MuonDevice& a, const MuonEntry& entry)
      : decay(Kept(static_cast<T>(a.decay))),
        factor(Kept(static_cast<T>(entry.factor))) {}
  // The new `first`, the parameter.
  __device__ T State(T& first, T second) const {
    const T p = decay != T(1) ? Mul(first, decay) : first;
    return Add(p, Mul(factor, second));
  }
  // The copy.
  __device__ T Third(T, T state) const { return state; }
};

// A block's whole groups: from `begin` to `end`, a multiple of four.
template <typename Update>
__device__ void UpdateGroups(const MuonDevice& a, const MuonEntry& entry,
                             const Update& update, long long begin,
                             long long end) {
  constexpr bool kFirst = Update::kWritesFirst;
  void* const state_data = kFirst ? entry.first : entry.second;
  const int state_element = kFirst ? a.first_element : a.second_element;
  const long long at = begin + threadIdx.x * 4;
  uint4 first[kGroups], second[kGroups];
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const long long i = at + group * kThreads * 4;
    if (i >= end) continue;
    first[group] = LoadFour(entry.first, a.first_element, i);
    second[group] = LoadFour(entry.second, a.second_element, i);
  }
  // After the loads, which need not wait for it.
  const bool skip = Skipped(a);
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const long long i = at + group * kThreads * 4;
    if (i >= end || (skip && !Update::kZeroesThird)) continue;
    Values x = Widen(a.first_element, first[group]), third{};
    const Values y = Widen(a.second_element, second[group]);
    if (!skip) {
      Values state;
#pragma unroll
      for (int e = 0; e < 4; ++e) state.v[e] = update.State(x.v[e], y.v[e]);
      const uint4 stored = Narrow(state_element, state);
      StoreFour(state_data, state_element, i, stored);
      state = Widen(state_element, stored);
#pragma unroll
      for (int e = 0; e < 4; ++e) third.v[e] = update.Third(x.v[e], state.v[e]);
    }
    if (entry.third != nullptr)
      StoreFour(entry.third, a.third_element, i,
                Narrow(a.third_element, third));
  }
}

template <template <typename> class Update, typename T>
__global__ void __launch_bounds__(kThreads)
    UpdateKernel(const __grid_constant__ MuonDevice a) {
  const MuonEntry& entry = EntryOf(a, static_cast<int>(blockIdx.x));
  const Update<T> update(a, entry);
  const long long begin =
      (static_cast<long long>(blockIdx.x) - entry.blocks_before) * kMuonBlock;
  const long long end =
      begin + kMuonBlock < entry.count ? begin + kMuonBlock : entry.count;
  long long rest = begin;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (entry.groups) {
      rest = end / 4 * 4;
      UpdateGroups(a, entry, update, begin, rest);
    }
  }
  const bool skip = Skipped(a);
  constexpr bool kFirst = Update<T>::kWritesFirst;
  void* const state_data = kFirst ? entry.first : entry.second;
  const int state_element = kFirst ? a.first_element : a.second_element;
  for (long long i = rest + threadIdx.x; i < end; i += kThreads) {
    if (skip && !Update<T>::kZeroesThird) return;
    T third = 0;
    if (!skip) {
      T x = Read<T>(entry.first, a.first_element, i);
      const T y = Read<T>(entry.second, a.second_element, i);
      Write(state_data, state_element, i, update.State(x, y));
      third = update.Third(x, Read<T>(state_data, state_element, i));
    }
    if (entry.third != nullptr) Write(entry.third, a.third_element, i, third);
  }
}

const char* Launch(void (*kernel)(MuonDevice), const MuonDevice& arguments,
                   void* stream) {
  kernel<<<arguments.blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      arguments);
  return LastError();
}

}  // namespace

const char* LaunchMuonMomentum(const MuonDevice& arguments, bool f64,
                               void* stream) {
  auto* kernel = arguments.ema ? f64 ? &UpdateKernel<EmaMomentum, double>
                                     : &UpdateKernel<EmaMomentum, float>
                 : f64 ? &UpdateKernel<Momentum, double>
                               : &UpdateKernel<Momentum, float>;
  return Launch(kernel, arguments, stream);
}

const char* LaunchMuonApply(const MuonDevice& arguments, bool f64,
                            void* stream) {
  return Launch(
      f64 ? &UpdateKernel<Apply, double> : &UpdateKernel<Apply, float>,
      arguments, stream);
}

}  // namespace heddle::kernels
