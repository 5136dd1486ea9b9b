// What every file that heddle-inspect opens is turned into: one plain
// description of a program, whatever phase of the compiler wrote it. Invariant:
// indices are in range: `Use::value` into Program::values, `Value::storage` and
// `Lifetime::storage` into Program::storages, `Use::producer` into the
// section's ops. What would break it: a reader that lets a view own a storage,
// since its bytes would be counted twice.
#ifndef HEDDLE_TOOLS_HEDDLE_INSPECT_PROGRAM_H_
#define HEDDLE_TOOLS_HEDDLE_INSPECT_PROGRAM_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace heddle::inspect {

// The plan's categories, in the order in which they are stacked.
enum class Category {
  kParameter,
  kMaster,
  kOptimizer,
  kAccumulator,
  kBuffer,
  kConstant,
  kInput,
  kActivation,
  kGradient,
  kOutput,
  kTemporary
};
inline constexpr int kCategories = 11;
const char* categoryName(Category category);

struct Storage {
  std::string name;
  Category category = Category::kTemporary;
  int64_t bytes = 0;
  // Exists before and after every section.
  bool resident = false;
};

struct Value {
  int storage = -1;
  std::string dtype;
  std::vector<int64_t> shape;
};
// "bf16[2,16,64]"
std::string typeText(const Value& value);

// One operand: the op that made it (-1: an argument of the section) and which
// of that op's results it is.
struct Use {
  int value = -1;
  int producer = -1;
  int output = 0;
};

struct FlopsOfKind {
  std::string kind;
  int64_t flops = 0;
};

struct Op {
  std::string name;
  std::string kind;
  // Has a definition of its own in the dialect; false for an operator that
  // passes cannot look into.
  bool structured = true;
  bool view = false;
  std::string path;
  std::string source;
  std::string phase;
  int64_t bytes = 0;
  // Of a plan's collective: bytes that reach a rank from the others, of the
  // rank that most reach. Negative for every other op.
  int64_t wireBytes = -1;
  // The axis it runs along, and its ranks.
  std::string axis;
  int64_t axisRanks = 0;
  // What a file of costs knows the op by; empty where it is no step of a plan.
  std::string signature;
  // Seconds by such a file, negative where it does not say.
  double measured = -1;
  // One entry, but for ops with a body one for every kind in it.
  std::vector<FlopsOfKind> flops;
  std::vector<Use> operands;
  // Values; -1 for a result that the plan drops.
  std::vector<int> results;
  std::vector<std::pair<std::string, std::string>> attributes;
  int stream = 0;
  std::vector<int> waits;
  int signal = -1;

  int64_t totalFlops() const;
};

// First and last op (inclusive) of the section during which a storage must
// exist.
struct Lifetime {
  int storage = -1;
  int first = 0;
  int last = 0;
};

struct SectionResult {
  std::string kind;
  std::string name;
  Use use;
};

// The collectives of one kind in a section: how many, and the bytes that reach
// each rank from the others.
struct CollectiveSum {
  std::string kind;
  int calls = 0;
  std::vector<int64_t> bytes;
};

struct Section {
  std::string name;
  std::vector<Op> ops;
  std::vector<Lifetime> lifetimes;
  std::vector<SectionResult> results;
  // Of a plan; -1 where nothing is placed yet.
  int64_t scratchBytes = -1;
  int64_t liveLowerBound = -1;
  std::vector<CollectiveSum> collectives;
};

// A named tensor that the program is given: a parameter, a buffer, state of the
// optimizer, an input or a constant.
struct Argument {
  Category category = Category::kParameter;
  // "parameter", "exp_avg", "input", ...
  std::string kind;
  std::vector<std::string> names;
  // What an optimizer wants to know of a parameter: "matrix", "norm", ...
  std::string role;
  bool trainable = false;
  int value = -1;

  std::string name() const {
    return names.empty() ? std::string() : names.front();
  }
};

struct Program {
  std::string file;
  // "step.mlir", "step.sched.mlir" or "step.plan".
  std::string format;
  int64_t version = 0;
  std::string target;
  std::string precision;
  std::string torchVersion;
  std::string mode;
  std::string config;
  std::vector<std::string> streams;
  int64_t ranks = 1;
  // The device whose measured costs the ops have, and how many have one.
  std::string costs;
  int64_t measured = 0;
  // What a measured run reserved beside the plan, by trace::Costs's names.
  std::map<std::string, int64_t> reserved;
  std::vector<Value> values;
  std::vector<Storage> storages;
  std::vector<Argument> arguments;
  std::vector<Section> sections;

  int64_t elements(int value) const;
};

// Reads any file that the compiler writes. InvalidArgument or NotFound name the
// file, what it is, and what to do.
absl::StatusOr<Program> readProgram(const std::string& path);

// The two readers behind it. `path` is for messages.
absl::StatusOr<Program> readMlir(const std::string& path,
                                 const std::string& bytes);
absl::StatusOr<Program> readPlanBytes(const std::string& path,
                                      const std::string& bytes,
                                      const std::string& format);

// What an operator does, for people: "matmul", "pointwise", ... `name` is
// "aten::mm", "graph.mm", "optim.adamw" or a kernel's name.
std::string kindOf(const std::string& name);

}  // namespace heddle::inspect

#endif  // HEDDLE_TOOLS_HEDDLE_INSPECT_PROGRAM_H_
