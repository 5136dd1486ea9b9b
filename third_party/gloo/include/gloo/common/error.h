// Names for torch's ProcessGroupGloo.hpp; see third_party/gloo/BUILD.
#ifndef HEDDLE_THIRD_PARTY_GLOO_COMMON_ERROR_H_
#define HEDDLE_THIRD_PARTY_GLOO_COMMON_ERROR_H_
#endif  // HEDDLE_THIRD_PARTY_GLOO_COMMON_ERROR_H_
