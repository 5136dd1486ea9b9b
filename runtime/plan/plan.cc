// Index maths on plan values. Sizes and strides are trusted here: ParsePlan has
// checked them for sign and overflow.

#include "runtime/plan/plan.h"

#include <algorithm>
#include <utility>

namespace heddle::plan {

int64_t ElementSize(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3FN:
    case DType::kF8E5M2:
      return 1;
    case DType::kI16:
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI32:
    case DType::kF32:
      return 4;
    case DType::kI64:
    case DType::kF64:
    case DType::kC64:
      return 8;
    case DType::kC128:
      return 16;
  }
  return 1;
}

const char* DTypeName(DType dtype) {
  static constexpr const char* kNames[] = {
      "bool", "u8",  "i8",  "i16", "i32",  "i64",      "f16",
      "bf16", "f32", "f64", "c64", "c128", "f8E4M3FN", "f8E5M2"};
  return kNames[static_cast<int>(dtype)];
}

const char* StepKindName(StepKind kind) {
  static constexpr const char* kNames[] = {"aten",       "kernel", "gemm",
                                           "collective", "copy",   "host"};
  return kNames[static_cast<int>(kind)];
}

int64_t ElementCount(const Value& value) {
  int64_t count = 1;
  for (int64_t size : value.sizes) count *= size;
  return count;
}

int64_t StorageElements(const std::vector<int64_t>& sizes,
                        const std::vector<int64_t>& strides) {
  int64_t last = 0;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 0) return 0;
    last += (sizes[d] - 1) * strides[d];
  }
  return last + 1;
}

ByteRange BytesOf(const Value& value, int64_t coordinate) {
  const int64_t count = StorageElements(value.sizes, value.strides);
  if (count == 0) return {};
  const uint64_t element = static_cast<uint64_t>(ElementSize(value.dtype));
  const uint64_t first =
      static_cast<uint64_t>(value.offset + coordinate * value.rank_stride);
  return {first * element, (first + static_cast<uint64_t>(count)) * element};
}

bool HasRankTables(const Plan& plan) {
  for (const Value& value : plan.values) {
    if (!value.rank_offsets.empty() || !value.rank_sizes.empty()) return true;
  }
  return false;
}

Plan ForRank(const Plan& plan, int64_t coordinate) {
  Plan own = plan;
  own.resolved = coordinate;
  std::vector<bool> absent(own.values.size(), false);
  const auto rank = static_cast<size_t>(coordinate);
  for (size_t i = 0; i < own.values.size(); ++i) {
    Value& value = own.values[i];
    if (!value.rank_offsets.empty()) {
      absent[i] = value.rank_offsets[rank] < 0;
      if (!absent[i]) value.offset += value.rank_offsets[rank];
    }
    if (!value.rank_sizes.empty()) value.sizes[0] = value.rank_sizes[rank];
    value.rank_offsets.clear();
    value.rank_sizes.clear();
  }
  const auto leave_out = [&](auto& list) {
    list.erase(std::remove_if(list.begin(), list.end(),
                              [&](auto v) { return v >= 0 && absent[v]; }),
               list.end());
  };
  for (Section& section : own.sections) {
    for (Step& step : section.steps) {
      for (Arg& arg : step.args) {
        if (arg.kind == ArgKind::kValueList) leave_out(arg.ints);
      }
      if (step.kind == StepKind::kKernel) leave_out(step.results);
    }
  }
  return own;
}

uint32_t AxisSize(const Plan& plan, const std::string& axis) {
  for (const Axis& candidate : plan.mesh) {
    if (candidate.name == axis) return candidate.size;
  }
  return 1;
}

uint32_t WorldSize(const Plan& plan) {
  uint32_t world = 1;
  for (const Axis& axis : plan.mesh) world *= axis.size;
  return world;
}

bool IsDense(const Value& value) {
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (size_t d = 0; d < value.sizes.size(); ++d) {
    if (value.sizes[d] == 0) return true;
    if (value.sizes[d] > 1) dims.emplace_back(value.strides[d], value.sizes[d]);
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

const Section* FindSection(const Plan& plan, const std::string& name) {
  for (const Section& section : plan.sections) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

std::string LocationText(const Plan& plan, const Step& step) {
  if (step.location >= plan.locations.size()) return "";
  const Location& location = plan.locations[step.location];
  if (location.path.empty()) return location.source;
  if (location.source.empty()) return location.path;
  return location.path + " (" + location.source + ")";
}

}  // namespace heddle::plan
