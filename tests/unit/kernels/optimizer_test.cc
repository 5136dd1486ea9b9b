// The host references against arithmetic done by hand, and the number formats
// against their definition.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/elements.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

template <typename T>
Operand Over(std::vector<T>& data, Element element) {
  return {data.data(), element, static_cast<int64_t>(data.size())};
}

TEST(RegistryTest, KnowsItsKernels) {
  EXPECT_EQ(Find("no_such_kernel"), nullptr);
  for (const char* name : {"accumulate", "adamw", "cast", "grad_norm"}) {
    ASSERT_NE(Find(name), nullptr) << name;
    EXPECT_NE(Find(name)->host, nullptr) << name;
  }
  EXPECT_NE(KnownNames().find("accumulate"), std::string::npos);
}

TEST(ElementsTest, BFloat16IsTheTopHalfOfAFloatRoundedToEven) {
  uint16_t bits = 0;
  const Operand one{&bits, Element::kBF16, 1};
  for (uint32_t pattern = 0; pattern < 0x7f800000u; pattern += 0x1357) {
    float value;
    std::memcpy(&value, &pattern, 4);
    Store(one, 0, value);
    EXPECT_EQ(bits, static_cast<uint16_t>(
                        (pattern + 0x7fff + (pattern >> 16 & 1)) >> 16))
        << value;
  }
  for (uint32_t pattern = 0; pattern < 0x7f80; ++pattern) {
    bits = static_cast<uint16_t>(pattern);
    const double value = Load(one, 0);
    Store(one, 0, value);
    EXPECT_EQ(bits, pattern);
  }
}

TEST(ElementsTest, HalfRoundTripsAndSaturatesToInfinity) {
  uint16_t bits = 0;
  const Operand one{&bits, Element::kF16, 1};
  for (uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
    bits = static_cast<uint16_t>(pattern);
    const double value = Load(one, 0);
    if (std::isnan(value)) continue;
    Store(one, 0, value);
    EXPECT_EQ(bits, pattern);
  }
  Store(one, 0, 65520.0);
  EXPECT_EQ(bits, 0x7c00);
  Store(one, 0, 65519.0);
  EXPECT_EQ(bits, 0x7bff);
  Store(one, 0, std::ldexp(1, -25));
  EXPECT_EQ(bits, 0);
}

TEST(AccumulateTest, SetsThenAdds) {
  std::vector<float> dst{9, 9}, src{1, 2};
  Call call;
  call.tensors = {{"dst", {Over(dst, Element::kF32)}},
                  {"src", {Over(src, Element::kF32)}}};
  call.scalars["first"] = 1;
  ASSERT_TRUE(Find("accumulate")->host(call).ok());
  EXPECT_EQ(dst, src);
  call.scalars["first"] = 0;
  ASSERT_TRUE(Find("accumulate")->host(call).ok());
  EXPECT_EQ(dst, (std::vector<float>{2, 4}));
}

TEST(GradNormTest, ClipsAndSeesInfinity) {
  std::vector<float> a{3}, b{4}, norm(1), factor(1);
  std::vector<uint8_t> finite(1);
  Call call;
  call.tensors["grads"] = {Over(a, Element::kF32), Over(b, Element::kF32)};
  call.scalars = {{"divisor", 1}, {"max_norm", 1}};
  call.results = {Over(norm, Element::kF32), Over(factor, Element::kF32),
                  Over(finite, Element::kBool)};
  ASSERT_TRUE(Find("grad_norm")->host(call).ok());
  EXPECT_EQ(norm[0], 5);
  EXPECT_FLOAT_EQ(factor[0], 1 / (5 + 1e-6f));
  EXPECT_EQ(finite[0], 1);
  a[0] = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(Find("grad_norm")->host(call).ok());
  EXPECT_EQ(finite[0], 0);
}

TEST(AdamWTest, FirstStepMovesByTheLearningRate) {
  std::vector<double> param{1, -1}, grad{0.5, -3}, m{0, 0}, v{0, 0};
  Call call;
  call.tensors = {{"param", {Over(param, Element::kF64)}},
                  {"grad", {Over(grad, Element::kF64)}},
                  {"exp_avg", {Over(m, Element::kF64)}},
                  {"exp_avg_sq", {Over(v, Element::kF64)}}};
  call.scalars = {{"lr", 0.1},     {"step", 1}, {"beta1", 0.9},
                  {"beta2", 0.99}, {"eps", 0},  {"weight_decay", 0.5}};
  ASSERT_TRUE(Find("adamw")->host(call).ok());
  // Bias correction makes the first step lr * sign(g), after the decay.
  EXPECT_NEAR(param[0], 1 * (1 - 0.05) - 0.1, 1e-12);
  EXPECT_NEAR(param[1], -1 * (1 - 0.05) + 0.1, 1e-12);
  std::vector<uint8_t> finite{0};
  call.tensors["finite"] = {Over(finite, Element::kBool)};
  const std::vector<double> before = param;
  ASSERT_TRUE(Find("adamw")->host(call).ok());
  EXPECT_EQ(param, before);
}

}  // namespace
}  // namespace heddle::kernels
