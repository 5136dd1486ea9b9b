#include "tests/unit/capture/models.h"

namespace heddle::capture::testing {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

// Writes through slices, selections and transposed views, into activations and
// into a fresh buffer.
struct Mlp : nn::Module {
  nn::Linear in{nullptr}, out{nullptr};
  torch::Tensor scale;
  Mlp() {
    in = register_module("in", nn::Linear(12, 16));
    out = register_module("out", nn::Linear(16, 5));
    scale = register_parameter("scale", torch::rand({16}));
  }
  torch::Tensor Loss(const torch::Tensor& x, const torch::Tensor& labels) {
    torch::Tensor h = in(x)*scale;
    h.slice(1, 0, 4).mul_(2.0);
    h.select(1, 5).add_(h.select(1, 6).detach());
    h.t().slice(0, 8, 12).relu_();
    torch::Tensor kept = torch::zeros_like(h);
    kept.slice(0, 1, 3).copy_(h.slice(0, 0, 2));
    torch::Tensor y = torch::where(h > 0, h, h * 0.1) + kept;
    return F::cross_entropy(out(y), labels);
  }
};

struct Cnn : nn::Module {
  nn::Conv2d conv1{nullptr}, conv2{nullptr};
  nn::BatchNorm2d norm{nullptr};
  nn::GroupNorm groups{nullptr};
  nn::Linear head{nullptr};
  Cnn() {
    conv1 = register_module(
        "conv1", nn::Conv2d(nn::Conv2dOptions(3, 8, 3).padding(1).bias(false)));
    norm = register_module("norm", nn::BatchNorm2d(8));
    conv2 = register_module("conv2",
                            nn::Conv2d(nn::Conv2dOptions(8, 8, 3).stride(2)));
    groups = register_module("groups", nn::GroupNorm(2, 8));
    head = register_module("head", nn::Linear(8 * 4, 5));
  }
  torch::Tensor Loss(const torch::Tensor& image, const torch::Tensor& labels) {
    torch::Tensor h = F::max_pool2d(torch::relu(norm(conv1(image))),
                                    F::MaxPool2dFuncOptions(2));
    h = torch::relu(groups(conv2(h)));
    h = F::adaptive_avg_pool2d(h, F::AdaptiveAvgPool2dFuncOptions({2, 2}));
    return F::cross_entropy(head(h.flatten(1)), labels);
  }
};

struct Transformer : nn::Module {
  nn::Embedding tokens{nullptr};
  nn::LayerNorm norm{nullptr};
  nn::Linear qkv{nullptr}, proj{nullptr}, up{nullptr}, down{nullptr},
      lm_head{nullptr};
  Transformer() {
    tokens = register_module("tokens", nn::Embedding(37, 32));
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({32})));
    qkv = register_module("qkv", nn::Linear(32, 96));
    proj = register_module("proj", nn::Linear(32, 32));
    up = register_module("up", nn::Linear(32, 64));
    down = register_module("down", nn::Linear(64, 32));
    lm_head = register_module(
        "lm_head", nn::Linear(nn::LinearOptions(32, 37).bias(false)));
  }
  torch::Tensor Loss(const torch::Tensor& ids, const torch::Tensor& labels) {
    int64_t batch = ids.size(0), length = ids.size(1);
    torch::Tensor x = tokens(ids);
    {
      Scope scope("attention");
      std::vector<torch::Tensor> heads =
          qkv(norm(x)).view({batch, length, 3, 4, 8}).unbind(2);
      torch::Tensor q = heads[0].transpose(1, 2).clone();
      // A rotation written in place through interleaved views.
      torch::Tensor even = q.slice(-1, 0, torch::nullopt, 2),
                    odd = q.slice(-1, 1, torch::nullopt, 2);
      torch::Tensor rotated = even * 0.8 - odd * 0.6;
      odd.mul_(0.8).add_(even.detach(), 0.6);
      even.copy_(rotated);
      torch::Tensor mixed = torch::scaled_dot_product_attention(
          q, heads[1].transpose(1, 2), heads[2].transpose(1, 2), {}, 0.0,
          /*is_causal=*/true);
      x = x + proj(mixed.transpose(1, 2).reshape({batch, length, 32}));
    }
    {
      Scope scope("mlp");
      x = x + down(F::gelu(up(norm(x))));
    }
    return F::cross_entropy(lm_head(x).view({-1, 37}), labels.view({-1}));
  }
};

// Operators that PyTorch has a meta kernel for only in Python, with a value
// that the host reads.
struct Reductions : nn::Module {
  nn::Linear in{nullptr};
  torch::Tensor table;
  Reductions() {
    in = register_module("in", nn::Linear(6, 8));
    table = register_buffer("table", torch::rand({9, 8}));
  }
  torch::Tensor Loss(const torch::Tensor& x, const torch::Tensor& ids) {
    torch::Tensor h = in(x);
    auto [variance, mean] =
        torch::var_mean(h, 1, /*unbiased=*/false, /*keepdim=*/true);
    h = (h - mean) * torch::rsqrt(variance + 1e-5);
    torch::Tensor rows = table.index_select(0, ids.view({-1}).floor_divide(2));
    if (ids.max().item<int64_t>() < 9)
      h = h + rows.view({x.size(0), -1, 8}).sum(1);
    torch::Tensor peak = std::get<0>(h.max(1));
    return torch::logsumexp(h, {1}).mean() + peak.mean() +
           torch::std(h, 0).sum() + h.var();
  }
};

template <typename Module>
Case Make(const char* name, Batch batch) {
  auto module = std::make_shared<Module>();
  Module* model = module.get();
  return {name, module, std::move(batch),
          [model](const std::vector<at::Tensor>& tensors) {
            return model->Loss(tensors[0], tensors[1]);
          }};
}

}  // namespace

std::vector<Case> Cases() {
  torch::manual_seed(20);
  std::vector<Case> cases;
  cases.push_back(Make<Mlp>("mlp", {{"x", torch::randn({7, 12})},
                                    {"labels", torch::randint(5, {7})}}));
  cases.push_back(Make<Cnn>("cnn", {{"image", torch::randn({3, 3, 13, 13})},
                                    {"labels", torch::randint(5, {3})}}));
  cases.push_back(Make<Transformer>("transformer",
                                    {{"ids", torch::randint(37, {3, 11})},
                                     {"labels", torch::randint(37, {3, 11})}}));
  cases.push_back(Make<Reductions>(
      "reductions", {{"x", torch::randn({5, 6})},
                     {"ids", torch::arange(20).remainder(9).view({5, 4})}}));
  return cases;
}

}  // namespace heddle::capture::testing
