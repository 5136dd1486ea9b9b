// Registers the device code of multi_adamw and multi_grad_norm: cuts their
// lists into batches that fit a launch's arguments.

#ifdef HEDDLE_HAVE_CUDA

#include "kernels/multi_update_cuda.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/call.h"
#include "kernels/registry.h"
#include "kernels/update_element.h"

namespace heddle::kernels {
namespace {

DeviceScalar ScalarOf(const Call& call, const char* name, double otherwise) {
  const auto it = call.device_scalars.find(name);
  return {FindScalar(call, name, otherwise),
          it == call.device_scalars.end() ? nullptr : it->second};
}

// The operands under `name`, all of one known element type; nullptr otherwise.
const std::vector<Operand>* ListOf(const Call& call, const char* name,
                                   int* element) {
  const auto it = call.tensors.find(name);
  if (it == call.tensors.end() || it->second.empty()) return nullptr;
  *element = UpdateElementOf(it->second[0].element);
  for (const Operand& operand : it->second)
    if (UpdateElementOf(operand.element) != *element) return nullptr;
  return *element < 0 ? nullptr : &it->second;
}

absl::Status MultiAdamW(const Call& call) {
  AdamWBatch b{};
  const std::vector<Operand>* lists[5];
  const char* const names[] = {"params", "grads", "exp_avgs", "exp_avg_sqs",
                               "copies"};
  int* const elements[] = {&b.param_element, &b.grad_element,
                           &b.average_element, &b.square_element,
                           &b.copy_element};
  const auto copies = call.tensors.find("copies");
  const bool has_copies =
      copies != call.tensors.end() && !copies->second.empty();
  for (int i = 0; i < 5; ++i) {
    lists[i] = ListOf(call, names[i], elements[i]);
    if (i == 4 && !has_copies) break;
    if (lists[i] == nullptr || lists[i]->size() != lists[0]->size())
      return Needs("multi_adamw",
                   absl::StrCat(names[i],
                                ", one per parameter, of one element type "
                                "of bf16, f16 and f32"));
  }
  if (!has_copies) b.copy_element = -1;
  b.scalars.lr = ScalarOf(call, "lr", 0);
  b.scalars.step = ScalarOf(call, "step", 1);
  b.scalars.divisor = ScalarOf(call, "divisor", 1);
  b.scalars.lr_scale = FindScalar(call, "lr_scale", 1);
  b.scalars.beta1 = FindScalar(call, "beta1", 0.9);
  b.scalars.beta2 = FindScalar(call, "beta2", 0.999);
  b.scalars.eps = FindScalar(call, "eps", 1e-8);
  b.scalars.weight_decay = FindScalar(call, "weight_decay", 0);
  if (const Operand* factor = FindTensor(call, "factor")) {
    if (factor->element != Element::kF32)
      return Needs("multi_adamw", "a factor of f32");
    b.scalars.factor = static_cast<const float*>(factor->data);
  }
  if (const Operand* finite = FindTensor(call, "finite"))
    b.scalars.finite = static_cast<const unsigned char*>(finite->data);

  const size_t count = lists[0]->size();
  for (size_t begin = 0; begin < count; begin += kUpdateBatch) {
    b.tensors = static_cast<int>(std::min<size_t>(kUpdateBatch, count - begin));
    unsigned chunks = 0;
    for (int t = 0; t < b.tensors; ++t) {
      const size_t i = begin + static_cast<size_t>(t);
      const int64_t elements_of = (*lists[0])[i].count;
      for (int l = 1; l < (has_copies ? 5 : 4); ++l)
        if ((*lists[l])[i].count != elements_of)
          return Needs("multi_adamw", "tensors of one size");
      b.params[t] = (*lists[0])[i].data;
      b.grads[t] = (*lists[1])[i].data;
      b.exp_avgs[t] = (*lists[2])[i].data;
      b.exp_avg_sqs[t] = (*lists[3])[i].data;
      b.copies[t] = has_copies ? (*lists[4])[i].data : nullptr;
      b.counts[t] = static_cast<unsigned long long>(elements_of);
      b.first_chunk[t] = chunks;
      chunks += static_cast<unsigned>((elements_of + kUpdateChunk - 1) /
                                      kUpdateChunk);
    }
    b.first_chunk[b.tensors] = chunks;
    if (const char* error = LaunchMultiAdamW(b, call.stream))
      return Launched("multi_adamw", error);
  }
  return absl::OkStatus();
}

absl::Status MultiGradNorm(const Call& call) {
  NormBatch b{};
  const std::vector<Operand>* grads = ListOf(call, "grads", &b.element);
  if (grads == nullptr || call.results.size() != 4)
    return Needs("multi_grad_norm",
                 "grads of one element type of bf16, f16 and f32, and four "
                 "results");
  for (int i : {0, 1})
    if (call.results[i].data != nullptr &&
        call.results[i].element != Element::kF32)
      return Needs("multi_grad_norm", "results of f32");
  int64_t parts = 0;
  for (const Operand& grad : *grads)
    parts += (grad.count + kNormPart - 1) / kNormPart;
  const Operand& partials = call.results[3];
  if (partials.data == nullptr || partials.element != Element::kF64 ||
      partials.count < parts + static_cast<int64_t>(grads->size()))
    return Needs(
        "multi_grad_norm",
        absl::StrCat("room for ", parts + static_cast<int64_t>(grads->size()),
                     " partial sums of f64"));
  double* const sums = static_cast<double*>(partials.data) + parts;
  b.partials = static_cast<double*>(partials.data);
  for (size_t begin = 0; begin < grads->size(); begin += kNormBatch) {
    b.tensors =
        static_cast<int>(std::min<size_t>(kNormBatch, grads->size() - begin));
    unsigned part = 0;
    for (int t = 0; t < b.tensors; ++t) {
      const Operand& grad = (*grads)[begin + static_cast<size_t>(t)];
      b.grads[t] = grad.data;
      b.counts[t] = static_cast<unsigned long long>(grad.count);
      b.first_part[t] = part;
      part += static_cast<unsigned>((grad.count + kNormPart - 1) / kNormPart);
    }
    b.first_part[b.tensors] = part;
    b.sums = sums + begin;
    if (const char* error = LaunchNormSums(b, call.stream))
      return Launched("multi_grad_norm", error);
    b.partials += part;
  }
  NormResult r{};
  r.sums = sums;
  r.count = static_cast<int>(grads->size());
  r.divisor = ScalarOf(call, "divisor", 1);
  r.max_norm = FindScalar(call, "max_norm", 0);
  r.norm = static_cast<float*>(call.results[0].data);
  r.factor = static_cast<float*>(call.results[1].data);
  r.finite = static_cast<unsigned char*>(call.results[2].data);
  return Launched("multi_grad_norm", LaunchNormResult(r, call.stream));
}

const DeviceRegistration kMultiAdamW("multi_adamw", &MultiAdamW);
const DeviceRegistration kMultiGradNorm("multi_grad_norm", &MultiGradNorm);

}  // namespace
}  // namespace heddle::kernels

#endif
