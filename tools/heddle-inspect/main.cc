// heddle-inspect as a program. Invariant: nothing but the call.
#include "tools/heddle-inspect/heddle_inspect.h"

int main(int argc, char** argv) {
  return heddle::heddleInspectMain(argc, argv);
}
