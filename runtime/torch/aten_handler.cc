// ATen steps: the operator, called boxed, with its results born where the plan
// wants them.

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/torch/aten_args.h"
#include "runtime/torch/drawn_state.h"
#include "runtime/torch/handlers.h"

namespace heddle::torch_runtime {
namespace {

// Strides mean nothing in a dimension of one element, and nothing at all in a
// tensor without elements.
bool SameLayout(const at::Tensor& tensor, const plan::Value& value) {
  if (tensor.numel() == 0) return true;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1 &&
        tensor.stride(d) != value.strides[static_cast<size_t>(d)])
      return false;
  }
  return true;
}

std::string List(c10::ArrayRef<int64_t> ints) {
  return absl::StrCat("[", absl::StrJoin(ints.begin(), ints.end(), ", "), "]");
}

// Replay draws from the default generator in recorded order. A step that a
// checkpoint runs again, or that repeats a dropout in backward, carries the
// same id as the first one and must draw the same numbers, after which the
// sequence goes on where it was.
class ReplayedDraws {
 public:
  explicit ReplayedDraws(c10::Device device) : device_(device) {}

  void Begin(const plan::Section& section) {
    std::set<int32_t> seen;
    states_.clear();
    repeated_.clear();
    for (const plan::Step& step : section.steps) {
      if (step.rng_id >= 0 && !seen.insert(step.rng_id).second)
        repeated_.insert(step.rng_id);
    }
  }

  void BeforeDraw(int32_t rng_id) {
    if (repeated_.count(rng_id) == 0) return;
    at::Generator generator = at::globalContext().defaultGenerator(device_);
    std::lock_guard<std::mutex> lock(generator.mutex());
    auto [state, first] = states_.try_emplace(rng_id, generator.clone());
    if (first) return;
    resume_ = generator.clone();
    generator.set_state(state->second.get_state());
  }

  void AfterDraw() {
    if (!resume_.has_value()) return;
    at::Generator generator = at::globalContext().defaultGenerator(device_);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(resume_->get_state());
    resume_.reset();
  }

 private:
  c10::Device device_;
  std::set<int32_t> repeated_;
  std::map<int32_t, at::Generator> states_;
  std::optional<at::Generator> resume_;
};

// The process has one CPU generator, and training steps of several ranks and
// streams draw from it: each has it to itself, with its own seed, and gives it
// back as it was, so that the user's own sequence of random numbers does not
// notice.
class BorrowedGenerator {
 public:
  explicit BorrowedGenerator(bool borrow) {
    if (!borrow) return;
    static std::mutex& turn = *new std::mutex();
    turn_ = std::unique_lock<std::mutex>(turn);
    at::Generator generator = Default();
    std::lock_guard<std::mutex> lock(generator.mutex());
    saved_ = generator.clone();
  }
  ~BorrowedGenerator() {
    if (!saved_.has_value()) return;
    at::Generator generator = Default();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(saved_->get_state());
  }

 private:
  static at::Generator Default() {
    return at::globalContext().defaultGenerator(
        c10::Device(c10::DeviceType::CPU));
  }

  std::unique_lock<std::mutex> turn_;
  std::optional<at::Generator> saved_;
};

class AtenStep final : public exec::PreparedStep {
 public:
  AtenStep(std::shared_ptr<Shared> shared, c10::OperatorHandle op,
           BoxedArgs args, std::optional<DrawnState> drawn,
           const plan::Plan& plan, const plan::Step& step, TensorTable& tensors,
           bool seed_random, std::shared_ptr<ReplayedDraws> draws)
      : shared_(std::move(shared)),
        op_(std::move(op)),
        args_(std::move(args)),
        drawn_(drawn),
        plan_(plan),
        step_(step),
        seed_random_(seed_random && step.rng_id >= 0),
        draws_(seed_random || step.rng_id < 0 ? nullptr : std::move(draws)) {
    for (int32_t value : step.results)
      results_.push_back(value < 0 ? at::Tensor()
                                   : tensors.at(static_cast<uint32_t>(value)));
  }

