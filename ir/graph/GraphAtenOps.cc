// Generated definitions of the ATen ops, and nothing else: the longest compile
// of the dialect stays in this one file.
#include "ir/graph/GraphAtenOps.h"

#include "ir/graph/aten_verifiers.h"

using namespace mlir;

#define GET_OP_CLASSES
#include "ir/graph/GraphAtenOps.cc.inc"

namespace heddle::graph {

void GraphDialect::registerAtenOps() {
  addOperations<
#define GET_OP_LIST
#include "ir/graph/GraphAtenOps.cc.inc"
      >();
}

}  // namespace heddle::graph
