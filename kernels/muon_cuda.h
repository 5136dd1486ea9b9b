// The plain-data border between the Muon launches and their CUDA code.

#ifndef HEDDLE_KERNELS_MUON_CUDA_H_
#define HEDDLE_KERNELS_MUON_CUDA_H_

#include "kernels/device_element.h"

namespace heddle::kernels {

// Entries of one launch.
constexpr int kMuonEntries = 64;

// Three tensors an entry; what each is depends on the launch. nullptr: absent.
struct MuonEntry {
  void *first, *second, *third;
  double factor;
  // Elements, and the blocks of all entries before.
  long long count;
  int blocks_before;
  // Four elements of each tensor lie on their own bytes: they go together.
  bool groups;
};

// momentum: first gradient, second momentum, third matrix.
// apply: first parameter, second update, third copy.
struct MuonDevice {
  MuonEntry entries[kMuonEntries];
  int count, blocks;
  int first_element, second_element, third_element;  // DeviceElement
  const unsigned char* finite;                       // nullptr: true
  // momentum
  const float* gradient_factor;  // nullptr: 1
  double momentum, divisor;
  bool ema, nesterov;
  // apply: 1 - lr weight_decay; factor is -lr times the scale
  double decay;
};

// Elements of one block.
constexpr long long kMuonBlock = 256 * 16;

// nullptr, or why the launch failed.
const char* LaunchMuonMomentum(const MuonDevice& arguments, bool f64,
                               void* stream);
const char* LaunchMuonApply(const MuonDevice& arguments, bool f64,
                            void* stream);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_MUON_CUDA_H_
