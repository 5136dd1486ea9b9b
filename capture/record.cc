// Swaps the bytes of a module's tensors for trace storages, runs the step and
// its backward on this thread, prints the tape. See record.h.
#include "capture/record.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <c10/core/AutogradState.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/instancenorm.h>
#include <torch/nn/modules/normalization.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <unordered_map>

#include "absl/status/status.h"
#include "capture/print.h"
#include "capture/session.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

thread_local std::string current_path;

constexpr std::pair<const char*, at::ScalarType> kPrecisions[] = {
    {"fp64", at::kDouble},
    {"fp32", at::kFloat},
    {"bf16", at::kBFloat16},
    {"fp16", at::kHalf}};

// Autograd takes a backward to other threads where it may; a session hears only
// its own.
struct SingleThreaded {
  bool saved = c10::AutogradState::get_tls_state().get_multithreading_enabled();
  SingleThreaded() {
    c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
  }
  ~SingleThreaded() {
    c10::AutogradState::get_tls_state().set_multithreading_enabled(saved);
  }
};

// Every tensor that a module registered, once, with all its names.
struct Registered {
  at::Tensor tensor;
  std::vector<std::string> names;
  std::string role;
  bool parameter;
};

template <typename... Modules>
bool IsAny(const torch::nn::Module& module) {
  return ((dynamic_cast<const Modules*>(&module) != nullptr) || ...);
}

std::string RoleOf(const torch::nn::Module& module, const std::string& path,
                   const std::string& name, const at::Tensor& tensor) {
  using namespace torch::nn;  // NOLINT: a list of its classes.
  if (IsAny<EmbeddingImpl>(module)) return "embedding";
  if (path == "lm_head" || path == "embed_out")
    return tensor.dim() >= 2 ? "head" : "bias";
  if (IsAny<LayerNormImpl, GroupNormImpl, BatchNorm1dImpl, BatchNorm2dImpl,
            BatchNorm3dImpl, InstanceNorm1dImpl, InstanceNorm2dImpl,
            InstanceNorm3dImpl>(module))
    return "norm";
  if (name.find("bias") != std::string::npos) return "bias";
  return tensor.dim() == 2 ? "matrix" : tensor.dim() == 3 ? "stack" : "other";
}

std::vector<Registered> RegisteredTensors(const torch::nn::Module& root) {
  std::vector<Registered> all;
  std::unordered_map<const c10::TensorImpl*, size_t> known;
  auto visit = [&](const torch::nn::Module& module, const std::string& path) {
    auto add = [&](const std::string& name, const at::Tensor& tensor,
                   bool parameter) {
      if (!tensor.defined()) return;
      std::string full = path.empty() ? name : path + "." + name;
      TORCH_CHECK(tensor.layout() == at::kStrided && !tensor.is_nested(),
                  "heddle.capture: '", full,
                  "' is sparse or nested; the captured step must be dense");
      auto [it, fresh] =
          known.try_emplace(tensor.unsafeGetTensorImpl(), all.size());
      if (fresh)
        all.push_back({tensor,
                       {},
                       parameter ? RoleOf(module, path, name, tensor) : "",
                       parameter});
      std::vector<std::string>& names = all[it->second].names;
      if (std::find(names.begin(), names.end(), full) == names.end())
        names.push_back(full);
    };
    for (const auto& item : module.named_parameters(/*recurse=*/false))
      add(item.key(), item.value(), true);
    for (const auto& item : module.named_buffers(/*recurse=*/false))
      add(item.key(), item.value(), false);
  };
  visit(root, "");
  // Submodules with their full paths; named_modules() would name a shared
  // module once per place too.
  std::function<void(const torch::nn::Module&, const std::string&)> descend =
      [&](const torch::nn::Module& module, const std::string& path) {
        for (const auto& child : module.named_children()) {
          std::string full =
              path.empty() ? child.key() : path + "." + child.key();
          visit(*child.value(), full);
          descend(*child.value(), full);
        }
      };
  descend(root, "");
  return all;
}

// The module's tensors hold trace storages while this lives. Members of module
// classes and the registry share TensorImpls, so it is the impls that are
// changed.
class TracedState {
 public:
  TracedState() = default;
  // May raise half way: the destructor puts back what was swapped.
  void Swap(Session& session, const std::vector<Registered>& tensors,
            at::ScalarType precision) {
    for (const Registered& entry : tensors) {
      at::Tensor tensor = entry.tensor;
      at::Tensor trace;
      if (entry.parameter) {
        at::ScalarType dtype =
            tensor.is_floating_point() ? precision : tensor.scalar_type();
        trace = session.AddParameter(tensor.sizes(), tensor.strides(), dtype,
                                     entry.names, tensor.requires_grad(),
                                     entry.role);
      } else {
        trace = session.AddBuffer(tensor, entry.names[0], /*persistent=*/true);
      }
      saved_.push_back({tensor, tensor.tensor_data(), tensor.grad()});
      if (tensor.is_leaf()) tensor.mutable_grad().reset();
      tensor.set_data(trace);
    }
  }
  ~TracedState() {
    for (Saved& entry : saved_) {
      if (entry.tensor.is_leaf()) entry.tensor.mutable_grad().reset();
      entry.tensor.set_data(entry.data);
      if (entry.grad.defined()) entry.tensor.mutable_grad() = entry.grad;
    }
  }
  TracedState(const TracedState&) = delete;
  TracedState& operator=(const TracedState&) = delete;

 private:
  struct Saved {
    at::Tensor tensor, data, grad;
  };
  std::vector<Saved> saved_;
};

