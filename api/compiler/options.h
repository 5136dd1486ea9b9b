// options_json of heddle_compile -> pipeline options.
// Invariant: an unknown key or a value of the wrong kind is an error that names
// it; nothing is ignored.
#ifndef HEDDLE_API_COMPILER_OPTIONS_H_
#define HEDDLE_API_COMPILER_OPTIONS_H_

#include <string>

#include "passes/pipelines.h"

namespace heddle {

struct CompileOptions {
  TrainingPipelineOptions pipeline;
  std::string reproducerDir;
};

// Whether options_json may have this key.
bool isCompileOption(llvm::StringRef key);

// Returns "" or the error.
std::string parseCompileOptions(llvm::StringRef json, CompileOptions& options);

}  // namespace heddle

#endif  // HEDDLE_API_COMPILER_OPTIONS_H_
