// Names for torch's ProcessGroupGloo.hpp; see third_party/gloo/BUILD.
#ifndef HEDDLE_THIRD_PARTY_GLOO_ALGORITHM_H_
#define HEDDLE_THIRD_PARTY_GLOO_ALGORITHM_H_

#include "gloo/context.h"

#endif  // HEDDLE_THIRD_PARTY_GLOO_ALGORITHM_H_
