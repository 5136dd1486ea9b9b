// Reading a Call: operands and scalars by name, and where a row of a strided
// operand begins.

#ifndef HEDDLE_KERNELS_CALL_H_
#define HEDDLE_KERNELS_CALL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/registry.h"

namespace heddle::kernels {

// nullptr unless `name` is exactly one tensor.
const Operand* FindTensor(const Call& call, const char* name);
double FindScalar(const Call& call, const char* name, double otherwise);
// "kernel rms_norm needs ...".
absl::Status Needs(const char* kernel, const std::string& what);
// What a launch came to: `error` is null, or says why it failed.
absl::Status Launched(const char* kernel, const char* error);

// An operand seen as rows of its last dimension: up to three dimensions of
// rows, sizes padded with ones in front.
struct Rows {
  int64_t sizes[3] = {1, 1, 1};
  int64_t strides[3] = {0, 0, 0};
  int64_t columns = 1;
  int64_t rows() const { return sizes[0] * sizes[1] * sizes[2]; }
  int64_t Offset(int64_t row) const;
};
// Fails where the last dimension is not dense or there are more than four.
absl::Status AsRows(const char* kernel, const char* name,
                    const Operand& operand, Rows* rows);
// As `AsRows`, stretched to the rows of `to`: dimensions of one, and missing
// ones, repeat.
absl::Status AsRowsLike(const char* kernel, const char* name,
                        const Operand& operand, const Rows& to, Rows* rows);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_CALL_H_
