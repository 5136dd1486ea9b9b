// The host references of muon_momentum and muon_apply, and the reading of their
// arguments, which the device code shares. No fused multiply-adds.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/elements.h"
#include "kernels/muon.h"

namespace heddle::kernels {
namespace {

double Scalar(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

std::string Text(const Call& call, const char* name, const char* otherwise) {
  const auto it = call.strings.find(name);
  return it == call.strings.end() ? otherwise : it->second;
}

absl::Status Wrong(const char* kernel, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("kernel ", kernel, ": ", what));
}

bool Floating(const Operand& operand) {
  return operand.element != Element::kBool && operand.element != Element::kI64;
}

// Two lists of equal length and sizes, as many results as `per_entry` allows.
absl::Status CheckLists(const Call& call, const char* kernel, const char* one,
                        const char* other, bool second_half_required) {
  const auto a = call.tensors.find(one), b = call.tensors.find(other);
  if (a == call.tensors.end() || b == call.tensors.end() || a->second.empty() ||
      a->second.size() != b->second.size())
    return Wrong(kernel, absl::StrCat("needs lists ", one, " and ", other,
                                      " of one length"));
  const size_t entries = a->second.size();
  if (call.results.size() != 2 * entries &&
      (second_half_required || call.results.size() != entries))
    return Wrong(kernel, absl::StrCat("has ", call.results.size(),
                                      " results for ", entries, " entries"));
  for (size_t i = 0; i < entries; ++i) {
    const int64_t count = a->second[i].count;
    if (count != b->second[i].count || !Floating(a->second[i]) ||
        !Floating(b->second[i]))
      return Wrong(kernel,
                   absl::StrCat("entry ", i, " of ", one, " and ", other,
                                " differ in size or are not floating"));
    for (size_t r = i; r < call.results.size(); r += entries)
      if (call.results[r].data != nullptr &&
          (call.results[r].count != count || !Floating(call.results[r])))
        return Wrong(kernel, absl::StrCat("result ", r, " does not fit entry ",
                                          i, " of ", one));
  }
  if (const auto finite = call.tensors.find("finite");
      finite != call.tensors.end() &&
      (finite->second.size() != 1 ||
       finite->second[0].element != Element::kBool))
    return Wrong(kernel, "finite is not one bool");
  return absl::OkStatus();
}

bool Skipped(const Call& call) {
  const auto finite = call.tensors.find("finite");
  return finite != call.tensors.end() && Load(finite->second[0], 0) == 0;
}

// torch.lerp's two branches.
template <typename T>
T Lerp(T from, T to, T weight) {
  return std::abs(weight) < T(0.5) ? from + weight * (to - from)
                                   : to - (to - from) * (T(1) - weight);
}

template <typename T>
void MomentumLoop(const MuonMomentumOptions& options, const Operand& grad,
                  const Operand& momentum, const Operand& update) {
  const T beta = static_cast<T>(options.momentum),
          weight = static_cast<T>(1 - options.momentum),
          divisor = static_cast<T>(options.divisor),
          factor = options.factor == nullptr ? T(1)
                                             : static_cast<T>(*options.factor);
  for (int64_t i = 0; i < grad.count; ++i) {
    T g = static_cast<T>(Load(grad, i));
    if (divisor != T(1)) g = g / divisor;
    if (factor != T(1)) g = g * factor;
    T m = static_cast<T>(Load(momentum, i));
    m = options.ema ? Lerp(m, g, weight) : beta * m + g;
    Store(momentum, i, static_cast<double>(m));
    m = static_cast<T>(Load(momentum, i));
    const T u = !options.nesterov ? m
                : options.ema     ? Lerp(g, m, beta)
                                  : g + beta * m;
    if (update.data != nullptr) Store(update, i, static_cast<double>(u));
  }
}

absl::Status MuonMomentum(const Call& call) {
  absl::StatusOr<MuonMomentumOptions> options = ReadMuonMomentum(call);
  if (!options.ok()) return options.status();
  const std::vector<Operand>& grads = call.tensors.at("grads");
  const std::vector<Operand>& momenta = call.tensors.at("momenta");
  for (size_t i = 0; i < grads.size(); ++i) {
    const Operand& update = call.results[grads.size() + i];
    if (Skipped(call)) {
      for (int64_t e = 0; update.data != nullptr && e < update.count; ++e)
        Store(update, e, 0);
    } else if (momenta[i].element == Element::kF64) {
      MomentumLoop<double>(*options, grads[i], momenta[i], update);
    } else {
      MomentumLoop<float>(*options, grads[i], momenta[i], update);
    }
  }
  return absl::OkStatus();
}

template <typename T>
void ApplyLoop(double decay_factor, double update_factor, const Operand& param,
               const Operand& update, const Operand* copy) {
  const T decay = static_cast<T>(decay_factor),
          factor = static_cast<T>(update_factor);
  for (int64_t i = 0; i < param.count; ++i) {
    T p = static_cast<T>(Load(param, i));
    if (decay != T(1)) p = p * decay;
    p = p + factor * static_cast<T>(Load(update, i));
    Store(param, i, static_cast<double>(p));
    if (copy != nullptr && copy->data != nullptr)
      Store(*copy, i, Load(param, i));
  }
}

absl::Status MuonApply(const Call& call) {
  absl::StatusOr<MuonApplyOptions> options = ReadMuonApply(call);
  if (!options.ok()) return options.status();
  if (Skipped(call)) return absl::OkStatus();
  const std::vector<Operand>& params = call.tensors.at("params");
  const std::vector<Operand>& updates = call.tensors.at("updates");
  for (size_t i = 0; i < params.size(); ++i) {
    const Operand* copy = call.results.size() > params.size()
                              ? &call.results[params.size() + i]
                              : nullptr;
    if (params[i].element == Element::kF64) {
      ApplyLoop<double>(options->decay, options->factors[i], params[i],
                        updates[i], copy);
    } else {
      ApplyLoop<float>(options->decay, options->factors[i], params[i],
                       updates[i], copy);
    }
  }
  return absl::OkStatus();
}

const Registration kMuonMomentum("muon_momentum", &MuonMomentum, nullptr);
const Registration kMuonApply("muon_apply", &MuonApply, nullptr);

}  // namespace

absl::StatusOr<MuonMomentumOptions> ReadMuonMomentum(const Call& call) {
  constexpr char kName[] = "muon_momentum";
  if (absl::Status status = CheckLists(call, kName, "grads", "momenta", true);
      !status.ok())
    return status;
  MuonMomentumOptions options;
  options.momentum = Scalar(call, "momentum", 0.95);
  if (!(options.momentum >= 0 && options.momentum < 1))
    return Wrong(kName, absl::StrCat("momentum is ", options.momentum,
                                     "; it lies in [0, 1)"));
  const std::string form = Text(call, "form", "torch");
  if (form != "torch" && form != "ema")
    return Wrong(kName,
                 absl::StrCat("form is '", form, "'; it is 'torch' or 'ema'"));
  options.ema = form == "ema";
  options.nesterov = Scalar(call, "nesterov", 1) != 0;
  options.divisor = Scalar(call, "divisor", 1);
  if (const auto factor = call.tensors.find("factor");
      factor != call.tensors.end()) {
    if (factor->second.size() != 1 ||
        factor->second[0].element != Element::kF32)
      return Wrong(kName, "factor is not one f32");
    options.factor = static_cast<const float*>(factor->second[0].data);
  }
  return options;
}

absl::StatusOr<MuonApplyOptions> ReadMuonApply(const Call& call) {
  constexpr char kName[] = "muon_apply";
  if (absl::Status status = CheckLists(call, kName, "params", "updates", false);
      !status.ok())
    return status;
  if (call.scalars.count("lr") == 0) return Wrong(kName, "needs lr");
  const double lr = Scalar(call, "lr", 0) * Scalar(call, "lr_scale", 1);
  MuonApplyOptions options;
  options.decay = 1 - lr * Scalar(call, "weight_decay", 0);
  const std::string scale = Text(call, "scale", "match_rms");
  for (const Operand& update : call.tensors.at("updates")) {
    if (update.sizes.size() < 2)
      return Wrong(kName, "needs updates of two or more dimensions");
    const double rows =
                     static_cast<double>(update.sizes[update.sizes.size() - 2]),
                 columns = static_cast<double>(update.sizes.back());
    double factor = 1;
    if (scale == "match_rms") {
      factor = 0.2 * std::sqrt(std::max(rows, columns));
    } else if (scale == "original") {
      factor = std::sqrt(std::max(1.0, rows / columns));
    } else if (scale == "spectral") {
      factor = std::sqrt(rows / columns);
    } else if (scale != "none") {
      return Wrong(kName, absl::StrCat("scale is '", scale,
                                       "'; it is match_rms, original, "
                                       "spectral or none"));
    }
    options.factors.push_back(-lr * factor);
  }
  return options;
}

}  // namespace heddle::kernels
