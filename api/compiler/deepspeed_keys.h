// The keys of a DeepSpeed configuration, and what becomes of each.
// Invariant: a key is read, refused or warned about by name; one that stands in
// no row is unknown. A row without a reason would be a silent default.
#ifndef HEDDLE_API_COMPILER_DEEPSPEED_KEYS_H_
#define HEDDLE_API_COMPILER_DEEPSPEED_KEYS_H_

#include <string>
#include <vector>

namespace heddle {

enum class JsonKind {
  kBool,
  kNumber,
  kString,
  kList,
  kAny,
  kSection,  // an object whose keys have rows of their own
  kSwitch,   // an object that says nothing unless its "enabled" is true
};

enum class KeyUse {
  kRead,      // becomes an option of Heddle's
  kRefused,   // any value but the neutral ones is an error
  kNoEffect,  // any value but the neutral ones is a named warning
};

struct DeepSpeedKey {
  const char* path;  // "zero_optimization.stage"
  JsonKind kind;
  KeyUse use;
  // JSON array of values that ask for nothing; empty: none.
  const char* neutral = "";
  // Why, and what to do instead.
  const char* reason = "";
};

const std::vector<DeepSpeedKey>& DeepSpeedKeys();

const DeepSpeedKey* FindDeepSpeedKey(const std::string& path);

// "; did you mean 'x'?" with the sibling whose spelling is nearest.
std::string NearestDeepSpeedKey(const std::string& path);

}  // namespace heddle

#endif  // HEDDLE_API_COMPILER_DEEPSPEED_KEYS_H_
