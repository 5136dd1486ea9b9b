// The global gradient norm where gradients are shards: grad_sumsq gives every
// rank its part of the sum of squares of every parameter, the ranks add those
// up, norm_finish makes norm and factor of them. Sums are in double, in element
// order, a parameter at a time, so that they depend on the shards' borders by
// one rounding each.

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/elements.h"
#include "kernels/registry.h"
#include "kernels/sharded_norm.h"

namespace heddle::kernels {
namespace {

template <typename... Args>
absl::Status Wrong(const char* kernel, const Args&... args) {
  return absl::InvalidArgumentError(
      absl::StrCat("kernel ", kernel, " ", args...));
}

double Scalar(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

template <typename T>
double SumOfSquares(const void* data, int64_t begin, int64_t end) {
  const T* values = static_cast<const T*>(data);
  double sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const double value = static_cast<double>(values[i]);
    sum += value * value;
  }
  return sum;
}

double SumOfSquares(const Operand& operand, int64_t begin, int64_t end) {
  if (operand.element == Element::kF32)
    return SumOfSquares<float>(operand.data, begin, end);
  if (operand.element == Element::kF64)
    return SumOfSquares<double>(operand.data, begin, end);
  double sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const double value = Load(operand, i);
    sum += value * value;
  }
  return sum;
}

}  // namespace

absl::StatusOr<std::vector<GradPiece>> ReadGradPieces(const Call& call) {
  constexpr const char* kName = "grad_sumsq";
  std::vector<GradPiece> pieces;
  const auto grads = call.tensors.find("grads");
  const auto segments = call.ints.find("segments");
  const auto shard = call.ints.find("shard");
  // Those of every gradient whose shard is -1, one list behind the other.
  const auto bounds = call.ints.find("bounds");
  const double rank = Scalar(call, "rank", -1);
  if (grads == call.tensors.end() || segments == call.ints.end() ||
      shard == call.ints.end() || rank < 0)
    return Wrong(kName, "needs grads, segments, shard and rank");
  if (shard->second.size() != grads->second.size())
    return Wrong(kName, "has ", grads->second.size(), " grads and ",
                 shard->second.size(), " shard sizes");
  if (call.results.size() != 1 || call.results[0].element != Element::kF64)
    return Wrong(kName, "gives one tensor of f64");
  const Operand& out = call.results[0];
  const std::vector<int64_t>& list = segments->second;
  size_t at = 0, next_bounds = 0;
  const auto uneven = static_cast<size_t>(
      std::count(shard->second.begin(), shard->second.end(), -1));
  int64_t parameter = 0;
  for (size_t g = 0; g < grads->second.size(); ++g) {
    const Operand& grad = grads->second[g];
    const int64_t part = shard->second[g];
    if (part < -1 || part > grad.count)
      return Wrong(kName, "has shards of ", part, " elements in a gradient of ",
                   grad.count);
    int64_t first = static_cast<int64_t>(rank) * part;
    int64_t last = part == 0 ? grad.count : first + part;
    if (part < 0) {
      const auto at_rank = next_bounds + static_cast<size_t>(rank);
      if (bounds == call.ints.end() || uneven == 0 ||
          at_rank + 1 >= bounds->second.size())
        return Wrong(kName, "has no bounds for gradient ", g);
      first = bounds->second[at_rank];
      last = bounds->second[at_rank + 1];
      next_bounds += bounds->second.size() / uneven;
      if (first < 0 || last < first || last - first > grad.count)
        return Wrong(kName, "has bounds ", first, " and ", last,
                     " for a gradient of ", grad.count);
    }
    const int64_t count = at < list.size() ? list[at++] : -1;
    if (count < 0 || static_cast<size_t>(count) > (list.size() - at) / 2)
      return Wrong(kName, "has segments cut short at gradient ", g);
    for (int64_t s = 0; s < count; ++s, ++parameter) {
      const int64_t begin = list[at++];
      const int64_t end = begin + list[at++];
      if (begin < 0 || end < begin || parameter >= out.count ||
          (part == 0 && end > grad.count))
        return Wrong(kName, "has segment [", begin, ", ", end,
                     ") outside gradient ", g, " or result ", parameter, " of ",
                     out.count);
      const int64_t from = std::max(begin, first);
      const int64_t to = std::min(end, last);
      pieces.push_back(from < to ? GradPiece{g, from - first, to - from}
                                 : GradPiece{g, 0, 0});
    }
  }
  if (at != list.size() || parameter != out.count)
    return Wrong(kName, "has ", parameter, " segments for a result of ",
                 out.count);
  return pieces;
}

namespace {

absl::Status GradSumsq(const Call& call) {
  absl::StatusOr<std::vector<GradPiece>> pieces = ReadGradPieces(call);
  if (!pieces.ok()) return pieces.status();
  for (size_t p = 0; p < pieces->size(); ++p) {
    const GradPiece& piece = (*pieces)[p];
    Store(call.results[0], static_cast<int64_t>(p),
          SumOfSquares(call.tensors.at("grads")[piece.grad], piece.first,
                       piece.first + piece.count));
  }
  return absl::OkStatus();
}

// What torch.nn.utils.clip_grad_norm_ makes of the norm, in its type.
template <typename T>
T Factor(T norm, double max_norm) {
  if (max_norm <= 0) return 1;
  const T factor = static_cast<T>(1) / (norm + static_cast<T>(1e-6)) *
                   static_cast<T>(max_norm);
  return factor > 1 ? 1 : factor;
}

absl::Status NormFinish(const Call& call) {
  const auto sumsq = call.tensors.find("sumsq");
  if (sumsq == call.tensors.end() || sumsq->second.size() != 1 ||
      sumsq->second[0].element != Element::kF64 || call.results.size() != 3)
    return Wrong("norm_finish",
                 "needs sumsq of f64 and gives norm, factor and finite");
  double sum = 0;
  for (int64_t i = 0; i < sumsq->second[0].count; ++i)
    sum += Load(sumsq->second[0], i);
  const double norm = std::sqrt(sum) / Scalar(call, "divisor", 1);
  const double max_norm = Scalar(call, "max_norm", 0);
  const bool wide = Scalar(call, "wide", 0) != 0;
  const float narrow = static_cast<float>(norm);
  const auto store = [&](size_t result, double value) {
    if (call.results[result].data != nullptr)
      Store(call.results[result], 0, value);
  };
  store(0, wide ? norm : narrow);
  store(1, wide ? Factor(norm, max_norm) : Factor(narrow, max_norm));
  store(2, std::isfinite(wide ? norm : static_cast<double>(narrow)));
  return absl::OkStatus();
}

const Registration kGradSumsq("grad_sumsq", &GradSumsq, nullptr);
const Registration kNormFinish("norm_finish", &NormFinish, nullptr);

}  // namespace
}  // namespace heddle::kernels
