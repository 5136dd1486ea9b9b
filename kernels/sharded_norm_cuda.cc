// Registers the device code of grad_sumsq and norm_finish, on the launches of
// multi_grad_norm: a piece of a shard is to them a tensor like another.

#ifdef HEDDLE_HAVE_CUDA

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/call.h"
#include "kernels/multi_update_cuda.h"
#include "kernels/registry.h"
#include "kernels/sharded_norm.h"
#include "kernels/update_element.h"

namespace heddle::kernels {
namespace {

int64_t PartsOf(int64_t count) { return (count + kNormPart - 1) / kNormPart; }

// Partial sums of all pieces.
absl::StatusOr<int64_t> GradSumsqWorkspace(const Call& call) {
  absl::StatusOr<std::vector<GradPiece>> pieces = ReadGradPieces(call);
  if (!pieces.ok()) return pieces.status();
  int64_t parts = 1;
  for (const GradPiece& piece : *pieces) parts += PartsOf(piece.count);
  return parts * static_cast<int64_t>(sizeof(double));
}

absl::Status GradSumsq(const Call& call) {
  absl::StatusOr<std::vector<GradPiece>> pieces = ReadGradPieces(call);
  if (!pieces.ok()) return pieces.status();
  if (pieces->empty()) return absl::OkStatus();
  const std::vector<Operand>& grads = call.tensors.at("grads");
  NormBatch b{};
  b.element = UpdateElementOf(grads[0].element);
  for (const Operand& grad : grads)
    if (b.element < 0 || UpdateElementOf(grad.element) != b.element)
      return Needs("grad_sumsq",
                   "grads of one element type of bf16, f16 and f32");
  const int64_t element_bytes = b.element == kUpdateF32 ? 4 : 2;
  b.partials = static_cast<double*>(call.workspace);
  b.sums = static_cast<double*>(call.results[0].data);
  for (size_t begin = 0; begin < pieces->size(); begin += kNormBatch) {
    b.tensors =
        static_cast<int>(std::min<size_t>(kNormBatch, pieces->size() - begin));
    unsigned part = 0;
    for (int t = 0; t < b.tensors; ++t) {
      const GradPiece& piece = (*pieces)[begin + static_cast<size_t>(t)];
      b.grads[t] = static_cast<const char*>(grads[piece.grad].data) +
                   piece.first * element_bytes;
      b.counts[t] = static_cast<unsigned long long>(piece.count);
      b.first_part[t] = part;
      part += static_cast<unsigned>(PartsOf(piece.count));
    }
    b.first_part[b.tensors] = part;
    if (const char* error = LaunchNormSums(b, call.stream))
      return Launched("grad_sumsq", error);
    b.partials += part;
    b.sums += b.tensors;
  }
  return absl::OkStatus();
}

absl::Status NormFinish(const Call& call) {
  const Operand* sums = FindTensor(call, "sumsq");
  if (sums == nullptr || sums->element != Element::kF64 ||
      call.results.size() != 3 || FindScalar(call, "wide", 0) != 0)
    return Needs("norm_finish",
                 "sumsq of f64 and results of f32: norm, factor and finite");
  const auto divisor = call.device_scalars.find("divisor");
  NormResult r{};
  r.sums = static_cast<const double*>(sums->data);
  r.count = static_cast<int>(sums->count);
  r.divisor = {
      FindScalar(call, "divisor", 1),
      divisor == call.device_scalars.end() ? nullptr : divisor->second};
  r.max_norm = FindScalar(call, "max_norm", 0);
  r.norm = static_cast<float*>(call.results[0].data);
  r.factor = static_cast<float*>(call.results[1].data);
  r.finite = static_cast<unsigned char*>(call.results[2].data);
  return Launched("norm_finish", LaunchNormResult(r, call.stream));
}

const DeviceRegistration kGradSumsq("grad_sumsq", &GradSumsq,
                                    &GradSumsqWorkspace);
const DeviceRegistration kNormFinish("norm_finish", &NormFinish);

}  // namespace
}  // namespace heddle::kernels

#endif
