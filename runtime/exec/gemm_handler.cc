// The handler, and the engine that multiplies in plain loops: every product and
// the sum over k in double, one rounding to the result's type, then the
// addition in that type.

#include "runtime/exec/gemm_handler.h"

#include <cstring>
#include <utility>

namespace heddle::exec {
namespace {

float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const int exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0x1f) return BitsToFloat(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0)
    return BitsToFloat(sign | static_cast<uint32_t>(exponent + 112) << 23 |
                       mantissa << 13);
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -tiny : tiny;
}

float LoadElement(const char* data, plan::DType dtype, int64_t index) {
  if (dtype == plan::DType::kF32) {
    float value;
    std::memcpy(&value, data + index * 4, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + index * 2, sizeof(bits));
  return dtype == plan::DType::kBF16
             ? BitsToFloat(static_cast<uint32_t>(bits) << 16)
             : HalfToFloat(bits);
}

int64_t IndexOf(const plan::Matrix& matrix, int64_t row, int64_t column) {
  return matrix.row_major ? row * matrix.leading + column
                          : column * matrix.leading + row;
}

class HostGemm final : public PreparedGemm {
 public:
  explicit HostGemm(const GemmProblem& problem) : p_(problem) {}
  absl::Status Run(device::Stream*) override {
    const plan::Gemm& g = p_.shape;
    for (int64_t i = 0; i < g.out.rows; ++i) {
      for (int64_t j = 0; j < g.out.columns; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < g.a.columns; ++l)
          sum += static_cast<double>(
                     LoadElement(p_.a, g.input, IndexOf(g.a, i, l))) *
                 LoadElement(p_.b, g.input, IndexOf(g.b, l, j));
        char* to = p_.out + IndexOf(g.out, i, j) * 4;
        float value = static_cast<float>(sum);
        if (g.accumulate) value += LoadElement(to, plan::DType::kF32, 0);
        std::memcpy(to, &value, sizeof(value));
      }
    }
    return absl::OkStatus();
  }

 private:
  GemmProblem p_;
};

class HostGemmEngine final : public GemmEngine {
 public:
  absl::StatusOr<std::unique_ptr<PreparedGemm>> Prepare(
      const GemmProblem& problem, uint16_t) override {
    return std::unique_ptr<PreparedGemm>(new HostGemm(problem));
  }
};

class GemmStep final : public PreparedStep {
 public:
  explicit GemmStep(std::unique_ptr<PreparedGemm> gemm)
      : gemm_(std::move(gemm)) {}
  absl::Status Execute(const RunContext&, device::Stream* stream) override {
    return gemm_->Run(stream);
  }

 private:
  std::unique_ptr<PreparedGemm> gemm_;
};

class GemmHandler final : public StepHandler {
 public:
  explicit GemmHandler(std::unique_ptr<GemmEngine> engine)
      : engine_(std::move(engine)) {}

  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const Memory& memory) override {
    absl::StatusOr<plan::Gemm> gemm = plan::GemmOf(plan, step);
    if (!gemm.ok()) return gemm.status();
    const GemmProblem problem{*gemm, memory.Address(gemm->a.value),
                              memory.Address(gemm->b.value),
                              memory.Address(gemm->out.value)};
    absl::StatusOr<std::unique_ptr<PreparedGemm>> ready =
        engine_->Prepare(problem, step.stream);
    if (!ready.ok()) return ready.status();
    return std::unique_ptr<PreparedStep>(new GemmStep(*std::move(ready)));
  }
  uint64_t ReservedBytes() const override { return engine_->reserved_bytes(); }

 private:
  std::unique_ptr<GemmEngine> engine_;
};

}  // namespace

std::unique_ptr<GemmEngine> CreateHostGemmEngine() {
  return std::make_unique<HostGemmEngine>();
}

std::shared_ptr<StepHandler> CreateGemmHandler(
    std::unique_ptr<GemmEngine> engine) {
  return std::make_shared<GemmHandler>(std::move(engine));
}

}  // namespace heddle::exec
