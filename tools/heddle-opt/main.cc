// The compiler library's driver as a program. Invariant: registration only.
#include "api/compiler/compiler.h"

int main(int argc, char** argv) { return heddle_opt_main(argc, argv); }
