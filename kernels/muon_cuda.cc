// Registers the device code of muon_momentum and muon_apply: lists are cut into
// launches of at most kMuonEntries entries of the same types.

#ifdef HEDDLE_HAVE_CUDA

#include "kernels/muon_cuda.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/device_element_of.h"
#include "kernels/muon.h"

namespace heddle::kernels {
namespace {

// Whether four elements at a time lie on their own bytes.
bool TakesGroups(const Operand& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.data);
  return tensor.data == nullptr ||
         (tensor.element != Element::kF64 &&
          address % (tensor.element == Element::kF32 ? 16 : 8) == 0);
}

using Launcher = const char* (*)(const MuonDevice&, bool, void*);

// `base` with entries (first[i], second[i], results[count + i]).
absl::Status LaunchLists(const Call& call, const char* kernel,
                         const MuonDevice& base,
                         const std::vector<Operand>& first,
                         const std::vector<Operand>& second,
                         const std::vector<double>& factors, bool f64_second,
                         Launcher launch) {
  MuonDevice device = base;
  bool f64 = false;
  const auto flush = [&]() -> absl::Status {
    if (device.count == 0) return absl::OkStatus();
    const char* error = launch(device, f64, call.stream);
    device.count = device.blocks = 0;
    return error == nullptr ? absl::OkStatus()
                            : absl::InternalError(
                                  absl::StrCat("kernel ", kernel, ": ", error));
  };
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i].count == 0) continue;
    const Operand third = call.results.size() > first.size()
                              ? call.results[first.size() + i]
                              : Operand();
    const int elements[] = {DeviceElementOf(first[i].element),
                            DeviceElementOf(second[i].element),
                            DeviceElementOf(third.element)};
    const bool wide =
        (f64_second ? second[i] : first[i]).element == Element::kF64;
    if (device.count == kMuonEntries ||
        (device.count > 0 &&
         (elements[0] != device.first_element ||
          elements[1] != device.second_element ||
          elements[2] != device.third_element || wide != f64)))
      if (absl::Status status = flush(); !status.ok()) return status;
    device.first_element = elements[0];
    device.second_element = elements[1];
    device.third_element = elements[2];
    f64 = wide;
    device.entries[device.count++] = {
        first[i].data,
        second[i].data,
        third.data,
        factors.empty() ? 0 : factors[i],
        first[i].count,
        device.blocks,
        TakesGroups(first[i]) && TakesGroups(second[i]) && TakesGroups(third)};
    device.blocks +=
        static_cast<int>((first[i].count + kMuonBlock - 1) / kMuonBlock);
  }
  return flush();
}

MuonDevice Base(const Call& call) {
  MuonDevice device{};
  if (const auto it = call.tensors.find("finite"); it != call.tensors.end())
    device.finite = static_cast<const unsigned char*>(it->second[0].data);
  return device;
}

absl::Status MuonMomentum(const Call& call) {
  absl::StatusOr<MuonMomentumOptions> options = ReadMuonMomentum(call);
  if (!options.ok()) return options.status();
  MuonDevice device = Base(call);
  device.momentum = options->momentum;
  device.divisor = options->divisor;
  device.gradient_factor = options->factor;
  device.ema = options->ema;
  device.nesterov = options->nesterov;
  return LaunchLists(call, "muon_momentum", device, call.tensors.at("grads"),
                     call.tensors.at("momenta"), {}, true, &LaunchMuonMomentum);
}

absl::Status MuonApply(const Call& call) {
  absl::StatusOr<MuonApplyOptions> options = ReadMuonApply(call);
  if (!options.ok()) return options.status();
  MuonDevice device = Base(call);
  device.decay = options->decay;
  return LaunchLists(call, "muon_apply", device, call.tensors.at("params"),
                     call.tensors.at("updates"), options->factors, false,
                     &LaunchMuonApply);
}

const DeviceRegistration kMuonMomentum("muon_momentum", &MuonMomentum);
const DeviceRegistration kMuonApply("muon_apply", &MuonApply);

}  // namespace
}  // namespace heddle::kernels

#endif
