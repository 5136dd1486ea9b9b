// Registers Heddle's dialects and passes with mlir-opt's driver. Invariant: registration only; a pass that exists here exists in the compiler too.
#include "tools/heddle-opt/heddle_opt.h"

#include "ir/graph/GraphDialect.h"
#include "ir/optim/OptimDialect.h"
#include "mlir/IR/DialectRegistry.h"
#include "mlir/Support/LogicalResult.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "passes/graph/Passes.h"

namespace heddle {

int heddleOptMain(int argc, char** argv) {
  mlir::DialectRegistry registry;
  registry.insert<graph::GraphDialect, optim::OptimDialect>();
  graph::registerGraphPasses();
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, "heddle-opt: runs passes over captured training steps\n", registry));
}

}  // namespace heddle
