// heddle-inspect as a function, so that it can be linked where MLIR already is.
#ifndef HEDDLE_TOOLS_HEDDLE_INSPECT_HEDDLE_INSPECT_H_
#define HEDDLE_TOOLS_HEDDLE_INSPECT_HEDDLE_INSPECT_H_

namespace heddle {

// main(): 0 done, 1 the arguments or a file are wrong (said on stderr).
int heddleInspectMain(int argc, char** argv);

}  // namespace heddle

// The same for a library's exports.
extern "C" __attribute__((visibility("default"))) int heddle_inspect_main(
    int argc, char** argv);

#endif  // HEDDLE_TOOLS_HEDDLE_INSPECT_HEDDLE_INSPECT_H_
