// A plan as plain C++ data: what ParsePlan turns the bytes of a step.plan into.
// Invariant: a Plan that ParsePlan returned has every index in range and every
// value inside its buffer; nothing here is changed after parsing. Code that
// builds a Plan by hand must pass it through Serialize and ParsePlan before it
// trusts that.

#ifndef HEDDLE_RUNTIME_PLAN_PLAN_H_
#define HEDDLE_RUNTIME_PLAN_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace heddle::plan {

inline constexpr uint32_t kPlanVersion = 1;
inline constexpr uint64_t kAlignment = 256;

enum class DType : int8_t {
  kBool,
  kU8,
  kI8,
  kI16,
  kI32,
  kI64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,
  kC128,
  kF8E4M3FN,
  kF8E5M2
};
enum class Arena : int8_t { kScratch, kState, kInput, kConstant };
enum class Space : int8_t { kDevice, kPinnedHost, kHost };
enum class Category : int8_t {
  kParameter,
  kMaster,
  kBuffer,
  kOptimizer,
  kAccumulator,
  kGradient,
  kActivation,
  kTemporary,
  kInput,
  kConstant,
  kOutput
};
enum class ArgKind : int8_t {
  kNone,
  kValue,
  kValueList,
  kInt,
  kFloat,
  kBool,
  kString,
  kIntList,
  kFloatList,
  kBoolList,
  kDType,
  kDevice,
  kLayout,
  kMemoryFormat,
  kComplex,
  kRuntime
};
enum class StepKind : int8_t {
  kAten,
  kKernel,
  kGemm,
  kCollective,
  kCopy,
  kHost
};

struct Buffer {
  Arena arena = Arena::kScratch;
  Space space = Space::kDevice;
  Category category = Category::kTemporary;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::string name;
};

struct Value {
  uint32_t buffer = 0;
  DType dtype = DType::kF32;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;
  int64_t rank_stride = 0;
  std::vector<int64_t> rank_offsets;
  std::vector<int64_t> rank_sizes;
};

struct Arg {
  ArgKind kind = ArgKind::kNone;
  int64_t i = 0;
  double f = 0;
  std::string s;
  std::vector<int64_t> ints;
  std::vector<double> floats;
  std::string name;
};

struct Step {
  StepKind kind = StepKind::kAten;
  std::string name;
  std::vector<Arg> args;
  std::vector<int32_t> results;
  uint16_t stream = 0;
  std::vector<uint32_t> waits;
  int32_t signal = -1;
  uint32_t location = 0;
  int32_t rng_id = -1;
  int8_t phase = 0;
  uint64_t flops = 0;
  uint64_t bytes = 0;
};

struct Binding {
  std::string kind;
  std::string name;
  uint32_t value = 0;
};

struct Section {
  std::string name;
  std::vector<Step> steps;
  uint32_t events = 0;
  std::vector<Binding> results;
  uint64_t scratch_bytes = 0;
  uint64_t live_lower_bound = 0;
};

struct StateEntry {
  std::string kind;
  std::vector<std::string> names;
  uint32_t value = 0;
  bool trainable = false;
  bool persistent = true;
  std::string role;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t slot_offset = 0;
  std::vector<int64_t> bounds;
  double initial = 0;
};

struct Location {
  std::string path;
  std::string source;
};

struct ConstantData {
  std::string name;
  uint32_t value = 0;
  std::vector<uint8_t> data;
};

struct Axis {
  std::string name;
  uint32_t size = 1;
};

struct Plan {
  uint32_t version = kPlanVersion;
  std::string torch_version;
  std::string target;
  std::string precision;
  std::string mode;
  std::string config;
  uint64_t layout_hash = 0;
  uint64_t state_bytes = 0;
  uint64_t constant_bytes = 0;
  std::vector<std::string> streams;
  std::vector<Buffer> buffers;
  std::vector<Value> values;
  std::vector<Binding> inputs;
  std::vector<StateEntry> state;
  std::vector<ConstantData> constants;
  std::vector<Section> sections;
  std::vector<Location> locations;
  std::vector<Axis> mesh;
  // Not in the file: the coordinate that ForRank resolved the tables of values
  // for, -1 for a plan as it was read.
  int64_t resolved = -1;
};

// Bytes of one element.
int64_t ElementSize(DType dtype);
// "f32", "bf16", "i64", ...: the spelling used in dumps and errors.
const char* DTypeName(DType dtype);
const char* StepKindName(StepKind kind);

// Product of the sizes; 1 for a 0-dim value. Only for values that ParsePlan
// accepted (it checked the product for overflow).
int64_t ElementCount(const Value& value);

// The half-open range of bytes, counted from the buffer's start, that the
// value's elements span on the rank with this coordinate. Empty for a value
// without elements.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};
ByteRange BytesOf(const Value& value, int64_t coordinate = 0);

// The plan as the rank with this coordinate runs it: values with tables have
// their place and length, lists are without the values that the rank does not
// have. A plan without tables is copied.
Plan ForRank(const Plan& plan, int64_t coordinate);
// True if values differ between ranks in more than a stride.
bool HasRankTables(const Plan& plan);

// Number of ranks along an axis; 1 if the mesh has no such axis.
uint32_t AxisSize(const Plan& plan, const std::string& axis);
// Number of ranks of the whole mesh.
uint32_t WorldSize(const Plan& plan);

// Elements of the storage that a tensor of these sizes and strides looks into:
// 0 without elements.
int64_t StorageElements(const std::vector<int64_t>& sizes,
                        const std::vector<int64_t>& strides);

// True if the elements of the value fill BytesOf(value) without a gap (in any
// dimension order).
bool IsDense(const Value& value);

// nullptr if the plan has no such section.
const Section* FindSection(const Plan& plan, const std::string& name);

// Reads a plan. InvalidArgument for anything that is not a well-formed plan of
// this version; never crashes, whatever the bytes are.
absl::StatusOr<Plan> ParsePlan(const uint8_t* data, size_t size);

// Reads a plan from a file; NotFound or InvalidArgument name the path.
absl::StatusOr<Plan> ReadPlan(const std::string& path);

// The bytes of a plan. ParsePlan(Serialize(p)) equals p for a well-formed p.
std::vector<uint8_t> Serialize(const Plan& plan);

// "layers.0.mlp (model.py:88)", or the part that is known, or "" for a step
// without a location.
std::string LocationText(const Plan& plan, const Step& step);

// One line of a dump: `aten::mm stream=compute self=b7[0:4096] mat2=b2[0:64]
// out=b9[0:256] wait=[e3] signal=e4  # model.py:88 layers.0.mlp`.
std::string StepText(const Plan& plan, const Step& step);

// "aten::mm f32[2,64] f32[64,64] -> f32[2,64]": what decides how long a step
// takes, apart from data and strides.
std::string SignatureText(const Plan& plan, const Step& step);

// The whole plan: a header, then every section with one line per step.
std::string PlanText(const Plan& plan);

}  // namespace heddle::plan

#endif  // HEDDLE_RUNTIME_PLAN_PLAN_H_
