#include "runtime/comm/reduce.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace heddle::comm {
namespace {

// Elements reduced before they are written: small enough for the first cache,
// and what makes reading from an output's own address safe.
constexpr int64_t kBlock = 1024;

struct BFloat16 {
  uint16_t bits;
  operator float() const {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  static BFloat16 Round(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    if (std::isnan(value)) return {static_cast<uint16_t>(wide >> 16 | 0x40)};
    // To the nearest, ties to even.
    wide += 0x7fff + ((wide >> 16) & 1);
    return {static_cast<uint16_t>(wide >> 16)};
  }
};

struct Float16 {
  _Float16 value;
  operator float() const { return value; }
  static Float16 Round(float value) { return {static_cast<_Float16>(value)}; }
};

// Memory type -> the type that is reduced, and back.
template <typename T, bool = std::is_arithmetic_v<T>>
struct Accumulate {
  using Type = T;
  static T Store(T value) { return value; }
};
template <typename T>
struct Accumulate<T, false> {
  using Type = float;
  static T Store(float value) { return T::Round(value); }
};

template <typename A>
bool IsNan(A value) {
  if constexpr (std::is_floating_point_v<A>) return std::isnan(value);
  return false;
}

template <Reduction reduction, typename A>
A Combine(A a, A b) {
  if constexpr (reduction == Reduction::kSum) {
    if constexpr (std::is_integral_v<A>) {
      using U = std::make_unsigned_t<A>;
      return static_cast<A>(static_cast<U>(a) + static_cast<U>(b));
    } else {
      return a + b;
    }
  } else if constexpr (reduction == Reduction::kMax) {
    return IsNan(a) || a > b ? a : b;
  } else {
    return IsNan(a) || a < b ? a : b;
  }
}

template <typename T, Reduction reduction>
void Run(absl::Span<const void* const> inputs, absl::Span<void* const> outputs,
         int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::Type;
  A sum[kBlock];
  T rounded[kBlock];
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t n = std::min(kBlock, end - start);
    const T* first = static_cast<const T*>(inputs[0]) + start;
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<A>(first[i]);
    for (size_t q = 1; q < inputs.size(); ++q) {
      const T* next = static_cast<const T*>(inputs[q]) + start;
      for (int64_t i = 0; i < n; ++i)
        sum[i] = Combine<reduction, A>(sum[i], static_cast<A>(next[i]));
    }
    for (int64_t i = 0; i < n; ++i) rounded[i] = Accumulate<T>::Store(sum[i]);
    for (void* output : outputs)
      std::memcpy(static_cast<T*>(output) + start, rounded, n * sizeof(T));
  }
}

template <typename T>
void Choose(Reduction reduction, absl::Span<const void* const> inputs,
            absl::Span<void* const> outputs, int64_t begin, int64_t end) {
  switch (reduction) {
    case Reduction::kSum:
      return Run<T, Reduction::kSum>(inputs, outputs, begin, end);
    case Reduction::kMax:
      return Run<T, Reduction::kMax>(inputs, outputs, begin, end);
    case Reduction::kMin:
      return Run<T, Reduction::kMin>(inputs, outputs, begin, end);
  }
}

}  // namespace

void ReduceRange(plan::DType dtype, Reduction reduction,
                 absl::Span<const void* const> inputs,
                 absl::Span<void* const> outputs, int64_t begin, int64_t end) {
  switch (dtype) {
    case plan::DType::kF64:
      return Choose<double>(reduction, inputs, outputs, begin, end);
    case plan::DType::kF32:
      return Choose<float>(reduction, inputs, outputs, begin, end);
    case plan::DType::kBF16:
      return Choose<BFloat16>(reduction, inputs, outputs, begin, end);
    case plan::DType::kF16:
      return Choose<Float16>(reduction, inputs, outputs, begin, end);
    case plan::DType::kI64:
      return Choose<int64_t>(reduction, inputs, outputs, begin, end);
    case plan::DType::kI32:
      return Choose<int32_t>(reduction, inputs, outputs, begin, end);
    case plan::DType::kI8:
      return Choose<int8_t>(reduction, inputs, outputs, begin, end);
    case plan::DType::kU8:
    case plan::DType::kBool:
      return Choose<uint8_t>(reduction, inputs, outputs, begin, end);
    default:
      // Validate has refused it.
      return;
  }
}

}  // namespace heddle::comm
