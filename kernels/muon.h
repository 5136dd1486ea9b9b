// What surrounds Newton-Schulz in a Muon step, over lists of tensors. Lists of
// one call go together entry by entry.
//
// Kernel `muon_momentum`: gradient -> momentum and the matrix to orthogonalise.
//   grads, momenta  lists; momenta are updated in place, in their own type.
//   momentum        beta, in [0, 1).
//   form            "torch": m = beta m + g; torch.optim.SGD's and Moonlight's.
//                   "ema": m = lerp(m, g, 1 - beta); Keller Jordan's, and that
//                   of torch.optim.Muon since torch 2.9.
//   nesterov        the matrix is g + beta m ("torch") or lerp(g, m, beta)
//                   ("ema") with the new m, else m.
//   divisor         g is divided by it first (default 1).
//   factor          f32, on the device for its kernel; g is multiplied by it
//                   after the division (absent: 1).
//   finite          bool; where false, momenta stay and the matrices are 0.
//   results         the momenta (in place), then the matrices, any type.
//
// Kernel `muon_apply`: orthogonalised matrix -> parameter.
//   params          list, updated in place: p = p (1 - lr weight_decay)
//                   - lr scale u. lr is the product of lr and lr_scale.
//   updates         list; rows and columns are its last two sizes.
//   scale           "match_rms": 0.2 sqrt(max(rows, columns));
//                   "original": sqrt(max(1, rows / columns));
//                   "spectral": sqrt(rows / columns); "none": 1.
//   finite          bool; where false nothing is written.
//   results         the params (in place), then, if there are twice as many,
//                   copies of the new params in the copies' type.
//
// Arithmetic is in fp32, or fp64 where momenta or params are fp64; each result
// is rounded once, and the matrix is made from the momentum as it was stored.

#ifndef HEDDLE_KERNELS_MUON_H_
#define HEDDLE_KERNELS_MUON_H_

#include "absl/status/statusor.h"
#include "kernels/registry.h"

namespace heddle::kernels {

struct MuonMomentumOptions {
  double momentum = 0.95;
  bool ema = false, nesterov = true;
  double divisor = 1;
  // nullptr: 1.
  const float* factor = nullptr;
};
// Checks the lists too.
absl::StatusOr<MuonMomentumOptions> ReadMuonMomentum(const Call& call);

struct MuonApplyOptions {
  // 1 - lr weight_decay, and -lr times the scale of each entry.
  double decay = 1;
  std::vector<double> factors;
};
absl::StatusOr<MuonApplyOptions> ReadMuonApply(const Call& call);

}  // namespace heddle::kernels

#endif  // HEDDLE_KERNELS_MUON_H_
