// heddle-opt as a function, so that it can live in the shared object that holds
// MLIR.
#ifndef HEDDLE_TOOLS_HEDDLE_OPT_HEDDLE_OPT_H_
#define HEDDLE_TOOLS_HEDDLE_OPT_HEDDLE_OPT_H_

namespace heddle {

// Runs mlir-opt's command line over Heddle's dialects and passes. Returns the
// process's exit code.
int heddleOptMain(int argc, char** argv);

}  // namespace heddle

#endif  // HEDDLE_TOOLS_HEDDLE_OPT_HEDDLE_OPT_H_
