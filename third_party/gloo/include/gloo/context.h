// Names for torch's ProcessGroupGloo.hpp; see third_party/gloo/BUILD.
#ifndef HEDDLE_THIRD_PARTY_GLOO_CONTEXT_H_
#define HEDDLE_THIRD_PARTY_GLOO_CONTEXT_H_

#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo

#endif  // HEDDLE_THIRD_PARTY_GLOO_CONTEXT_H_
