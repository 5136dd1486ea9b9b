// The known name that a misspelt one is closest to, for error messages.
#ifndef HEDDLE_RUNTIME_PLAN_NEAREST_H_
#define HEDDLE_RUNTIME_PLAN_NEAREST_H_

#include <cstddef>
#include <string>

namespace heddle::plan {

// Letters to insert, delete or replace to make `a` into `b`.
size_t EditDistance(const std::string& a, const std::string& b);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_NEAREST_H_
