// Lookups, and the arithmetic of rows.

#include "kernels/call.h"

#include "absl/strings/str_cat.h"

namespace heddle::kernels {

const Operand* FindTensor(const Call& call, const char* name) {
  const auto it = call.tensors.find(name);
  return it == call.tensors.end() || it->second.size() != 1 ? nullptr
                                                            : &it->second[0];
}

double FindScalar(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

absl::Status Launched(const char* kernel, const char* error) {
  return error == nullptr ? absl::OkStatus()
                          : absl::InternalError(
                                absl::StrCat("kernel ", kernel, ": ", error));
}

absl::Status Needs(const char* kernel, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("kernel ", kernel, " needs ", what));
}

int64_t Rows::Offset(int64_t row) const {
  int64_t offset = row % sizes[2] * strides[2];
  row /= sizes[2];
  return offset + row % sizes[1] * strides[1] + row / sizes[1] * strides[0];
}

absl::Status AsRows(const char* kernel, const char* name,
                    const Operand& operand, Rows* rows) {
  *rows = Rows();
  if (operand.sizes.empty()) {
    rows->columns = operand.count;
    return absl::OkStatus();
  }
  const size_t rank = operand.sizes.size();
  if (rank > 4)
    return Needs(kernel, absl::StrCat(name, " of at most four dimensions"));
  rows->columns = operand.sizes[rank - 1];
  if (rows->columns != 1 && operand.strides[rank - 1] != 1)
    return Needs(kernel, absl::StrCat(name, " dense in its last dimension"));
  for (size_t d = 0; d + 1 < rank; ++d) {
    rows->sizes[d + 4 - rank] = operand.sizes[d];
    rows->strides[d + 4 - rank] = operand.strides[d];
  }
  return absl::OkStatus();
}

absl::Status AsRowsLike(const char* kernel, const char* name,
                        const Operand& operand, const Rows& to, Rows* rows) {
  if (absl::Status status = AsRows(kernel, name, operand, rows); !status.ok())
    return status;
  bool fits = rows->columns == to.columns;
  for (int d = 0; d < 3; ++d) {
    if (rows->sizes[d] == to.sizes[d]) continue;
    fits &= rows->sizes[d] == 1;
    rows->sizes[d] = to.sizes[d];
    rows->strides[d] = 0;
  }
  return fits ? absl::OkStatus()
              : Needs(kernel, absl::StrCat(name, " of its operand's shape"));
}

}  // namespace heddle::kernels
