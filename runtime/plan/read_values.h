// For read*.cc alone: what they share, and the reading of buffers and values.

#ifndef HEDDLE_RUNTIME_PLAN_READ_VALUES_H_
#define HEDDLE_RUNTIME_PLAN_READ_VALUES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "flatbuffers/flatbuffers.h"
#include "runtime/plan/plan.h"
#include "runtime/plan/plan_generated.h"

namespace heddle::plan {

// No byte count in a plan may exceed this, so that sums of two cannot overflow.
inline constexpr uint64_t kMaxBytes = uint64_t{1} << 52;

template <typename... Args>
absl::Status Invalid(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat("plan: ", args...));
}

inline std::string Text(const flatbuffers::String* s) {
  return s == nullptr ? std::string() : s->str();
}

// The verifier checks that a vector's length is aligned, not that its elements
// are: a hostile vector of 64-bit numbers may lie at any multiple of 4.
template <typename T>
std::vector<T> List(const flatbuffers::Vector<T>* v) {
  static_assert(FLATBUFFERS_LITTLEENDIAN, "the bytes are taken as they are");
  if (v == nullptr) return {};
  std::vector<T> list(v->size());
  if (!list.empty())
    std::memcpy(list.data(), v->Data(), list.size() * sizeof(T));
  return list;
}

template <typename Fb, typename E>
bool ReadEnum(Fb from, Fb last, E* to) {
  const int raw = static_cast<int>(from);
  if (raw < 0 || raw > static_cast<int>(last)) return false;
  *to = static_cast<E>(raw);
  return true;
}

// Checks sizes and strides: not negative, and neither the number of elements
// nor the last one (counted from `first`) overflows. Sets `storage` to one past
// the last element, or to `first` where there are none.
absl::Status CheckShape(const std::vector<int64_t>& sizes,
                        const std::vector<int64_t>& strides, int64_t first,
                        const std::string& what, int64_t* storage);

// `plan` has its arenas' sizes and its mesh; ReadValue needs its buffers, too.
absl::Status ReadBuffer(const fb::Buffer& from, size_t index, const Plan& plan,
                        Buffer* to);
absl::Status ReadValue(const fb::Value& from, size_t index, const Plan& plan,
                       Value* to);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_READ_VALUES_H_