  absl::Status Execute(const exec::RunContext& context,
                       device::Stream* stream) override {
    stack_.clear();
    stack_.insert(stack_.end(), args_.stack.begin(), args_.stack.end());
    for (const RuntimeArg& arg : args_.runtime) {
      absl::StatusOr<double> value = exec::RuntimeScalar(context, arg.scalar);
      if (!value.ok()) return value.status();
      stack_[arg.index] = arg.integer
                              ? c10::IValue(static_cast<int64_t>(*value))
                              : c10::IValue(*value);
    }
    if (draws_ != nullptr) draws_->BeforeDraw(step_.rng_id);
    BorrowedGenerator borrowed(seed_random_ && !shared_->device.is_cuda());
    absl::Status status = RunScoped(
        *shared_, learned_, stream,
        [&](Scope& scope, bool first) {
          // Results must be gone before the scope ends: what they hold belongs
          // to it.
          struct Clear {
            std::vector<c10::IValue>& stack;
            ~Clear() { stack.clear(); }
          } clear{stack_};
          if (seed_random_) {
            at::Generator generator =
                at::globalContext().defaultGenerator(shared_->device);
            std::lock_guard<std::mutex> lock(generator.mutex());
            generator.set_current_seed(RandomSeed(context.seed, context.step,
                                                  context.micro, step_.rng_id));
          }
          if (drawn_.has_value()) drawn_->Give(shared_->device, stack_);
          op_.callBoxed(stack_);
          std::vector<at::Tensor> outputs;
          if (absl::Status status = Flatten(&outputs); !status.ok())
            return status;
          return first ? Learn(outputs, scope) : Check(outputs);
        },
        learned_.done || !shared_->device.is_cuda() ? std::vector<Expected>()
                                                    : ExpectedResults());
    if (draws_ != nullptr) draws_->AfterDraw();
    return status;
  }

 private:
  absl::Status Flatten(std::vector<at::Tensor>* outputs) {
    for (const c10::IValue& value : stack_) {
      if (value.isTensor()) {
        outputs->push_back(value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector())
          outputs->push_back(tensor);
      } else if (value.isNone()) {
        outputs->emplace_back();
      } else if (value.isInt() || value.isSymInt()) {
        // Sizes, which capture already has as constants (max_q of attention).
      } else {
        return absl::UnimplementedError(
            absl::StrCat("the operator returned a ", value.tagKind(),
                         "; only tensors can be results of a step"));
      }
    }
    if (outputs->size() == results_.size()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(
        "the operator returned ", outputs->size(), " tensors and the plan has ",
        results_.size(), " results"));
  }

  // Results that have a buffer of their own: what the step allocates for them
  // may lie there at once. The buffer of an argument may not be touched before
  // the argument is read. Only on a GPU: on the CPU some operators free what
  // they allocate by its bare address, which a planned one must never be.
  std::vector<Expected> ExpectedResults() const {
    std::set<uint32_t> arguments;
    for (const plan::Arg& arg : step_.args) {
      if (arg.kind == plan::ArgKind::kValue)
        arguments.insert(plan_.values[static_cast<size_t>(arg.i)].buffer);
      if (arg.kind != plan::ArgKind::kValueList) continue;
      for (int64_t value : arg.ints) {
        if (value >= 0)
          arguments.insert(plan_.values[static_cast<size_t>(value)].buffer);
      }
    }
    std::vector<Expected> expected;
    for (size_t r = 0; r < results_.size(); ++r) {
      if (!results_[r].defined() || results_[r].numel() == 0) continue;
      const plan::Value& value =
          plan_.values[static_cast<size_t>(step_.results[r])];
      const plan::Buffer& buffer = plan_.buffers[value.buffer];
      if (value.offset != 0 || !plan::IsDense(value) ||
          buffer.bytes != results_[r].nbytes() ||
          arguments.count(value.buffer) != 0)
        continue;
      expected.push_back(
          {results_[r].nbytes(), static_cast<char*>(results_[r].data_ptr())});
    }
    return expected;
  }

