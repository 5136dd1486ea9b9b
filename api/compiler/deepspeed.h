// A DeepSpeed configuration -> Heddle's options, for heddle-opt --config and
// for Python alike. Invariant: every key of the file is honoured with
// DeepSpeed's meaning, refused, or warned about by its name.
#ifndef HEDDLE_API_COMPILER_DEEPSPEED_H_
#define HEDDLE_API_COMPILER_DEEPSPEED_H_

#include <string>

namespace heddle {

// `text`: the configuration (comments allowed). `context`: a JSON object with
// "world_size" (ranks; default 1) and "auto", values by key path for what the
// file leaves to a Trainer. On success `out` is a JSON object:
//   "plan"      heddle.Plan's options
//   "optimizer" {"kind": "adamw" | "muon", ...} with "lr", or null
//   "schedule"  as in api/schedule, or null
//   "batch"     {"micro_batch", "accumulation", "total"}, null where not given
//   "warnings"  a list of "key: reason"
// Returns "" or the error.
std::string ReadDeepSpeed(const std::string& text, const std::string& context,
                          std::string* out);

}  // namespace heddle

#endif  // HEDDLE_API_COMPILER_DEEPSPEED_H_