std::string ParentOf(const std::string& name) {
  size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

// torch::nn has no global hooks, so an operator outside of every Scope takes
// the path of the module whose parameter it reads, and its backward the same.
void NameByParameters(Tape& tape) {
  std::unordered_map<int32_t, std::string> owners;
  for (const Binding& binding : tape.bindings) {
    if (binding.kind == Binding::Kind::kParameter ||
        binding.kind == Binding::Kind::kBuffer)
      owners[tape.values[binding.value].storage] = ParentOf(binding.names[0]);
  }
  std::unordered_map<std::string, int32_t> scopes;
  for (size_t i = 0; i < tape.scopes.size(); ++i)
    scopes[tape.scopes[i]] = static_cast<int32_t>(i);
  std::unordered_map<int64_t, int32_t> of_node;
  for (OpRecord& op : tape.ops) {
    if (op.scope != 0) continue;
    if (op.phase == Phase::kForward) {
      for (const Argument& argument : op.arguments) {
        for (ValueId id : argument.values) {
          auto owner =
              id < 0 ? owners.end() : owners.find(tape.values[id].storage);
          if (op.scope != 0 || owner == owners.end() || owner->second.empty())
            continue;
          auto [scope, fresh] = scopes.try_emplace(
              owner->second, static_cast<int32_t>(tape.scopes.size()));
          if (fresh) tape.scopes.push_back(owner->second);
          op.scope = scope->second;
        }
      }
      if (op.node >= 0) of_node[op.node] = op.scope;
    } else if (auto forward = of_node.find(op.node); forward != of_node.end()) {
      op.scope = forward->second;
    }
  }
}

Program RecordOrRaise(const StepFunction& step, const RecordOptions& options) {
  TORCH_CHECK(options.module != nullptr,
              "heddle.capture: RecordOptions::module is null; give the module "
              "whose parameters the step uses");
  TORCH_CHECK(step != nullptr,
              "heddle.capture: there is no step function to record");
  TORCH_CHECK(options.target == "cpu" || options.target == "cuda",
              "heddle.capture: unknown target '", options.target,
              "'; known are cpu and cuda");
  TORCH_CHECK(Session::Current() == nullptr,
              "heddle.capture: a capture is already running on this thread");
  RegisterTraceDevice();
  std::vector<Registered> tensors = RegisteredTensors(*options.module);

  std::string precision = options.precision;
  for (const Registered& entry : tensors) {
    if (!precision.empty() || !entry.parameter ||
        !entry.tensor.is_floating_point())
      continue;
    for (const auto& [name, dtype] : kPrecisions) {
      if (dtype == entry.tensor.scalar_type()) precision = name;
    }
  }
  if (precision.empty()) precision = "fp32";
  const auto* known =
      std::find_if(std::begin(kPrecisions), std::end(kPrecisions),
                   [&](const auto& entry) { return entry.first == precision; });
  TORCH_CHECK(known != std::end(kPrecisions),
              "heddle.capture: unknown precision '", precision,
              "'; known are fp64, fp32, bf16, fp16");

  at::Tensor generator =
      at::globalContext().defaultGenerator(at::kCPU).get_state();
  SingleThreaded single_threaded;
  at::AutoGradMode gradients(options.backward);
  Session session({options.target, precision, nullptr});
  Tape tape;
  {
    TracedState state;
    state.Swap(session, tensors, known->second);
    std::vector<at::Tensor> batch;
    for (const auto& [name, tensor] : options.batch) {
      TORCH_CHECK(tensor.defined(), "heddle.capture: the batch entry '", name,
                  "' is no tensor");
      batch.push_back(session.AddInput(tensor, name));
    }
    at::Tensor loss = step(batch);
    TORCH_CHECK(
        loss.defined() && loss.numel() == 1,
        "heddle.capture: the step must return a scalar loss, but returned ",
        loss.defined()
            ? "a tensor of " + std::to_string(loss.numel()) + " elements"
            : "nothing");
    session.AddResult("loss", "", loss.detach());
    if (options.backward) {
      TORCH_CHECK(loss.requires_grad(),
                  "heddle.capture: the loss does not depend on a parameter "
                  "that requires a gradient; record it with backward = false");
      session.SetPhase(Phase::kBackward);
      loss.backward();
      for (const Registered& entry : tensors) {
        if (entry.parameter && entry.tensor.grad().defined())
          session.AddResult("gradient", entry.names[0], entry.tensor.grad());
      }
    }
    session.CheckGenerators();
    tape = session.Finish();
  }
  TORCH_CHECK(
      at::equal(generator,
                at::globalContext().defaultGenerator(at::kCPU).get_state()),
      "heddle.capture: the step drew from torch's host generator: the drawn "
      "numbers would be the same in every step. Draw on the device of the "
      "step's tensors, or pass the numbers in the batch");
  NameByParameters(tape);
  Program program;
  for (const Binding& binding : tape.bindings) {
    if (binding.data.defined())
      program.constants[binding.names[0]] = binding.data;
  }
  program.text = PrintTape(tape);
  return program;
}

}  // namespace

Scope::Scope(const std::string& name) : outer_length_(current_path.size()) {
  if (!current_path.empty()) current_path += '.';
  current_path += name;
  if (Session* session = Session::Current())
    session->PushScope(session->InternScope(current_path));
}

Scope::~Scope() {
  current_path.resize(outer_length_);
  if (Session* session = Session::Current()) session->PopScope();
}

absl::StatusOr<Program> Record(const StepFunction& step,
                               const RecordOptions& options) {
  try {
    return RecordOrRaise(step, options);
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        std::string("heddle.capture: the step raised: ") + error.what());
  } catch (...) {
    return absl::InvalidArgumentError(
        "heddle.capture: the step raised something that is no std::exception");
  }
}

}  // namespace heddle::capture
