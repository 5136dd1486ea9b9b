// Shape inference: our own functions first, for operators whose meta kernel
// exists only in Python (a C++ program has none) or tells another device's
// story; then the operators' meta kernels. What would break it: a torch whose
// kernels return other strides; the executor compares with what they return and
// refuses.
#include "capture/infer.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Reduction.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "capture/infer_absent.h"

namespace heddle::capture {
namespace {

using torch::jit::Stack;

// Arguments of one call by position; results go back in order.
struct Call {
  Stack& stack;
  bool cpu;
  const at::Tensor& T(size_t i) const { return stack[i].toTensor(); }
  bool Has(size_t i) const {
    return stack[i].isTensor() && stack[i].toTensor().defined();
  }
  int64_t I(size_t i) const { return stack[i].toInt(); }
  void Return(std::vector<at::Tensor> results) {
    stack.clear();
    for (at::Tensor& result : results) stack.emplace_back(std::move(result));
  }
};

at::Tensor Empty(at::IntArrayRef sizes, const at::Tensor& like,
                 at::ScalarType dtype) {
  return at::empty(sizes, like.options().dtype(dtype).memory_format(
                              at::MemoryFormat::Contiguous));
}
at::Tensor Empty(at::IntArrayRef sizes, const at::Tensor& like) {
  return Empty(sizes, like, like.scalar_type());
}

void Embedding(Call& c) {
  std::vector<int64_t> sizes = c.T(1).sizes().vec();
  sizes.push_back(c.T(0).size(1));
  c.Return({Empty(sizes, c.T(0))});
}

void EmbeddingDenseBackward(Call& c) {
  c.Return({Empty({c.I(2), c.T(0).size(-1)}, c.T(0))});
}

void IndexSelect(Call& c) {
  std::vector<int64_t> sizes = c.T(0).sizes().vec();
  if (!sizes.empty())
    sizes[at::maybe_wrap_dim(c.I(1), c.T(0).dim())] = c.T(2).numel();
  c.Return({Empty(sizes, c.T(0))});
}

// CPU keeps the statistics in the parameters' type (the input's where there are
// none), CUDA in the accumulation type.
void NativeLayerNorm(Call& c) {
  const at::Tensor input = c.T(0);
  std::vector<int64_t> stats = input.sizes().vec();
  for (size_t i = stats.size() - c.stack[1].toIntVector().size();
       i < stats.size(); ++i)
    stats[i] = 1;
  at::ScalarType dtype = input.scalar_type();
  if (c.cpu) {
    if (c.Has(2)) dtype = c.T(2).scalar_type();
  } else if (dtype == at::kHalf || dtype == at::kBFloat16) {
    dtype = at::kFloat;
  }
  c.Return({Empty(input.sizes(), input), Empty(stats, input, dtype),
            Empty(stats, input, dtype)});
}

void NativeLayerNormBackward(Call& c) {
  std::vector<bool> mask;
  for (const c10::IValue& wanted : c.stack[7].toListRef())
    mask.push_back(wanted.toBool());
  const at::Tensor input = c.T(1);
  at::Tensor weight = c.Has(5)
                          ? at::empty_like(c.T(5), at::MemoryFormat::Contiguous)
                          : at::Tensor();
  at::Tensor bias = c.Has(6)
                        ? at::empty_like(c.T(6), at::MemoryFormat::Contiguous)
                        : at::Tensor();
  c.Return({mask[0] ? Empty(input.sizes(), input) : at::Tensor(),
            mask[1] ? weight : at::Tensor(), mask[2] ? bias : at::Tensor()});
}

// oneDNN, cuDNN and the native kernels return channels-last results only where
// the input or the weight is channels-last.
at::MemoryFormat ConvolutionFormat(const at::Tensor& input,
                                   const at::Tensor& weight) {
  auto channels_last = [](const at::Tensor& t) {
    return t.suggest_memory_format() != at::MemoryFormat::Contiguous;
  };
  if (!channels_last(input) && !channels_last(weight))
    return at::MemoryFormat::Contiguous;
  return input.dim() == 5 ? at::MemoryFormat::ChannelsLast3d
                          : at::MemoryFormat::ChannelsLast;
}

void Convolution(Call& c) {
  const at::Tensor input = c.T(0), weight = c.T(1);
  std::vector<int64_t> stride = c.stack[3].toIntVector(),
                       padding = c.stack[4].toIntVector(),
                       dilation = c.stack[5].toIntVector(),
                       extra = c.stack[7].toIntVector();
  bool transposed = c.stack[6].toBool();
  int64_t groups = c.I(8);
  TORCH_CHECK(input.dim() == weight.dim() && input.dim() >= 3,
              "a convolution of an input of rank ", input.dim(),
              " with a weight of rank ", weight.dim());
  std::vector<int64_t> sizes{
      input.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  auto at_dim = [](const std::vector<int64_t>& values, int64_t d) {
    return values.size() == 1 ? values[0] : values.at(d);
  };
  for (int64_t d = 0; d + 2 < input.dim(); ++d) {
    int64_t reach = at_dim(dilation, d) * (weight.size(d + 2) - 1);
    int64_t both = 2 * at_dim(padding, d);
    sizes.push_back(
        transposed
            ? (input.size(d + 2) - 1) * at_dim(stride, d) - both + reach +
                  at_dim(extra, d) + 1
            : (input.size(d + 2) + both - reach - 1) / at_dim(stride, d) + 1);
  }
  c.Return({at::empty(
      sizes, input.options().memory_format(ConvolutionFormat(input, weight)))});
}

void ConvolutionBackward(Call& c) {
  const at::Tensor input = c.T(1), weight = c.T(2);
  at::MemoryFormat format = ConvolutionFormat(input, weight);
  std::vector<bool> mask;
  for (const c10::IValue& wanted : c.stack[10].toListRef())
    mask.push_back(wanted.toBool());
  int64_t channels = c.T(0).size(1);
  c.Return({mask[0] ? at::empty_like(input, format) : at::Tensor(),
            mask[1] ? at::empty_like(weight, format) : at::Tensor(),
            mask[2] ? Empty({channels}, weight) : at::Tensor()});
}

// The CPU flash kernel lays its output out like the query; statistics and
// gradients are transposed views of tensors with heads behind positions.
at::Tensor HeadsSecond(const at::Tensor& like, int64_t head_dim) {
  return Empty({like.size(0), like.size(2), like.size(1), head_dim}, like)
      .transpose(1, 2);
}

void FlashCpu(Call& c) {
  const at::Tensor query = c.T(0);
  at::ScalarType acc =
      query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor logsumexp =
      Empty({query.size(0), query.size(2), query.size(1)}, query, acc)
          .transpose(1, 2);
  c.Return({at::empty_like(query), logsumexp});
}

void FlashCpuBackward(Call& c) {
  const at::Tensor query = c.T(1), key = c.T(2), value = c.T(3);
  c.Return({HeadsSecond(query, query.size(3)), HeadsSecond(key, key.size(3)),
            HeadsSecond(value, value.size(3))});
}

void Histc(Call& c) { c.Return({Empty({c.I(1)}, c.T(0))}); }

// Where they reduce, these kernels shrink the tensor of all losses to a scalar
// and keep its allocation.
void ShrunkLoss(Call& c) {
  at::Tensor all = Empty(at::infer_size(c.T(0).sizes(), c.T(1).sizes()), c.T(0),
                         at::result_type(c.T(0), c.T(1)));
  if (c.I(2) != at::Reduction::None) all.resize_(at::IntArrayRef());
  c.Return({all});
}

// Rows of the result are padded to 16 bytes, as the grouped kernels write them.
// Two matrices over ragged rows give one matrix per group.
void GroupedMm(Call& c) {
  const at::Tensor a = c.T(0), b = c.T(1);
  std::vector<int64_t> sizes;
  if (a.dim() == 2 && b.dim() == 2) {
    TORCH_CHECK(c.Has(2), "two 2-D operands need offsets");
    sizes = {c.T(2).size(0), a.size(0), b.size(1)};
  } else if (a.dim() == 2) {
    sizes = {a.size(0), b.size(-1)};
  } else if (b.dim() == 2) {
    sizes = {a.size(1), b.size(1)};
  } else {
    sizes = {a.size(0), a.size(1), b.size(-1)};
  }
  at::ScalarType dtype =
      c.stack[4].isNone() ? a.scalar_type() : c.stack[4].toScalarType();
  auto alignment = static_cast<int64_t>(16 / c10::elementSize(dtype));
  int64_t row = (sizes.back() + alignment - 1) / alignment * alignment;
  std::vector<int64_t> strides{row, 1};
  if (sizes.size() == 3) strides.insert(strides.begin(), sizes[1] * row);
  c.Return({at::empty_strided(sizes, strides, a.options().dtype(dtype))});
}

void HuberLoss(Call& c) {
  at::Tensor loss = at::empty_like(c.T(0));
  c.Return(
      {c.I(2) == at::Reduction::None ? loss : Empty(at::IntArrayRef(), loss)});
}

void LossBackward(Call& c) { c.Return({Empty(c.T(1).sizes(), c.T(1))}); }

void CrossEntropyBackward(Call& c) { c.Return({at::empty_like(c.T(1))}); }

void LogSoftmaxBackward(Call& c) {
  c.Return({Empty(c.T(0).sizes(), c.T(0), c.stack[3].toScalarType())});
}

// Pointwise kernels lay their result out like the first operand that has a
// preference; Python's meta kernels of these ask in another order. True: the
// kernel asks its operands from the last to the first.
const std::unordered_map<std::string, bool>& LaidOutByOperands() {
  static const auto* names = new std::unordered_map<std::string, bool>{
      {"aten::softplus_backward", false},
      {"aten::elu_backward", false},
      {"aten::hardsigmoid_backward", false},
      {"aten::hardtanh_backward", false},
      {"aten::logit_backward", false},
      {"aten::hardswish_backward", false},
      {"aten::xlogy", false},
      {"aten::copysign", false},
      {"aten::floor_divide", false},
      {"aten::logaddexp", false},
      {"aten::heaviside", false},
      {"aten::threshold_backward", true},
      {"aten::leaky_relu_backward", true}};
  return *names;
}

void LayOut(at::Tensor& result, const std::vector<at::Tensor>& operands) {
  at::TensorIteratorConfig config;
  config.set_check_mem_overlap(false)
      .check_all_same_dtype(false)
      .declare_static_dtype_and_device(result.scalar_type(), at::kMeta)
      .add_owned_output(at::Tensor());
  for (const at::Tensor& operand : operands)
    config.add_owned_const_input(operand);
  result = config.build().output();
}

// These kernels give their result the input's allocation first and its own size
// then.
bool ResizesLikeInput(const std::string& name) {
  return name == "aten::col2im" || name == "aten::im2col";
}

using Function = void (*)(Call&);
const std::unordered_map<std::string, Function>& Functions() {
  static const auto* functions = new std::unordered_map<std::string, Function>{
      {"aten::embedding", Embedding},
      {"aten::embedding_dense_backward", EmbeddingDenseBackward},
      {"aten::index_select", IndexSelect},
      {"aten::native_layer_norm", NativeLayerNorm},
      {"aten::native_layer_norm_backward", NativeLayerNormBackward},
      {"aten::histc", Histc},
      {"aten::huber_loss", HuberLoss},
      {"aten::mse_loss", ShrunkLoss},
      {"aten::mse_loss_backward", LossBackward},
      {"aten::smooth_l1_loss_backward", LossBackward},
      {"aten::huber_loss_backward", LossBackward},
      {"aten::binary_cross_entropy_backward", CrossEntropyBackward},
      {"aten::_log_softmax_backward_data", LogSoftmaxBackward},
      {"aten::smooth_l1_loss", ShrunkLoss},
      {"aten::soft_margin_loss", ShrunkLoss},
      {"aten::_grouped_mm", GroupedMm},
      {"aten::_scaled_dot_product_flash_attention_for_cpu", FlashCpu},
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward",
       FlashCpuBackward},
      {"aten::convolution", Convolution},
      {"aten::convolution_backward", ConvolutionBackward},
  };
  return *functions;
}

}  // namespace

std::vector<size_t> GeneratorStateResults(const c10::OperatorName& name) {
  if (name.name == "aten::_scaled_dot_product_flash_attention" ||
      name.name == "aten::_scaled_dot_product_cudnn_attention")
    return {6, 7};
  if (name.name == "aten::_scaled_dot_product_efficient_attention")
    return {2, 3};
  return {};
}

void InferOnMeta(const c10::OperatorHandle& op, bool cpu,
                 torch::jit::Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::OperatorName& name = op.operator_name();
  const auto& functions = Functions();
  if (auto it = functions.find(name.name);
      it != functions.end() && name.overload_name.empty()) {
    Call call{*stack, cpu};
    it->second(call);
    return;
  }
  // Python's meta kernel speaks of CUDA's batch norm, which saves statistics in
  // evaluation too.
  bool ours = !op.hasKernelForDispatchKey(c10::DispatchKey::Meta) ||
              (cpu && name.name == "aten::native_batch_norm");
  if (ours && InferAbsent(name, cpu, stack)) return;
  std::vector<at::Tensor> operands;
  auto known = LaidOutByOperands().find(name.name);
  bool laid_out = known != LaidOutByOperands().end();
  if (!op.schema().is_mutable() &&
      (laid_out || (cpu && name.name == "aten::native_dropout_backward"))) {
    for (const c10::IValue& argument :
         torch::jit::last(*stack, op.schema().arguments().size())) {
      if (argument.isTensor()) operands.push_back(argument.toTensor());
    }
    if (laid_out && known->second)
      std::reverse(operands.begin(), operands.end());
  }
  at::Tensor allocated;
  if (ResizesLikeInput(name.name) && name.overload_name.empty()) {
    const at::Tensor input =
        (*stack)[stack->size() - op.schema().arguments().size()].toTensor();
    allocated = Empty(input.sizes(), input);
  }
  op.callBoxed(stack);
  if (allocated.defined()) {
    allocated.resize_(stack->back().toTensor().sizes());
    stack->back() = allocated;
  }
  if (!operands.empty()) {
    at::Tensor result = stack->back().toTensor();
    LayOut(result, operands);
    stack->back() = result;
  }
  for (size_t i : GeneratorStateResults(name)) (*stack)[i] = at::Tensor();
  // The debug mask, which is never asked for.
  if (stack->size() == 9 && !GeneratorStateResults(name).empty())
    (*stack)[8] = at::Tensor();
}

}  // namespace heddle::capture
