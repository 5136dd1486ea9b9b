// Registers loss_scale, and reads its arguments, which the device code shares.

#include "absl/strings/str_cat.h"
#include "kernels/loss_scale_call.h"

namespace heddle::kernels {

absl::StatusOr<LossScale> ReadLossScale(const Call& call) {
  const auto wrong = [](const char* what) {
    return absl::InvalidArgumentError(
        absl::StrCat("kernel loss_scale needs ", what));
  };
  const auto scalar = [&](const char* name) {
    const auto it = call.scalars.find(name);
    return it == call.scalars.end() ? 0.0 : it->second;
  };
  const auto norm = call.tensors.find("norm");
  if (norm == call.tensors.end() || norm->second.size() != 1 ||
      (norm->second[0].element != Element::kF32 &&
       norm->second[0].element != Element::kF64))
    return wrong("norm of f32 or f64");
  const Element wide = norm->second[0].element;
  const auto state = call.tensors.find("state");
  const std::vector<Operand> none;
  const std::vector<Operand>& old =
      state == call.tensors.end() ? none : state->second;
  const Element state_elements[] = {Element::kF32, Element::kI64,
                                    Element::kI64};
  const Element result_elements[] = {
      wide, wide, Element::kF32, Element::kBool, Element::kF32, Element::kBool};
  if (!old.empty() && old.size() != 3)
    return wrong("a state of three tensors, or none");
  if (call.results.size() != 6 + old.size())
    return wrong("six results and the state");
  for (size_t i = 0; i < call.results.size(); ++i) {
    const Operand& result = call.results[i];
    const bool is_state = i >= 6;
    if (result.data == nullptr || result.count != 1 ||
        result.element !=
            (is_state ? state_elements[i - 6] : result_elements[i]) ||
        (is_state && (old[i - 6].element != state_elements[i - 6] ||
                      old[i - 6].data != result.data)))
      return wrong(
          "results of one element: norm and factor in the norm's type, an f32, "
          "a bool, an f32, a bool, and the state (f32, i64, i64) in place");
  }
  if (!(scalar("seed") > 0) || !(scalar("initial") > 0))
    return wrong("a positive seed and initial scale");
  LossScale s{};
  s.norm = norm->second[0].data;
  if (!old.empty()) {
    s.scale = static_cast<float*>(old[0].data);
    s.good_steps = static_cast<long long*>(old[1].data);
    s.borne = static_cast<long long*>(old[2].data);
  }
  s.result_norm = call.results[0].data;
  s.factor = call.results[1].data;
  s.inverse = static_cast<float*>(call.results[2].data);
  s.finite = static_cast<unsigned char*>(call.results[3].data);
  s.used = static_cast<float*>(call.results[4].data);
  s.exhausted = static_cast<unsigned char*>(call.results[5].data);
  s.initial = scalar("initial");
  s.seed = scalar("seed");
  s.max_norm = scalar("max_norm");
  s.min_scale = scalar("min_scale");
  s.window = static_cast<long long>(scalar("window"));
  s.hysteresis = static_cast<long long>(scalar("hysteresis"));
  s.consecutive = scalar("consecutive_hysteresis") != 0;
  s.wide = wide == Element::kF64;
  return s;
}

namespace {

absl::Status LossScaleOnHost(const Call& call) {
  absl::StatusOr<LossScale> scale = ReadLossScale(call);
  if (!scale.ok()) return scale.status();
  if (scale->wide) {
    UpdateLossScale<double>(*scale);
  } else {
    UpdateLossScale<float>(*scale);
  }
  return absl::OkStatus();
}

const Registration kLossScale("loss_scale", &LossScaleOnHost, nullptr);

}  // namespace
}  // namespace heddle::kernels
