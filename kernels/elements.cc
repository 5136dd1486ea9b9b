// bf16 and f16 by bits: the host reference needs no vendor header.

#include "kernels/elements.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace heddle::kernels {
namespace {

template <typename T>
T At(const Operand& operand, int64_t index) {
  T value;
  std::memcpy(&value,
              static_cast<const char*>(operand.data) +
                  index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

template <typename T>
void Put(const Operand& operand, int64_t index, T value) {
  std::memcpy(static_cast<char*>(operand.data) +
                  index * static_cast<int64_t>(sizeof(T)),
              &value, sizeof(T));
}

// A small binary float: `mantissa` bits and an exponent of `exponent` bits.
double Decode(uint16_t bits, int exponent, int mantissa) {
  const int bias = (1 << (exponent - 1)) - 1;
  const int e = bits >> mantissa & ((1 << exponent) - 1);
  const int m = bits & ((1 << mantissa) - 1);
  double value;
  if (e == (1 << exponent) - 1) {
    value = m == 0 ? std::numeric_limits<double>::infinity()
                   : std::numeric_limits<double>::quiet_NaN();
  } else if (e == 0) {
    value = std::ldexp(m, 1 - bias - mantissa);
  } else {
    value = std::ldexp(m + (1 << mantissa), e - bias - mantissa);
  }
  return bits >> 15 ? -value : value;
}

uint16_t Encode(double value, int exponent, int mantissa) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int bias = (1 << (exponent - 1)) - 1;
  const uint16_t infinity =
      static_cast<uint16_t>(((1 << exponent) - 1) << mantissa);
  if (std::isnan(value))
    return static_cast<uint16_t>(infinity | 1 << (mantissa - 1));
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  if (std::isinf(magnitude)) return sign | infinity;
  int e;
  std::frexp(magnitude, &e);
  // Units in the last place of the result, those of the smallest exponent for
  // subnormals.
  const int ulp = std::max(e - 1, 1 - bias) - mantissa;
  const double units = std::nearbyint(std::ldexp(magnitude, -ulp));
  const int64_t m = static_cast<int64_t>(units);
  const int64_t biased = (std::max(e - 1, 1 - bias) + bias);
  // A carry out of the mantissa runs into the exponent, which is what rounding
  // up means.
  const int64_t bits =
      m < (1 << mantissa) ? m : (biased << mantissa) + (m - (1 << mantissa));
  return sign | static_cast<uint16_t>(bits >= infinity ? infinity : bits);
}

}  // namespace

double Load(const Operand& operand, int64_t index) {
  switch (operand.element) {
    case Element::kBool:
      return At<uint8_t>(operand, index) != 0;
    case Element::kI64:
      return static_cast<double>(At<int64_t>(operand, index));
    case Element::kF16:
      return Decode(At<uint16_t>(operand, index), 5, 10);
    case Element::kBF16:
      return Decode(At<uint16_t>(operand, index), 8, 7);
    case Element::kF32:
      return At<float>(operand, index);
    case Element::kF64:
      return At<double>(operand, index);
  }
  return 0;
}

void Store(const Operand& operand, int64_t index, double value) {
  switch (operand.element) {
    case Element::kBool:
      return Put<uint8_t>(operand, index, value != 0);
    case Element::kI64:
      return Put<int64_t>(operand, index, static_cast<int64_t>(value));
    case Element::kF16:
      return Put<uint16_t>(operand, index, Encode(value, 5, 10));
    case Element::kBF16:
      return Put<uint16_t>(operand, index, Encode(value, 8, 7));
    case Element::kF32:
      return Put<float>(operand, index, static_cast<float>(value));
    case Element::kF64:
      return Put<double>(operand, index, value);
  }
}

}  // namespace heddle::kernels