  // First run: check what came back against the plan, learn which allocation it
  // is, and put the bytes where the plan wants them.
  absl::Status Learn(const std::vector<at::Tensor>& outputs, Scope& scope) {
    std::vector<int> placed;
    std::vector<size_t> pending;
    for (size_t r = 0; r < outputs.size(); ++r) {
      const at::Tensor& planned = results_[r];
      if (!planned.defined()) continue;
      const at::Tensor& output = outputs[r];
      const plan::Value& value =
          plan_.values[static_cast<size_t>(step_.results[r])];
      if (!output.defined())
        return absl::InternalError(absl::StrCat(
            "result ", r, " is undefined and the plan has a value for it"));
      if (output.scalar_type() != planned.scalar_type() ||
          output.sizes() != planned.sizes())
        return absl::InternalError(absl::StrCat(
            "result ", r, " is ", c10::toString(output.scalar_type()),
            List(output.sizes()), " and the plan says ",
            c10::toString(planned.scalar_type()), List(planned.sizes())));
      if (!SameLayout(output, value))
        return absl::InternalError(
            absl::StrCat("result ", r, " has strides ", List(output.strides()),
                         " and the plan says ", List(value.strides),
                         "; capture on this kind of CPU again"));
      if (output.numel() == 0) continue;
      const char* base = static_cast<const char*>(output.storage().data());
      const int index = scope.Find(base);
      const bool there = output.data_ptr() == planned.data_ptr();
      if (index < 0 && there) continue;  // written in place
      if (index < 0)
        return absl::UnimplementedError(absl::StrCat(
            "result ", r,
            " is a view of memory that the step did not allocate and the plan "
            "has another place for it; the plan needs a Copy step here"));
      char* address = static_cast<char*>(planned.data_ptr()) -
                      (static_cast<const char*>(output.data_ptr()) - base);
      const Recorded& allocation = scope.recorded()[static_cast<size_t>(index)];
      const plan::Buffer& buffer = plan_.buffers[value.buffer];
      const char* buffer_base =
          static_cast<const char*>(planned.storage().data());
      if (address < buffer_base ||
          address + allocation.size > buffer_base + buffer.bytes)
        return absl::InternalError(
            absl::StrCat("result ", r, " comes in an allocation of ",
                         allocation.size, " bytes and the plan has buffer ",
                         value.buffer, " of ", buffer.bytes, " bytes for it"));
      Placement placement{allocation.size, 0, address};
      for (int i = 0; i < index; ++i)
        placement.ordinal +=
            scope.recorded()[static_cast<size_t>(i)].size == allocation.size;
      for (const Placement& other : learned_.placements) {
        if (other.size == placement.size &&
            other.ordinal == placement.ordinal &&
            other.address != placement.address)
          return absl::UnimplementedError(
              absl::StrCat("result ", r,
                           " shares an allocation with another result and the "
                           "plan has them apart"));
      }
      learned_.placements.push_back(placement);
      placed.push_back(index);
      if (!there) pending.push_back(r);
    }
    learned_.workspace_bytes = scope.PeakWithout(placed);
    // Only now: a planned place may be the place of an argument that another
    // result still views. And all of them aside first: results of one size may
    // have been guessed into each other's places.
    std::vector<at::Tensor> aside;
    for (size_t r : pending)
      aside.push_back(pending.size() > 1 ? outputs[r].clone() : outputs[r]);
    for (size_t i = 0; i < pending.size(); ++i) {
      results_[pending[i]].copy_(aside[i]);
      shared_->counters.warmup_copied_bytes += aside[i].nbytes();
    }
    return absl::OkStatus();
  }

  absl::Status Check(const std::vector<at::Tensor>& outputs) {
    for (size_t r = 0; r < outputs.size(); ++r) {
      const at::Tensor& planned = results_[r];
      if (!planned.defined() || planned.numel() == 0) continue;
      const at::Tensor& output = outputs[r];
      const plan::Value& value =
          plan_.values[static_cast<size_t>(step_.results[r])];
      if (output.defined() && output.data_ptr() == planned.data_ptr() &&
          output.sizes() == planned.sizes() && SameLayout(output, value))
        continue;
      shared_->counters.unplanned_copies += 1;
      return absl::InternalError(
          absl::StrCat("result ", r,
                       " was not born at its planned address; the operator "
                       "allocates differently from its first run"));
    }
    return absl::OkStatus();
  }

