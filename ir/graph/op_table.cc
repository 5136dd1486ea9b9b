// Look-ups in the generated operator table. Invariant: rows are sorted by ATen
// name (the generator sorts them). An unsorted op_table.inc would make findOp
// miss rows.
#include "ir/graph/op_table.h"

#include <algorithm>
#include <string_view>

namespace heddle::graph {
namespace {

#include "ir/graph/op_table.inc"

}  // namespace

const OpRow* opTableBegin() { return std::begin(kOps); }
const OpRow* opTableEnd() { return std::end(kOps); }

const OpRow* findOp(std::string_view atenName) {
  const OpRow* row = std::lower_bound(
      opTableBegin(), opTableEnd(), atenName,
      [](const OpRow& r, std::string_view n) { return r.atenName < n; });
  return row != opTableEnd() && row->atenName == atenName ? row : nullptr;
}

const OpRow* findOpByMlirName(std::string_view mlirName) {
  // "graph.add.Tensor" and "aten::add.Tensor" differ in their prefix only, so
  // both orders agree.
  constexpr std::string_view kDialect = "graph.";
  constexpr size_t kAten = sizeof("aten::") - 1;
  if (mlirName.substr(0, kDialect.size()) != kDialect) return nullptr;
  std::string_view name = mlirName.substr(kDialect.size());
  const OpRow* row =
      std::lower_bound(opTableBegin(), opTableEnd(), name,
                       [](const OpRow& r, std::string_view n) {
                         return std::string_view(r.atenName).substr(kAten) < n;
                       });
  return row != opTableEnd() && row->mlirName == mlirName ? row : nullptr;
}

}  // namespace heddle::graph
