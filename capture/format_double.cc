// A double in the decimal form that MLIR's printer gives it, digit for digit.
// It is LLVM's APFloat::toString that MLIR calls, which cuts the exact decimal
// expansion to a few digits more than asked for before it rounds half up; so
// its last digit is not always the correctly rounded one, and printf cannot say
// it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "capture/print.h"

namespace heddle::capture {
namespace {

// A natural number, least significant word first.
class Natural {
 public:
  explicit Natural(uint64_t value)
      : words_{static_cast<uint32_t>(value),
               static_cast<uint32_t>(value >> 32)} {
    Trim();
  }

  bool IsZero() const { return words_.empty(); }
  int Bits() const {
    return words_.empty() ? 0
                          : static_cast<int>(words_.size()) * 32 -
                                __builtin_clz(words_.back());
  }

  void Multiply(uint32_t factor) {
    uint64_t carry = 0;
    for (uint32_t& word : words_) {
      carry += static_cast<uint64_t>(word) * factor;
      word = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry != 0) words_.push_back(static_cast<uint32_t>(carry));
  }

  // Divides, and returns the remainder.
  uint32_t Divide(uint32_t divisor) {
    uint64_t rest = 0;
    for (size_t i = words_.size(); i-- > 0;) {
      rest = rest << 32 | words_[i];
      words_[i] = static_cast<uint32_t>(rest / divisor);
      rest %= divisor;
    }
    Trim();
    return static_cast<uint32_t>(rest);
  }

 private:
  void Trim() {
    while (!words_.empty() && words_.back() == 0) words_.pop_back();
  }
  std::vector<uint32_t> words_;
};

// The value is `digits`, most significant first and without trailing zeros,
// times ten to the `exponent`.
struct Decimal {
  std::string digits;
  int exponent = 0;
};

void RoundHalfUp(Decimal& decimal, size_t precision) {
  std::string& digits = decimal.digits;
  if (digits.size() <= precision) return;
  bool up = digits[precision] >= '5';
  decimal.exponent += static_cast<int>(digits.size() - precision);
  digits.resize(precision);
  char dropped = up ? '9' : '0';
  while (!digits.empty() && digits.back() == dropped) {
    digits.pop_back();
    ++decimal.exponent;
  }
  if (!up) return;
  if (digits.empty()) {
    digits = "1";
  } else {
    ++digits.back();
  }
}

// `value` is positive and finite.
Decimal ToDecimal(double value, int precision) {
  int binary = 0;
  auto mantissa =
      static_cast<uint64_t>(std::ldexp(std::frexp(value, &binary), 53));
  binary -= 53;
  int zeros = __builtin_ctzll(mantissa);
  Natural number(mantissa >> zeros);
  binary += zeros;
  Decimal decimal;
  // n · 2^-e is n · 5^e · 10^-e.
  for (int i = 0; i < binary; ++i) number.Multiply(2);
  for (int i = 0; i > binary; --i) number.Multiply(5);
  if (binary < 0) decimal.exponent = binary;
  // 196/59 is a little more than log2(10).
  int removable = (number.Bits() - (precision * 196 + 58) / 59) * 59 / 196;
  for (int i = 0; i < removable; ++i) number.Divide(10);
  if (removable > 0) decimal.exponent += removable;
  bool trailing = true;
  std::string reversed;
  while (!number.IsZero()) {
    uint32_t digit = number.Divide(10);
    if (digit == 0 && trailing) {
      ++decimal.exponent;
      continue;
    }
    trailing = false;
    reversed += static_cast<char>('0' + digit);
  }
  decimal.digits.assign(reversed.rbegin(), reversed.rend());
  RoundHalfUp(decimal, precision);
  return decimal;
}

// Six significant digits and zeros up to the seventh: 1.500000e+00.
std::string Short(double value) {
  if (value == 0) return "0.000000e+00";
  Decimal decimal = ToDecimal(value, 6);
  int exponent = decimal.exponent + static_cast<int>(decimal.digits.size()) - 1;
  decimal.digits.resize(7, '0');
  char tail[16];
  std::snprintf(tail, sizeof tail, "e%c%02d", exponent >= 0 ? '+' : '-',
                std::abs(exponent));
  return decimal.digits.substr(0, 1) + "." + decimal.digits.substr(1) + tail;
}

// Seventeen significant digits; positional where at most three zeros pad them.
std::string Long(double value) {
  constexpr int kPrecision = 17, kMaxPadding = 3;
  auto [digits, last] = ToDecimal(value, kPrecision);
  auto count = static_cast<int>(digits.size());
  int first = last + count - 1;  // Power of ten of the first digit.
  bool scientific = last >= 0 ? last > kMaxPadding || count + last > kPrecision
                              : first < 0 && -first > kMaxPadding;
  if (scientific)
    return digits.substr(0, 1) + "." + (count > 1 ? digits.substr(1) : "0") +
           "E" + (first >= 0 ? "+" : "-") + std::to_string(std::abs(first));
  if (last >= 0) return digits + std::string(last, '0');
  if (first >= 0)
    return digits.substr(0, first + 1) + "." + digits.substr(first + 1);
  return "0." + std::string(-first - 1, '0') + digits;
}

}  // namespace

std::string FormatDouble(double value) {
  if (std::isfinite(value)) {
    const char* sign = std::signbit(value) ? "-" : "";
    double magnitude = std::fabs(value);
    std::string text = Short(magnitude);
    if (std::strtod(text.c_str(), nullptr) == magnitude) return sign + text;
    text = Long(magnitude);
    // Without a point it would be read as an integer.
    if (text.find('.') != std::string::npos) return sign + text;
  }
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  char hex[32];
  std::snprintf(hex, sizeof hex, "0x%016llX",
                static_cast<unsigned long long>(bits));
  return hex;
}

}  // namespace heddle::capture
