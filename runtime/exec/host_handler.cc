// The guard: a value that the model's host code asked for while the step was
// captured must be the same in every batch, or the captured program is the
// wrong one.

#include "runtime/exec/host_handler.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace heddle::exec {
namespace {

template <typename T>
int64_t Load(const char* address) {
  T element;
  std::memcpy(&element, address, sizeof(element));
  return static_cast<int64_t>(element);
}

absl::StatusOr<int64_t> LoadInteger(plan::DType dtype, const char* address) {
  switch (dtype) {
    case plan::DType::kBool:
      return Load<uint8_t>(address) != 0 ? 1 : 0;
    case plan::DType::kU8:
      return Load<uint8_t>(address);
    case plan::DType::kI8:
      return Load<int8_t>(address);
    case plan::DType::kI16:
      return Load<int16_t>(address);
    case plan::DType::kI32:
      return Load<int32_t>(address);
    case plan::DType::kI64:
      return Load<int64_t>(address);
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("a guard on a ", plan::DTypeName(dtype),
                       " value; only bools and integers can be guarded"));
  }
}

class GuardStep final : public PreparedStep {
 public:
  GuardStep(const plan::Value& value, const char* address,
            std::vector<int64_t> expected, device::Device& device)
      : value_(value),
        address_(address),
        expected_(std::move(expected)),
        device_(device),
        host_(BytesOf(value).end - BytesOf(value).begin) {}

  absl::Status Execute(const RunContext&, device::Stream* stream) override {
    if (stream != nullptr && std::string(device_.target()) != "cpu") {
      if (absl::Status status = stream->Synchronize(); !status.ok())
        return status;
    }
    if (absl::Status status =
            device_.CopyToHost(host_.data(), address_, host_.size());
        !status.ok())
      return status;
    std::vector<int64_t> found;
    const int64_t count = plan::ElementCount(value_);
    for (int64_t n = 0; n < count; ++n) {
      int64_t rest = n;
      int64_t at = 0;
      for (size_t d = value_.sizes.size(); d-- > 0;) {
        at += rest % value_.sizes[d] * value_.strides[d];
        rest /= value_.sizes[d];
      }
      absl::StatusOr<int64_t> element = LoadInteger(
          value_.dtype, host_.data() + at * plan::ElementSize(value_.dtype));
      if (!element.ok()) return element.status();
      found.push_back(*element);
    }
    if (found == expected_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "guard: this batch gives [", absl::StrJoin(found, ", "),
        "] where the captured one gave [", absl::StrJoin(expected_, ", "),
        "]; compile another plan from a batch like this one"));
  }

 private:
  const plan::Value& value_;
  const char* address_;
  std::vector<int64_t> expected_;
  device::Device& device_;
  std::vector<char> host_;
};

class HostHandler final : public StepHandler {
 public:
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const Memory& memory) override {
    if (step.name != "guard")
      return absl::UnimplementedError(
          absl::StrCat("this runtime has no host handler '", step.name, "'"));
    const plan::Arg* value = nullptr;
    const plan::Arg* expected = nullptr;
    for (const plan::Arg& arg : step.args) {
      if (arg.name == "value" && arg.kind == plan::ArgKind::kValue)
        value = &arg;
      if (arg.name == "expected" && arg.kind == plan::ArgKind::kIntList)
        expected = &arg;
    }
    if (value == nullptr || expected == nullptr)
      return absl::InvalidArgumentError(
          "a guard needs the arguments value (a tensor) and expected "
          "(integers)");
    const uint32_t index = static_cast<uint32_t>(value->i);
    const plan::Value& v = plan.values[index];
    if (static_cast<uint64_t>(plan::ElementCount(v)) != expected->ints.size())
      return absl::InvalidArgumentError(
          absl::StrCat("a guard on ", plan::ElementCount(v),
                       " elements expects ", expected->ints.size()));
    return std::unique_ptr<PreparedStep>(new GuardStep(
        v, memory.Address(index), expected->ints, memory.device()));
  }
};

}  // namespace

std::shared_ptr<StepHandler> CreateHostHandler() {
  return std::make_shared<HostHandler>();
}

}  // namespace heddle::exec
