// A shared object with static MLIR in it; only heddle_smoke_* may leave it.
#include "llvm/Support/CommandLine.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

extern "C" __attribute__((visibility("default"))) int heddle_smoke_parse(
    const char* text) {
  mlir::MLIRContext context;
  auto module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
  return module ? 1 : 0;
}