  std::shared_ptr<Shared> shared_;
  c10::OperatorHandle op_;
  BoxedArgs args_;
  std::optional<DrawnState> drawn_;
  const plan::Plan& plan_;
  const plan::Step& step_;
  bool seed_random_;
  std::shared_ptr<ReplayedDraws> draws_;  // Null outside replay.
  std::vector<at::Tensor> results_;
  std::vector<c10::IValue> stack_;
  Learned learned_;
};

class AtenHandler final : public exec::StepHandler {
 public:
  AtenHandler(std::shared_ptr<Shared> shared, bool seed_random)
      : shared_(std::move(shared)), seed_random_(seed_random) {}

  absl::StatusOr<std::unique_ptr<exec::PreparedStep>> Prepare(
      const plan::Plan& plan, const plan::Section&, const plan::Step& step,
      const exec::Memory& memory) override {
    const size_t colons = step.name.find("::");
    const size_t dot =
        step.name.find('.', colons == std::string::npos ? 0 : colons);
    c10::OperatorName name(
        step.name.substr(0, dot),
        dot == std::string::npos ? "" : step.name.substr(dot + 1));
    // The overload without a name is written "default" in Python.
    if (name.overload_name == "default") name.overload_name = "";
    std::optional<c10::OperatorHandle> op =
        c10::Dispatcher::singleton().findSchema(name);
    if (!op.has_value())
      return absl::NotFoundError(absl::StrCat(
          "this torch has no operator ", step.name,
          "; load the library that defines it, or compile with this torch"));
    TensorTable& tensors = shared_->tensors(plan, memory);
    absl::StatusOr<BoxedArgs> args =
        BoxArgs(op->schema(), step, tensors, shared_->device);
    if (!args.ok()) return args.status();
    absl::StatusOr<std::optional<DrawnState>> drawn = DrawnState::Of(*op, step);
    if (!drawn.ok()) return drawn.status();
    return std::unique_ptr<exec::PreparedStep>(
        new AtenStep(shared_, *op, *std::move(args), *drawn, plan, step,
                     tensors, seed_random_, draws_));
  }

  // On a GPU, where one executable draws, the generator is borrowed for a whole
  // run.
  absl::Status BeginRun(const plan::Section& section,
                        const exec::RunContext& context) override {
    shared_->capturing = context.capturing;
    saved_.reset();
    if (!seed_random_) {
      draws_->Begin(section);
      return absl::OkStatus();
    }
    if (!shared_->device.is_cuda()) return absl::OkStatus();
    for (const plan::Step& step : section.steps) {
      if (step.rng_id < 0) continue;
      at::Generator generator =
          at::globalContext().defaultGenerator(shared_->device);
      std::lock_guard<std::mutex> lock(generator.mutex());
      saved_ = generator.clone();
      break;
    }
    return absl::OkStatus();
  }
  uint64_t MemoryVersion() const override { return shared_->memory_version(); }
  absl::Status EndRun(const plan::Section&) override {
    shared_->capturing = false;
    if (absl::Status status = shared_->ReserveWorkspaces(); !status.ok())
      return status;
    if (!saved_.has_value()) return absl::OkStatus();
    at::Generator generator =
        at::globalContext().defaultGenerator(shared_->device);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(saved_->get_state());
    saved_.reset();
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<Shared> shared_;
  bool seed_random_;
  std::shared_ptr<ReplayedDraws> draws_ =
      std::make_shared<ReplayedDraws>(shared_->device);
  std::optional<at::Generator> saved_;
};

}  // namespace

std::shared_ptr<exec::StepHandler> CreateAtenHandler(
    std::shared_ptr<Shared> shared, bool seed_random) {
  return std::make_shared<AtenHandler>(std::move(shared), seed_random);
}

}  // namespace heddle::torch_runtime
