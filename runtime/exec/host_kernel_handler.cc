// Host references of the registry, called as the plan says.

#include "runtime/exec/host_kernel_handler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/registry.h"
#include "runtime/exec/kernel_call.h"

namespace heddle::exec {
namespace {

class HostKernelStep final : public PreparedStep {
 public:
  HostKernelStep(kernels::Launch launch, KernelCall call)
      : launch_(launch), call_(std::move(call)) {}

  absl::Status Execute(const RunContext& context, device::Stream*) override {
    if (absl::Status status = call_.FillIn(context); !status.ok())
      return status;
    return launch_(call_.call);
  }

 private:
  kernels::Launch launch_;
  KernelCall call_;
};

class HostKernelHandler final : public StepHandler {
 public:
  absl::StatusOr<std::unique_ptr<PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const Memory& memory) override {
    const kernels::Kernel* kernel = kernels::Find(step.name);
    if (kernel == nullptr || kernel->host == nullptr)
      return absl::UnimplementedError(
          absl::StrCat("this runtime has no host kernel '", step.name,
                       "'; it has ", kernels::KnownNames()));
    // The references of what runs here walk their tensors in memory order.
    absl::StatusOr<KernelCall> call =
        ReadKernelCall(plan, step, memory, Gaps::kRefused);
    if (!call.ok()) return call.status();
    return std::unique_ptr<PreparedStep>(
        new HostKernelStep(kernel->host, *std::move(call)));
  }
};

}  // namespace

std::shared_ptr<StepHandler> CreateHostKernelHandler() {
  return std::make_shared<HostKernelHandler>();
}

}  // namespace heddle::exec
