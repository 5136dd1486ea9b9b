// Host references of multi_adamw and multi_grad_norm: the single-tensor
// references, one tensor after the other.

#include "absl/strings/str_cat.h"
#include "kernels/call.h"
#include "kernels/elements.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

absl::Status MultiAdamW(const Call& call) {
  const std::pair<const char*, const char*> kLists[] = {
      {"params", "param"},
      {"grads", "grad"},
      {"exp_avgs", "exp_avg"},
      {"exp_avg_sqs", "exp_avg_sq"}};
  const auto params = call.tensors.find("params");
  if (params == call.tensors.end()) return Needs("multi_adamw", "params");
  const size_t count = params->second.size();
  const auto copies = call.tensors.find("copies");
  const bool has_copies =
      copies != call.tensors.end() && !copies->second.empty();
  if (has_copies && copies->second.size() != count)
    return Needs("multi_adamw", "one copy per parameter");
  const Operand* finite = FindTensor(call, "finite");
  for (size_t i = 0; i < count; ++i) {
    Call one;
    one.scalars = call.scalars;
    for (const auto& [list, name] : kLists) {
      const auto it = call.tensors.find(list);
      if (it == call.tensors.end() || it->second.size() != count)
        return Needs("multi_adamw", absl::StrCat(list, ", one per parameter"));
      one.tensors[name] = {it->second[i]};
    }
    for (const char* name : {"factor", "finite"})
      if (const Operand* scalar = FindTensor(call, name))
        one.tensors[name] = {*scalar};
    if (absl::Status status = Find("adamw")->host(one); !status.ok())
      return status;
    if (!has_copies || (finite != nullptr && Load(*finite, 0) == 0)) continue;
    const Operand& param = params->second[i];
    if (copies->second[i].count != param.count)
      return Needs("multi_adamw", "copies of their parameters' sizes");
    for (int64_t e = 0; e < param.count; ++e)
      Store(copies->second[i], e, Load(param, e));
  }
  return absl::OkStatus();
}

absl::Status MultiGradNorm(const Call& call) {
  if (call.results.size() != 4) return Needs("multi_grad_norm", "four results");
  // A result that nobody reads has no memory.
  double unread[3];
  Call one = call;
  one.results.resize(3);
  for (int i = 0; i < 3; ++i)
    if (one.results[i].data == nullptr)
      one.results[i] = {&unread[i], Element::kF64, 1};
  return Find("grad_norm")->host(one);
}

const Registration kMultiAdamW("multi_adamw", &MultiAdamW, nullptr);
const Registration kMultiGradNorm("multi_grad_norm", &MultiGradNorm, nullptr);

}  // namespace
}  // namespace heddle::kernels
