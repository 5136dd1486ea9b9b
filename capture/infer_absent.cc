// Operators without a C++ meta kernel → sizes and strides of their results.
// Asked only where the dispatcher has no meta kernel: with Python loaded there
// is one. Invariant: the geometry is that of the target's kernel, else the
// executor refuses the program; the comparison with a capture from Python sees
// both disagree.
#include "capture/infer_absent.h"

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>

#include <string>
#include <unordered_map>

namespace heddle::capture {
namespace {

struct Call {
  torch::jit::Stack& stack;
  bool cpu;
  const at::Tensor& T(size_t i) const { return stack[i].toTensor(); }
  bool Has(size_t i) const {
    return stack[i].isTensor() && stack[i].toTensor().defined();
  }
  std::vector<int64_t> Ints(size_t i) const {
    return stack[i].isNone() ? std::vector<int64_t>() : stack[i].toIntVector();
  }
  std::vector<bool> Mask(size_t i) const {
    std::vector<bool> mask;
    for (const c10::IValue& wanted : stack[i].toListRef())
      mask.push_back(wanted.toBool());
    return mask;
  }
  void Return(std::vector<at::Tensor> results) {
    stack.clear();
    for (at::Tensor& result : results) stack.emplace_back(std::move(result));
  }
};

at::Tensor Empty(at::IntArrayRef sizes, const at::Tensor& like,
                 at::ScalarType dtype,
                 at::MemoryFormat format = at::MemoryFormat::Contiguous) {
  return at::empty(sizes, like.options().dtype(dtype).memory_format(format));
}
at::Tensor Empty(at::IntArrayRef sizes, const at::Tensor& like) {
  return Empty(sizes, like, like.scalar_type());
}

at::Tensor LikeInput(const at::Tensor& input) {
  return Empty(input.sizes(), input, input.scalar_type(),
               input.suggest_memory_format());
}

// Broadcast sizes with the stride order that elementwise kernels give their
// result.
at::Tensor Elementwise(const std::vector<at::Tensor>& inputs,
                       at::ScalarType dtype) {
  at::TensorIteratorConfig config;
  config.check_all_same_dtype(false)
      .declare_static_dtype_and_device(dtype, inputs[0].device())
      .add_owned_output(at::Tensor());
  for (const at::Tensor& input : inputs) config.add_owned_const_input(input);
  return config.build().output();
}

void FloorDivideTensor(Call& c) {
  c.Return({Elementwise({c.T(0), c.T(1)}, at::result_type(c.T(0), c.T(1)))});
}
void FloorDivideScalar(Call& c) {
  c.Return(
      {Elementwise({c.T(0)}, at::result_type(c.T(0), c.stack[1].toScalar()))});
}
void Where(Call& c) {
  c.Return(
      {Elementwise({c.T(0), c.T(1), c.T(2)}, at::result_type(c.T(1), c.T(2)))});
}
void Relu(Call& c) { c.Return({Elementwise({c.T(0)}, c.T(0).scalar_type())}); }
void InPlace(Call& c) { c.Return({c.T(0)}); }

void ReduceAll(Call& c) { c.Return({Empty({}, c.T(0))}); }

// The sizes that are left of `input` when `dims` (none: all) are reduced.
std::vector<int64_t> Reduced(const at::Tensor& input,
                             const std::vector<int64_t>& dims, bool keepdim) {
  std::vector<bool> gone(input.dim(), dims.empty());
  for (int64_t dim : dims) gone[at::maybe_wrap_dim(dim, input.dim())] = true;
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < input.dim(); ++d) {
    if (!gone[d]) sizes.push_back(input.size(d));
    if (gone[d] && keepdim) sizes.push_back(1);
  }
  return sizes;
}

void LogSumExp(Call& c) {
  at::ScalarType dtype = at::isIntegralType(c.T(0).scalar_type(), true)
                             ? at::typeMetaToScalarType(at::get_default_dtype())
                             : c.T(0).scalar_type();
  c.Return(
      {Empty(Reduced(c.T(0), c.Ints(1), c.stack[2].toBool()), c.T(0), dtype)});
}

// var, std, and with their means: the variance of complex numbers is real.
void Variance(Call& c) {
  c.Return({Empty(Reduced(c.T(0), c.Ints(1), c.stack[3].toBool()), c.T(0),
                  c10::toRealValueType(c.T(0).scalar_type()))});
}
void VarianceAndMean(Call& c) {
  std::vector<int64_t> sizes = Reduced(c.T(0), c.Ints(1), c.stack[3].toBool());
  c.Return({Empty(sizes, c.T(0), c10::toRealValueType(c.T(0).scalar_type())),
            Empty(sizes, c.T(0))});
}

void NativeDropout(Call& c) {
  at::Tensor input = c.T(0);
  c.Return({at::empty_like(input),
            at::empty_like(input, input.options().dtype(at::kBool))});
}

void NativeDropoutBackward(Call& c) {
  c.Return({Elementwise({c.T(0), c.T(1)}, c.T(0).scalar_type())});
}

// Statistics are kept in the parameters' type where the input is narrower;
// evaluation saves none.
void NativeBatchNorm(Call& c) {
  const at::Tensor input = c.T(0);
  bool narrow =
      input.scalar_type() == at::kHalf || input.scalar_type() == at::kBFloat16;
  at::ScalarType dtype = input.scalar_type();
  for (size_t i : {3, 1}) {
    if (narrow && c.Has(i)) dtype = c.T(i).scalar_type();
  }
  if (narrow && !c.cpu) dtype = at::kFloat;
  int64_t saved = c.stack[5].toBool() ? input.size(1) : 0;
  c.Return({LikeInput(input), Empty({saved}, input, dtype),
            Empty({saved}, input, dtype)});
}

// The functional form returns the new running statistics too.
void BatchNormAndRunning(Call& c) {
  at::Tensor mean = at::empty_like(c.T(3)), variance = at::empty_like(c.T(4));
  NativeBatchNorm(c);
  c.stack.emplace_back(mean);
  c.stack.emplace_back(variance);
}

void NativeBatchNormBackward(Call& c) {
  const at::Tensor input = c.T(1);
  std::vector<bool> mask = c.Mask(9);
  at::ScalarType dtype = c.Has(2) ? c.T(2).scalar_type() : input.scalar_type();
  at::Tensor weight = Empty({input.size(1)}, input, dtype),
             bias = Empty({input.size(1)}, input, dtype);
  c.Return({mask[0] ? LikeInput(input) : at::Tensor(),
            mask[1] ? weight : at::Tensor(), mask[2] ? bias : at::Tensor()});
}

void NativeGroupNorm(Call& c) {
  const at::Tensor input = c.T(0);
  at::Tensor stats =
      Empty({c.stack[3].toInt(), c.stack[6].toInt()}, input,
            c.Has(1) ? c.T(1).scalar_type() : input.scalar_type());
  c.Return({LikeInput(input), stats, at::empty_like(stats)});
}

void NativeGroupNormBackward(Call& c) {
  const at::Tensor input = c.T(1);
  std::vector<bool> mask = c.Mask(9);
  int64_t channels = c.stack[6].toInt();
  at::ScalarType dtype = c.Has(4) ? c.T(4).scalar_type() : input.scalar_type();
  at::Tensor weight = Empty({channels}, input, dtype),
             bias = Empty({channels}, input, dtype);
  c.Return({mask[0] ? LikeInput(input) : at::Tensor(),
            mask[1] ? weight : at::Tensor(), mask[2] ? bias : at::Tensor()});
}

void AdaptiveAvgPool2d(Call& c) {
  const at::Tensor input = c.T(0);
  std::vector<int64_t> sizes = input.sizes().vec(), out = c.Ints(1);
  std::copy(out.begin(), out.end(), sizes.end() - 2);
  c.Return({Empty(sizes, input, input.scalar_type(),
                  input.suggest_memory_format())});
}

void AdaptiveAvgPool2dBackward(Call& c) { c.Return({LikeInput(c.T(1))}); }

void NllLoss2dForward(Call& c) {
  const at::Tensor input = c.T(0);
  bool none = c.stack[3].toInt() == at::Reduction::None;
  c.Return({none ? Empty(c.T(1).sizes(), input) : Empty({}, input),
            Empty({}, input)});
}

void NllLoss2dBackward(Call& c) { c.Return({Empty(c.T(1).sizes(), c.T(1))}); }

using Function = void (*)(Call&);

}  // namespace

