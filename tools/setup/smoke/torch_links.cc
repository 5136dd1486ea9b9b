// One binary with the wheel's LibTorch, gtest and Abseil.
#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace {

TEST(TorchLinks, AddsOnTheCpu) {
  at::Tensor sum = at::ones({2}) + at::ones({2});
  EXPECT_EQ(sum.sum().item<float>(), 4.0f);
  EXPECT_FALSE(absl::InternalError("x").ok());
  EXPECT_EQ(nlohmann::json({{"a", 1}}).dump(), "{\"a\":1}");
}

}  // namespace
