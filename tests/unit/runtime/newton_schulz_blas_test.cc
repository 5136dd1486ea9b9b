// Newton-Schulz through BLAS against the plain loops of kernels/, the same
// program with the same roundings: only the order of sums differs. Without the
// mirroring of symmetric products every form and type fails.

#include "runtime/torch/newton_schulz_blas.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

namespace heddle::torch_runtime {
namespace {

kernels::Operand OperandOf(const at::Tensor& tensor) {
  kernels::Operand operand{tensor.data_ptr(), kernels::Element::kF32,
                           tensor.numel(), tensor.sizes().vec()};
  if (tensor.scalar_type() == at::kDouble)
    operand.element = kernels::Element::kF64;
  if (tensor.scalar_type() == at::kBFloat16)
    operand.element = kernels::Element::kBF16;
  return operand;
}

kernels::Call CallOf(const at::Tensor& x, const at::Tensor& result,
                     const std::string& ns, const std::string& dtype) {
  kernels::Call call;
  call.tensors["x"] = {OperandOf(x)};
  call.results = {OperandOf(result)};
  call.strings = {{"ns", ns}, {"dtype", dtype}, {"norm_eps", "add"}};
  return call;
}

double Off(const at::Tensor& ours, const at::Tensor& theirs) {
  return (ours.to(at::kDouble) - theirs.to(at::kDouble))
             .abs()
             .max()
             .item<double>() /
         theirs.to(at::kDouble).abs().max().item<double>();
}

class ByBlas : public testing::TestWithParam<
                   std::tuple<std::string, std::string, double>> {};

// Shapes on both sides of a panel's 256 rows, wide, tall, square and stacked.
TEST_P(ByBlas, IsTheReference) {
  const auto& [ns, dtype, bound] = GetParam();
  at::manual_seed(1);
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {1, 1}, {7, 5}, {3, 24, 40}, {2, 40, 24}, {33, 33}, {270, 300}}) {
    const at::Tensor x =
        at::randn(shape, dtype == "fp64" ? at::kDouble : at::kFloat);
    const at::Tensor ours = at::empty_like(x), theirs = at::empty_like(x);
    ASSERT_TRUE(NewtonSchulzByBlas(CallOf(x, ours, ns, dtype)).ok());
    ASSERT_TRUE(kernels::Find("newton_schulz")
                    ->host(CallOf(x, theirs, ns, dtype))
                    .ok());
    EXPECT_LE(Off(ours, theirs), bound) << ns << " " << dtype << " " << shape;
  }
}

INSTANTIATE_TEST_SUITE_P(FormsAndTypes, ByBlas,
                         testing::Values(std::tuple("standard", "fp64", 1e-13),
                                         std::tuple("gram", "fp64", 1e-12),
                                         std::tuple("standard", "fp32", 2e-5),
                                         std::tuple("gram", "fp32", 2e-4),
                                         std::tuple("standard", "bf16", 0.1),
                                         std::tuple("gram", "fp16", 0.05)));

TEST(ByBlasTest, OtherOptionsAreTheReferencesToo) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({20, 36}, at::kDouble) * 1e-8;
  for (const char* norm_eps : {"add", "clamp"}) {
    const at::Tensor ours = at::empty_like(x), theirs = at::empty_like(x);
    kernels::Call call = CallOf(x, ours, "standard", "fp64");
    call.strings["norm_eps"] = norm_eps;
    call.strings["coefficients"] = "polar_express";
    call.scalars["steps"] = 7;
    ASSERT_TRUE(NewtonSchulzByBlas(call).ok());
    call.results = {OperandOf(theirs)};
    ASSERT_TRUE(kernels::Find("newton_schulz")->host(call).ok());
    EXPECT_LE(Off(ours, theirs), 1e-13) << norm_eps;
  }
}

TEST(ByBlasTest, NanStaysAndNonsenseIsRefused) {
  at::Tensor x = at::randn({4, 6});
  x[1][2] = NAN;
  const at::Tensor out = at::zeros_like(x);
  ASSERT_TRUE(NewtonSchulzByBlas(CallOf(x, out, "standard", "fp32")).ok());
  EXPECT_TRUE(out.isnan().all().item<bool>());
  EXPECT_FALSE(NewtonSchulzByBlas(CallOf(x, out, "cubic", "fp32")).ok());
}

}  // namespace
}  // namespace heddle::torch_runtime
