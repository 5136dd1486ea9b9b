// RUN: mlir_opt_smoke %s | FileCheck %s
// Tests that lit finds a tool of this build beside FileCheck.
// CHECK: module
module {}
