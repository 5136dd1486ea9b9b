// Invariant: iterates are held in the type of sums (fp32, or fp64) and rounded
// to their own once per product, where the reference rounds them. What would
// break it: products of 16-bit tensors, whose epilogue ATen rounds before the
// diagonal is added.

#include "runtime/torch/newton_schulz_blas.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/newton_schulz.h"

namespace heddle::torch_runtime {
namespace {

// Rows of a symmetric result that one product computes: fewer waste less of the
// half that is not needed, more run faster.
constexpr int64_t kPanel = 256;

at::ScalarType TypeOf(kernels::Element element) {
  switch (element) {
    case kernels::Element::kF16:
      return at::kHalf;
    case kernels::Element::kBF16:
      return at::kBFloat16;
    case kernels::Element::kF64:
      return at::kDouble;
    default:
      return at::kFloat;
  }
}

// Matrix `index` of an operand.
at::Tensor MatrixOf(const kernels::Operand& operand, int64_t index,
                    int64_t rows, int64_t columns) {
  const at::ScalarType type = TypeOf(operand.element);
  char* data =
      static_cast<char*>(operand.data) +
      index * rows * columns * static_cast<int64_t>(c10::elementSize(type));
  return at::from_blob(data, {rows, columns}, at::TensorOptions(type));
}

// The buffers of one shape, used matrix by matrix.
class Iteration {
 public:
  Iteration(const kernels::NewtonSchulzOptions& options,
            const kernels::NewtonSchulzProgram& program, int64_t n, int64_t m)
      : options_(options),
        program_(program),
        narrow_(TypeOf(options.dtype)),
        wide_(narrow_ == at::kDouble ? at::kDouble : at::kFloat) {
    for (const bool square : program.square)
      buffers_.push_back(at::empty({n, square ? n : m}, wide_));
    if (narrow_ != wide_) rounded_ = at::empty({n, m}, narrow_);
  }

  void Run(const at::Tensor& x, const at::Tensor& result) {
    const bool tall = x.size(0) > x.size(1);
    at::Tensor& start = buffers_[0];
    start.copy_(tall ? x.t() : x);
    const double exact =
        at::linalg_vector_norm(start, 2, {}, false, at::kDouble).item<double>();
    // The norm in the type of sums; a NaN norm stays one.
    const double norm = Narrowed(exact), eps = Narrowed(options_.eps);
    start.div_(options_.clamp ? (norm < eps ? eps : norm)
                              : Narrowed(norm + eps));
    Round(start);
    for (const kernels::NewtonSchulzOp& op : program_.ops) Multiply(op);
    const at::Tensor& out = buffers_[static_cast<size_t>(program_.output)];
    result.copy_(tall ? out.t() : out);
  }

 private:
  double Narrowed(double value) const {
    return wide_ == at::kDouble ? value : static_cast<float>(value);
  }

  void Round(const at::Tensor& values) {
    if (!rounded_.defined()) return;
    const at::Tensor narrow =
        rounded_.view(-1).narrow(0, 0, values.numel()).view(values.sizes());
    narrow.copy_(values);
    values.copy_(narrow);
  }

  void Multiply(const kernels::NewtonSchulzOp& op) {
    const at::Tensor& a = buffers_[static_cast<size_t>(op.a)];
    const at::Tensor& right = buffers_[static_cast<size_t>(op.b)];
    const at::Tensor b = op.transpose_b ? right.t() : right;
    const at::Tensor& out = buffers_[static_cast<size_t>(op.out)];
    const int64_t n = out.size(0);
    const int64_t panel = op.symmetric ? std::min(n, kPanel) : n;
    for (int64_t first = 0; first < n; first += panel) {
      const int64_t rows = std::min(panel, n - first);
      // Of a symmetric result: up to the diagonal block, then mirrored.
      const int64_t columns = op.symmetric ? first + rows : out.size(1);
      const auto part = [&](const at::Tensor& whole) {
        return whole.narrow(0, first, rows).narrow(1, 0, columns);
      };
      at::Tensor to = part(out);
      const at::Tensor left = a.narrow(0, first, rows);
      const at::Tensor some = b.narrow(1, 0, columns);
      if (op.c >= 0) {
        at::addmm_out(to, part(buffers_[static_cast<size_t>(op.c)]), left, some,
                      op.beta, op.alpha);
      } else {
        at::mm_out(to, left, some);
        if (op.alpha != 1) to.mul_(op.alpha);
      }
    }
    if (op.diagonal != 0) out.diagonal().add_(op.diagonal);
    if (op.symmetric) Mirror(out, panel);
    Round(out);
  }

  // The upper triangle becomes the lower one's.
  static void Mirror(const at::Tensor& square, int64_t panel) {
    const int64_t n = square.size(0);
    for (int64_t first = 0; first < n; first += panel) {
      const int64_t rows = std::min(panel, n - first);
      const at::Tensor block =
          square.narrow(0, first, rows).narrow(1, first, rows);
      block.copy_(block.tril().add(block.tril(-1).t()));
      if (first > 0)
        square.narrow(0, 0, first)
            .narrow(1, first, rows)
            .copy_(square.narrow(0, first, rows).narrow(1, 0, first).t());
    }
  }

  const kernels::NewtonSchulzOptions& options_;
  const kernels::NewtonSchulzProgram& program_;
  const at::ScalarType narrow_;
  const at::ScalarType wide_;
  std::vector<at::Tensor> buffers_;
  at::Tensor rounded_;
};

}  // namespace

absl::Status NewtonSchulzByBlas(const kernels::Call& call) {
  absl::StatusOr<kernels::NewtonSchulzOptions> options =
      kernels::ReadNewtonSchulzOptions(call);
  if (!options.ok()) return options.status();
  absl::StatusOr<kernels::MatrixList> list = kernels::ReadMatrices(call);
  if (!list.ok()) return list.status();
  if (list->rows * list->columns == 0 || list->total == 0)
    return absl::OkStatus();
  const int64_t n = std::min(list->rows, list->columns);
  const int64_t m = std::max(list->rows, list->columns);
  const kernels::NewtonSchulzProgram program =
      kernels::BuildNewtonSchulzProgram(*options, n, m);
  Iteration iteration(*options, program, n, m);
  const std::vector<kernels::Operand>& x = call.tensors.at("x");
  for (size_t i = 0; i < x.size(); ++i)
    for (int64_t b = 0; b < list->count[i]; ++b)
      iteration.Run(MatrixOf(x[i], b, list->rows, list->columns),
                    MatrixOf(call.results[i], b, list->rows, list->columns));
  return absl::OkStatus();
}

}  // namespace heddle::torch_runtime
