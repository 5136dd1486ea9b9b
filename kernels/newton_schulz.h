// Newton-Schulz orthogonalisation as a short list of matrix products that the
// host reference and the device code both run, so they agree on what is
// computed and differ by rounding only.
//
// Kernel `newton_schulz`:
//   x             value or list of values [.., rows, columns], row-major, all
//                 of one rows x columns; every matrix is orthogonalised alone.
//   results       as many, of x's sizes; any floating type.
//   ns            "gram" or "standard". gram uses the standard form where
//                 rows == columns, since it saves nothing there.
//   coefficients  "keller_jordan", "you", "polar_express", or a list of
//                 3 numbers (a, b, c) an iteration; the last triple repeats.
//   steps         iterations, 1 to 32 (default 5).
//   dtype         "fp64", "fp32", "bf16", "fp16": the iterates' type. Products
//                 of 16-bit iterates accumulate in fp32.
//   eps, norm_eps "add": x / (|x| + eps); "clamp": x / max(|x|, eps). The norm
//                 is taken in fp32 (fp64 for fp64), before the cast to dtype.

#ifndef HEDDLE_KERNELS_NEWTON_SCHULZ_H_
#define HEDDLE_KERNELS_NEWTON_SCHULZ_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/registry.h"

namespace heddle::kernels {

// One iteration maps a singular value s to a s + b s^3 + c s^5.
struct Quintic {
  double a, b, c;
};

struct NewtonSchulzOptions {
  bool gram = true;
  // One an iteration.
  std::vector<Quintic> quintics;
  Element dtype = Element::kF16;
  double eps = 1e-7;
  bool clamp = false;
};

// The first `steps` of a named set, its last triple repeated.
absl::StatusOr<std::vector<Quintic>> NamedQuintics(const std::string& name,
                                                   int steps);

// Reads and checks the attributes of a call.
absl::StatusOr<NewtonSchulzOptions> ReadNewtonSchulzOptions(const Call& call);

// How much the Gram form's accumulated factor grows on an eigenvalue that
// should be 0 and is -noise, when X X^T is formed anew before the iterations
// in `restarts`. Without noise it is the product of all `a`.
double GramGrowth(const std::vector<Quintic>& quintics,
                  const std::vector<int>& restarts, double noise);

// The fewest restarts that keep the growth near the noiseless one, at the
// places where it is least. The noise is the type's rounding.
std::vector<int> ChooseRestarts(const std::vector<Quintic>& quintics,
                                Element dtype);

// out = alpha A op(B) + beta C + diagonal I, rounded once. Operands are buffer
// numbers; no operand shares memory with `out`.
struct NewtonSchulzOp {
  int a = 0, b = 0, out = 0;
  int c = -1;                // -1: no C
  bool transpose_b = false;  // op(B) = B^T
  bool symmetric = false;    // the result is, so half of it is computed
  double alpha = 1, beta = 0, diagonal = 0;
};

// Buffer 0 holds the normalised short-and-wide matrix X [n, m], n <= m; the
// last op writes the result, [n, m] too, into buffer `output`, which nothing
// else uses.
struct NewtonSchulzProgram {
  std::vector<NewtonSchulzOp> ops;
  // By buffer number: [n, n] instead of [n, m].
  std::vector<bool> square;
  int output = 0;
};

NewtonSchulzProgram BuildNewtonSchulzProgram(const NewtonSchulzOptions& options,
                                             int64_t n, int64_t m);

// Multiplications and additions that the program needs for one matrix, half of
// a symmetric result counted.
double NewtonSchulzFlops(const NewtonSchulzProgram& program, int64_t n,
                         int64_t m);

// The matrices of a call, checked: list entry by list entry, `count` each.
struct MatrixList {
  int64_t rows = 0, columns = 0;
  int64_t total = 0;
  std::vector<int64_t> count;
};
absl::StatusOr<MatrixList> ReadMatrices(const Call& call);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_NEWTON_SCHULZ_H_
