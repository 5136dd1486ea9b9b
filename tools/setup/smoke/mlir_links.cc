// One binary with Debian's static MLIR: its presence in `bazel test` says that
// the descriptions in third_party/mlir match what is installed.
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

int main() {
  mlir::MLIRContext context;
  mlir::OwningOpRef<mlir::ModuleOp> module =
      mlir::parseSourceString<mlir::ModuleOp>("module {}", &context);
  return module ? 0 : 1;
}