bool InferAbsent(const c10::OperatorName& name, bool cpu,
                 torch::jit::Stack* stack) {
  static const auto* functions = new std::unordered_map<std::string, Function>{
      {"aten::floor_divide", FloorDivideTensor},
      {"aten::floor_divide.Scalar", FloorDivideScalar},
      {"aten::where.self", Where},
      {"aten::relu", Relu},
      {"aten::relu_", InPlace},
      {"aten::max", ReduceAll},
      {"aten::min", ReduceAll},
      {"aten::logsumexp", LogSumExp},
      {"aten::var.correction", Variance},
      {"aten::std.correction", Variance},
      {"aten::var_mean.correction", VarianceAndMean},
      {"aten::std_mean.correction", VarianceAndMean},
      {"aten::native_dropout", NativeDropout},
      {"aten::native_dropout_backward", NativeDropoutBackward},
      {"aten::native_batch_norm", NativeBatchNorm},
      {"aten::_native_batch_norm_legit_functional", BatchNormAndRunning},
      {"aten::native_batch_norm_backward", NativeBatchNormBackward},
      {"aten::native_group_norm", NativeGroupNorm},
      {"aten::native_group_norm_backward", NativeGroupNormBackward},
      {"aten::_adaptive_avg_pool2d", AdaptiveAvgPool2d},
      {"aten::_adaptive_avg_pool2d_backward", AdaptiveAvgPool2dBackward},
      {"aten::nll_loss2d_forward", NllLoss2dForward},
      {"aten::nll_loss2d_backward", NllLoss2dBackward},
  };
  auto it = functions->find(name.overload_name.empty()
                                ? name.name
                                : name.name + "." + name.overload_name);
  if (it == functions->end()) return false;
  Call call{*stack, cpu};
  it->second(call);
  return true;
}

}  // namespace heddle::capture
