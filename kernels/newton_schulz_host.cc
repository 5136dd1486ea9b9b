// The host reference of newton_schulz: the program of newton_schulz_program.cc
// in plain loops, every stored number rounded to the iterates' type.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elements.h"
#include "kernels/newton_schulz.h"

namespace heddle::kernels {
namespace {

template <typename T>
T Rounded(T value, Element element) {
  switch (element) {
    case Element::kF16:
      return static_cast<T>(static_cast<_Float16>(value));
    case Element::kBF16: {
      uint16_t bits = 0;
      const Operand cell{&bits, Element::kBF16, 1};
      Store(cell, 0, static_cast<double>(value));
      return static_cast<T>(Load(cell, 0));
    }
    default:
      return value;
  }
}

template <typename T>
using Matrix = std::vector<T>;

template <typename T>
Matrix<T> Transposed(const Matrix<T>& from, int64_t rows, int64_t columns) {
  Matrix<T> to(from.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      to[static_cast<size_t>(j * rows + i)] =
          from[static_cast<size_t>(i * columns + j)];
  return to;
}

template <typename T>
void Run(const NewtonSchulzOp& op, const NewtonSchulzProgram& program,
         int64_t n, int64_t m, Element element,
         std::vector<Matrix<T>>& buffers) {
  const auto width = [&](int buffer) {
    return program.square[static_cast<size_t>(buffer)] ? n : m;
  };
  const Matrix<T>& a = buffers[static_cast<size_t>(op.a)];
  const Matrix<T>& b = buffers[static_cast<size_t>(op.b)];
  const int64_t inner = width(op.a);
  const int64_t columns = op.transpose_b ? n : width(op.b);
  const Matrix<T> turned =
      op.transpose_b ? Transposed(b, n, inner) : Matrix<T>();
  const T* right = op.transpose_b ? turned.data() : b.data();
  Matrix<T>& out = buffers[static_cast<size_t>(op.out)];
  std::vector<T> sums(static_cast<size_t>(columns));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t end = op.symmetric ? i + 1 : columns;
    std::fill(sums.begin(), sums.end(), T(0));
    for (int64_t k = 0; k < inner; ++k) {
      const T left = a[static_cast<size_t>(i * inner + k)];
      const T* row = right + k * columns;
      for (int64_t j = 0; j < end; ++j)
        sums[static_cast<size_t>(j)] += left * row[j];
    }
    for (int64_t j = 0; j < end; ++j) {
      const size_t at = static_cast<size_t>(i * columns + j);
      T value = static_cast<T>(op.alpha) * sums[static_cast<size_t>(j)];
      if (op.c >= 0)
        value +=
            static_cast<T>(op.beta) * buffers[static_cast<size_t>(op.c)][at];
      if (i == j) value += static_cast<T>(op.diagonal);
      out[at] = Rounded(value, element);
      if (op.symmetric) out[static_cast<size_t>(j * columns + i)] = out[at];
    }
  }
}

// One matrix; T is the type of sums and, for fp32 and fp64, of the iterates.
template <typename T>
void Orthogonalise(const NewtonSchulzOptions& options,
                   const NewtonSchulzProgram& program, const Operand& x,
                   const Operand& result, int64_t first, int64_t rows,
                   int64_t columns) {
  const bool tall = rows > columns;
  const int64_t n = std::min(rows, columns), m = std::max(rows, columns);
  std::vector<Matrix<T>> buffers;
  for (const bool square : program.square)
    buffers.emplace_back(static_cast<size_t>(square ? n * n : n * m));
  double squares = 0;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double value = Load(x, first + i);
    squares += value * value;
  }
  const T norm = static_cast<T>(std::sqrt(squares));
  const T eps = static_cast<T>(options.eps);
  // A NaN norm stays one.
  const T divisor = options.clamp ? (norm < eps ? eps : norm) : norm + eps;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t at = tall ? i % columns * rows + i / columns : i;
    buffers[0][static_cast<size_t>(at)] =
        Rounded(static_cast<T>(Load(x, first + i)) / divisor, options.dtype);
  }
  for (const NewtonSchulzOp& op : program.ops)
    Run(op, program, n, m, options.dtype, buffers);
  const Matrix<T>& out = buffers[static_cast<size_t>(program.output)];
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t at = tall ? i % columns * rows + i / columns : i;
    Store(result, first + i, static_cast<double>(out[static_cast<size_t>(at)]));
  }
}

absl::Status NewtonSchulz(const Call& call) {
  absl::StatusOr<NewtonSchulzOptions> options = ReadNewtonSchulzOptions(call);
  if (!options.ok()) return options.status();
  absl::StatusOr<MatrixList> list = ReadMatrices(call);
  if (!list.ok()) return list.status();
  const int64_t size = list->rows * list->columns;
  if (size == 0 || list->total == 0) return absl::OkStatus();
  const NewtonSchulzProgram program =
      BuildNewtonSchulzProgram(*options, std::min(list->rows, list->columns),
                               std::max(list->rows, list->columns));
  const std::vector<Operand>& x = call.tensors.at("x");
  for (size_t i = 0; i < x.size(); ++i) {
    for (int64_t b = 0; b < list->count[i]; ++b) {
      if (options->dtype == Element::kF64) {
        Orthogonalise<double>(*options, program, x[i], call.results[i],
                              b * size, list->rows, list->columns);
      } else {
        Orthogonalise<float>(*options, program, x[i], call.results[i], b * size,
                             list->rows, list->columns);
      }
    }
  }
  return absl::OkStatus();
}

const Registration kNewtonSchulz("newton_schulz", &NewtonSchulz, nullptr);

}  // namespace
}  // namespace heddle::kernels
