// torch::nn models that captures of C++ programs are tested with. The Python
// file beside it has the same ones: both must give the same program.
#ifndef HEDDLE_TESTS_UNIT_CAPTURE_MODELS_H_
#define HEDDLE_TESTS_UNIT_CAPTURE_MODELS_H_

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "capture/record.h"

namespace heddle::capture::testing {

struct Case {
  std::string name;
  std::shared_ptr<torch::nn::Module> module;
  Batch batch;
  StepFunction step;
};

// mlp, cnn, transformer, reductions; seeded, so that every call gives the same
// weights and batches.
std::vector<Case> Cases();

}  // namespace heddle::capture::testing

#endif  // HEDDLE_TESTS_UNIT_CAPTURE_MODELS_H_
