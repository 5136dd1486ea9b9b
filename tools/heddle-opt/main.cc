// The compiler library's driver as a program. Invariant: registration only.
#include "api/compiler/compiler.h"
#include "passes/verify/Passes.h"

int main(int argc, char** argv) {
  heddle::graph::registerVerifyPasses();
  return heddle_opt_main(argc, argv);
}
