// Capture's decimal form of a double is MLIR's, and so are the other forms that
// it prints by itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "capture/print.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/MLIRContext.h"

namespace heddle::capture {
namespace {

std::string ByMlir(mlir::Builder& builder, double value) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  mlir::Attribute attribute = builder.getF64FloatAttr(value);
  attribute.print(stream);
  return text.substr(0, text.find(" : "));
}

// Random bits, so subnormals, infinities and nans too; random decimals as
// people write them; powers of ten and their neighbours.
TEST(FormatDouble, IsWhatMlirPrints) {
  mlir::MLIRContext context(mlir::MLIRContext::Threading::DISABLED);
  mlir::Builder builder(&context);
  std::vector<double> values{
      0.0,     -0.0,     1.0,       -1.0,     0.1,
      1e-5,    1e-6,     1e-8,      0.044715, 0.7978845608028654,
      2.0 / 3, 123456.0, 1234567.0, 999999.5, 9.999995e-7};
  for (double special :
       {std::numeric_limits<double>::infinity(), std::nan(""),
        std::numeric_limits<double>::denorm_min(),
        std::numeric_limits<double>::min(), std::numeric_limits<double>::max(),
        std::numeric_limits<double>::epsilon(),
        static_cast<double>(std::numeric_limits<float>::lowest())}) {
    values.push_back(special);
    values.push_back(-special);
  }
  for (int exponent = -320; exponent <= 308; ++exponent) {
    double power = std::pow(10.0, exponent);
    for (double value :
         {power, std::nextafter(power, 0), std::nextafter(power, 1e308),
          5 * power, -power, 1.5 * power, 123456 * power})
      values.push_back(value);
  }
  std::mt19937_64 random(7);
  while (values.size() < 22000) {
    uint64_t bits = random();
    if (values.size() % 4 == 0) bits &= 0x800fffffffffffffULL;  // Subnormal.
    double value;
    std::memcpy(&value, &bits, sizeof value);
    values.push_back(value);
    values.push_back(static_cast<double>(random() % 2000001) /
                     std::pow(10.0, random() % 12));
    values.push_back(
        static_cast<float>(std::ldexp(static_cast<double>(random() % (1 << 24)),
                                      static_cast<int>(random() % 60) - 40)));
  }
  size_t wrong = 0;
  for (double value : values) {
    std::string ours = FormatDouble(value), theirs = ByMlir(builder, value);
    if (ours != theirs && ++wrong <= 10)
      ADD_FAILURE() << ours << " is " << theirs << " to MLIR";
  }
  EXPECT_EQ(wrong, 0u) << "of " << values.size();
}

}  // namespace
}  // namespace heddle::capture
