// heddle-opt's --config: a DeepSpeed configuration -> --train-pipeline options.
// Invariant: what the configuration asks for is in the options, or in an error,
// or in a warning.
#ifndef HEDDLE_API_COMPILER_OPT_CONFIG_H_
#define HEDDLE_API_COMPILER_OPT_CONFIG_H_

#include <string>
#include <vector>

namespace heddle {

// `program`: the captured step, whose precision must be the configuration's.
// `given`: the options of the command line; they follow the configuration's and
// so win over them, with a warning. Returns "" and `pipeline`, or the error.
std::string pipelineOfConfig(const std::string& config,
                             const std::string& program,
                             const std::string& given, std::string& pipeline,
                             std::vector<std::string>& warnings);

}  // namespace heddle

#endif  // HEDDLE_API_COMPILER_OPT_CONFIG_H_
