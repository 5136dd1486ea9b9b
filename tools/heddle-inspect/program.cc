// Names and sizes of the description, and the kinds by which operators are
// counted. Invariant: a kind is decided by the op table where it says enough,
// by the operator's name otherwise; nothing else in the tool looks at operator
// names.
#include "tools/heddle-inspect/program.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ir/graph/op_table.h"

namespace heddle::inspect {
namespace {

bool isOneOf(const std::string& name,
             std::initializer_list<const char*> names) {
  for (const char* other : names)
    if (name == other) return true;
  return false;
}

// Of an operator without namespace and overload.
std::string kindOfBase(const std::string& base) {
  if (isOneOf(base, {"mm", "addmm", "mv", "addmv", "dot"})) return "matmul";
  if (isOneOf(base, {"bmm", "baddbmm"})) return "batched matmul";
  if (base == "_grouped_mm") return "grouped matmul";
  if (absl::StartsWith(base, "_scaled_dot_product")) return "attention";
  if (absl::StartsWith(base, "convolution")) return "convolution";
  if (absl::StartsWith(base, "embedding")) return "embedding";
  if (absl::StrContains(base, "loss") ||
      absl::StrContains(base, "cross_entropy"))
    return "loss";
  if (isOneOf(base, {"sum",           "mean",        "amax",
                     "amin",          "max",         "min",
                     "prod",          "argmax",      "argmin",
                     "any",           "all",         "var",
                     "var_mean",      "std",         "logsumexp",
                     "cumsum",        "cumprod",     "histc",
                     "count_nonzero", "bincount",    "linalg_vector_norm",
                     "_is_all_true",  "_is_any_true"}) ||
      absl::StrContains(base, "softmax") || absl::StrContains(base, "_norm"))
    return "reduction";
  if (isOneOf(base, {"zeros", "ones", "full", "empty", "empty_strided",
                     "arange", "new_zeros", "new_ones", "new_full", "new_empty",
                     "new_empty_strided", "eye", "linspace", "scalar_tensor",
                     "zeros_like", "ones_like", "full_like", "empty_like"}))
    return "factory";
  if (isOneOf(base, {"topk", "sort", "gather", "cat", "stack", "repeat", "roll",
                     "flip", "tril", "triu", "constant_pad_nd", "view_update",
                     "masked_scatter", "searchsorted", "bucketize",
                     "repeat_interleave"}) ||
      absl::StrContains(base, "index") || absl::StrContains(base, "scatter") ||
      absl::EndsWith(base, "_backward"))
    return "indexing";
  if (isOneOf(base, {"clone", "copy", "_to_copy"})) return "copy";
  if (base == "guard") return "guard";
  return "other";
}

}  // namespace

const char* categoryName(Category category) {
  static constexpr std::array<const char*, kCategories> names = {
      "parameters", "master weights", "optimizer state", "accumulators",
      "buffers",    "constants",      "inputs",          "activations",
      "gradients",  "outputs",        "temporaries"};
  return names[static_cast<size_t>(category)];
}

std::string typeText(const Value& value) {
  return absl::StrCat(value.dtype, "[", absl::StrJoin(value.shape, ","), "]");
}

int64_t Op::totalFlops() const {
  int64_t total = 0;
  for (const FlopsOfKind& part : flops) total += part.flops;
  return total;
}

int64_t Program::elements(int value) const {
  int64_t elements = 1;
  for (int64_t size : values[value].shape) elements *= size;
  return elements;
}

std::string kindOf(const std::string& name) {
  if (absl::StartsWith(name, "optim.")) return "optimizer";
  std::string aten = absl::StartsWith(name, "graph.")
                         ? absl::StrCat("aten::", name.substr(6))
                         : name;
  const size_t colon = aten.rfind("::");
  const size_t begin = colon == std::string::npos ? 0 : colon + 2;
  std::string base = aten.substr(begin, aten.find('.', begin) - begin);
  // An operator that writes in place does what its functional form does.
  if (base.size() > 1 && base.back() == '_') {
    aten.erase(begin + base.size() - 1, 1);
    base.pop_back();
  }
  const graph::OpRow* row = graph::findOp(aten);
  if (row && row->isView) return "view";
  if ((row && row->random) || base == "bernoulli") return "random";
  const std::string kind = kindOfBase(base);
  return row && row->pointwise && kind != "copy" ? "pointwise" : kind;
}

}  // namespace heddle::inspect
