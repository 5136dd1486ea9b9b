// A training step of a torch::nn module → step.mlir, in a C++ program, with or
// without Python in it. Invariant: the module is as before afterwards, whatever
// happened, and no exception leaves Record. What would break it: a tensor that
// the module reads and that is no registered parameter or buffer; it is
// refused, because its values would be frozen into the program.
#ifndef HEDDLE_CAPTURE_RECORD_H_
#define HEDDLE_CAPTURE_RECORD_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace torch::nn {
class Module;
}

namespace heddle::capture {

// Names become those of the program's inputs. Integer entries may steer the
// step's C++ code: their values become guards.
using Batch = std::vector<std::pair<std::string, at::Tensor>>;

// The step: the batch in its order, on the device that captures → the scalar
// loss. Runs once.
using StepFunction =
    std::function<at::Tensor(const std::vector<at::Tensor>& batch)>;

struct RecordOptions {
  torch::nn::Module* module = nullptr;  // Whose parameters and buffers the step
                                        // uses; they may lie on meta.
  Batch batch;
  std::string target = "cpu";  // cpu | cuda: whose kernels the program is for.
  std::string precision;  // fp64 | fp32 | bf16 | fp16: what floating parameters
                          // are presented in. Empty: what the first one has.
  bool backward = true;   // False records the forward only (evaluation).
};

struct Program {
  std::string text;                             // step.mlir
  std::map<std::string, at::Tensor> constants;  // step.safetensors
};

// Records the step. InvalidArgument names operator, module path and remedy for
// whatever a static program cannot say.
absl::StatusOr<Program> Record(const StepFunction& step,
                               const RecordOptions& options);

// While it lives, operators of this thread's capture belong to the module
// `name` inside the enclosing scope's. Outside of a capture it does nothing.
// Operators without any scope get the path of the module whose parameter they
// read.
class Scope {
 public:
  explicit Scope(const std::string& name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  size_t outer_length_ = 0;
};

}  // namespace heddle::capture

#endif  // HEDDLE_CAPTURE_RECORD_H_
