// Records operator calls: argument IValues → value numbers and constants,
// results by inference on meta twins. See session.h.
#include "capture/session.h"

#include <ATen/SequenceNumber.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <mutex>

#include "capture/host_allocations.h"
#include "capture/infer.h"
#include "capture/trace_device.h"

namespace heddle::capture {
namespace {

thread_local Session* current_session = nullptr;

bool HasTag(const c10::OperatorHandle& op, at::Tag tag) {
  for (at::Tag t : op.getTags()) {
    if (t == tag) return true;
  }
  return false;
}

// Calls `visit` on every tensor of an IValue that a schema can hold: a tensor,
// a list of tensors, a list of optional tensors.
template <typename Visit>
void ForEachTensor(const c10::IValue& value, Visit visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      if (element.isTensor()) visit(element.toTensor());
    }
  }
}

// Attention kernels are tagged random for their dropout, which is mostly off.
bool DrawsNumbers(const c10::FunctionSchema& schema,
                  const torch::jit::Stack& stack, size_t base) {
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    if (schema.arguments()[i].name() == "dropout_p" &&
        stack[base + i].isDouble())
      return stack[base + i].toDouble() != 0.0;
  }
  return true;
}

// Sees every operator of the thread, also those that work on host tensors only.
std::unique_ptr<at::ObserverContext> SeeGenerators(
    const at::RecordFunction& call) {
  for (const c10::IValue& input : call.inputs()) {
    if (!input.isGenerator() || !input.toGenerator().defined()) continue;
    if (Session* session = Session::Current())
      session->NoteGenerator(call.name());
  }
  return nullptr;
}

bool IsTensorListType(const c10::TypePtr& type) {
  if (type->kind() != c10::TypeKind::ListType) return false;
  c10::TypePtr element = type->castRaw<c10::ListType>()->getElementType();
  if (element->kind() == c10::TypeKind::OptionalType)
    element = element->castRaw<c10::OptionalType>()->getElementType();
  return element->kind() == c10::TypeKind::TensorType;
}

// The overload of `op` that takes a Scalar where it takes a tensor in argument
// `index`: aten::mul.Tensor → aten::mul.Scalar.
std::optional<c10::OperatorHandle> ScalarSibling(const c10::OperatorHandle& op,
                                                 size_t index) {
  static std::mutex mutex;
  static auto* by_name =
      new std::unordered_map<std::string, std::vector<c10::OperatorName>>();
  std::lock_guard<std::mutex> lock(mutex);
  if (by_name->empty()) {
    for (const c10::OperatorName& name :
         c10::Dispatcher::singleton().getAllOpNames())
      (*by_name)[name.name].push_back(name);
  }
  const auto& schema = op.schema();
  for (const c10::OperatorName& name : (*by_name)[op.operator_name().name]) {
    auto handle = c10::Dispatcher::singleton().findSchema(name);
    if (!handle ||
        handle->schema().arguments().size() != schema.arguments().size())
      continue;
    bool matches = true;
    for (size_t i = 0; i < schema.arguments().size() && matches; ++i) {
      const auto& ours = schema.arguments()[i];
      const auto& theirs = handle->schema().arguments()[i];
      bool is_number = theirs.type()->kind() == c10::TypeKind::NumberType;
      matches = i == index ? is_number
                           : *ours.type() == *theirs.type() &&
                                 ours.is_out() == theirs.is_out();
    }
    if (matches) return handle;
  }
  return std::nullopt;
}

}  // namespace

std::string NameOf(const c10::OperatorName& name) {
  return name.overload_name.empty() ? name.name
                                    : name.name + "." + name.overload_name;
}

Session::Session(Options options)
    : options_(std::move(options)),
      host_allocations_(std::make_shared<HostAllocations>()) {
  tape_.target = options_.target;
  tape_.precision = options_.precision;
  tape_.torch_version = std::to_string(TORCH_VERSION_MAJOR) + "." +
                        std::to_string(TORCH_VERSION_MINOR) + "." +
                        std::to_string(TORCH_VERSION_PATCH);
  allocation_guard_ = std::make_unique<c10::DebugInfoGuard>(
      c10::DebugInfoKind::PROFILER_STATE, host_allocations_);
  autocast_ = std::make_unique<AutocastScope>(
      options_.target == "cuda" ? c10::DeviceType::CUDA : c10::DeviceType::CPU);
  generators_seen_ =
      at::addThreadLocalCallback(at::RecordFunctionCallback(&SeeGenerators)
                                     .needsInputs(true)
                                     .scopes({at::RecordScope::FUNCTION}));
  first_sequence_ = last_sequence_ = at::sequence_number::peek();
  RegisterCustomOperators();
  previous_ = current_session;
  current_session = this;
}

Session::~Session() {
  if (!finished_) Finish();
}

Session* Session::Current() { return current_session; }

Tape Session::Finish() {
  if (!finished_) {
    finished_ = true;
    at::removeCallback(generators_seen_);
    allocation_guard_.reset();
    autocast_.reset();
    current_session = previous_;
  }
  tape_.storage_bytes.clear();
  for (const c10::Storage& storage : storages_)
    tape_.storage_bytes.push_back(static_cast<int64_t>(storage.nbytes()));
  return std::move(tape_);
}

int32_t Session::InternScope(const std::string& path) {
  auto [it, fresh] =
      scope_ids_.try_emplace(path, static_cast<int32_t>(tape_.scopes.size()));
  if (fresh) tape_.scopes.push_back(path);
  return it->second;
}

int32_t Session::InternSource(const std::string& file, int64_t line) {
  auto [it, fresh] =
      source_ids_.try_emplace(file + ":" + std::to_string(line),
                              static_cast<int32_t>(tape_.sources.size()));
  if (fresh) tape_.sources.push_back({file, line});
  return it->second;
}

void Session::CheckState(const std::string& op) const {
  TORCH_CHECK(!finished_, "heddle.capture: operator ", op,
              " on a tensor of a capture that has ended");
}

void Session::NoteGenerator(const std::string& op) {
  if (!drawn_.empty() || finished_) return;
  drawn_ = Place(op);
  if (options_.source_of_guard && phase_ == Phase::kForward) {
    const SourceLine& line = tape_.sources[options_.source_of_guard()];
    if (!line.file.empty())
      drawn_ += " of " + line.file + ":" + std::to_string(line.line);
  }
}

void Session::CheckGenerators() const {
  TORCH_CHECK(drawn_.empty(), "heddle.capture: ", drawn_,
              " draws from a generator of its own: the drawn numbers would be "
              "the same in every step. Leave `generator` out and draw on the "
              "device of the step's tensors, or pass the numbers in the batch");
}

void Session::Record(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  CheckState(NameOf(op.operator_name()));
  CheckGenerators();
  if (RecordHostRead(op, stack)) return;
  // A kernel that calls operators of the cast list is what they are in a
  // region; the plan runs kernels outside of any.
  if (op.operator_name().name == "aten::_trilinear" &&
      at::autocast::is_autocast_enabled(autocast_->target())) {
    op.callBoxedForDispatchKey(
        c10::DispatchKey::CompositeExplicitAutogradNonFunctional, *stack);
    return;
  }
  if (HasTag(op, at::Tag::inplace_view)) {
    RecordReshape(op, stack);
    return;
  }
  RecordCall(op, stack);
}

// `x.t_()` gives x the geometry of `x.t()`, and is recorded as that.
void Session::RecordReshape(const c10::OperatorHandle& op,
                            torch::jit::Stack* stack) {
  c10::OperatorName name = op.operator_name();
  at::Tensor self =
      (*stack)[stack->size() - op.schema().arguments().size()].toTensor();
  bool resize = name.name == "aten::resize_";
  if (resize && self.sizes() == stack->at(stack->size() - 2).toDimVector()) {
    torch::jit::drop(*stack, 3);
    stack->emplace_back(self);
    return;
  }
  name.name.pop_back();
  if (name.name == "aten::transpose") name.overload_name = "int";
  auto view = c10::Dispatcher::singleton().findSchema(name);
  TORCH_CHECK(
      view && !resize && name.name != "aten::set" &&
          name.name != "aten::resize_as",
      "heddle.capture: ", Place(NameOf(op.operator_name())),
      " gives a tensor another storage or size in place, which a value of a "
      "program cannot do. Make a new tensor and use that.");
  RecordCall(*view, stack);
  at::Tensor result = torch::jit::pop(*stack).toTensor();
  self.unsafeGetTensorImpl()->set_sizes_and_strides(
      result.sizes(), result.strides(), result.storage_offset());
  stack->emplace_back(std::move(self));
}

// The id of the draw whose generator state an operator takes as an operand, or
// -1.
int64_t Session::DrawnAgain(const OpRecord& record) const {
  const auto& arguments = record.schema->arguments();
  for (size_t i = 0; i < arguments.size() && i < record.arguments.size(); ++i) {
    if (arguments[i].name() != "philox_seed" ||
        record.arguments[i].values.empty())
      continue;
    auto state = generator_states_.find(record.arguments[i].values[0]);
    if (state != generator_states_.end()) return state->second;
  }
  return -1;
}

void Session::RecordCall(const c10::OperatorHandle& original,
                         torch::jit::Stack* stack) {
  c10::OperatorHandle op = original;
  const std::string name = NameOf(op.operator_name());
  const size_t count = op.schema().arguments().size();
  const size_t base = stack->size() - count;

  // Python numbers reach tensor overloads as wrapped 0-dim tensors; the scalar
  // overload says the same with the number in it.
  for (size_t i = 0; i < count; ++i) {
    const c10::IValue& value = (*stack)[base + i];
    if (!value.isTensor() || !value.toTensor().defined() ||
        IsTraced(value.toTensor()) ||
        !value.toTensor().unsafeGetTensorImpl()->is_wrapped_number())
      continue;
    if (auto sibling = ScalarSibling(op, i)) {
      c10::Scalar number = value.toTensor().item();
      op = *sibling;
      (*stack)[base + i] = number;
    }
  }

  // Lazily conjugated and negated views are a bit on a tensor, which values do
  // not have; the copy has the values that operators would make of it.
  const std::string& view = op.operator_name().name;
  bool lazy = view == "aten::_conj" || view == "aten::_neg_view";
  if (lazy) {
    lazily_read_.insert(StorageIdOf((*stack)[base].toTensor()));
    op = c10::Dispatcher::singleton().findSchemaOrThrow(
        view == "aten::_conj" ? "aten::conj_physical" : "aten::neg", "");
  }

  // The schema of native_batch_norm does not say that it writes the running
  // statistics. Its functional twin, the same kernel, returns them.
  std::vector<at::Tensor> running;
  if (op.operator_name().name == "aten::native_batch_norm" &&
      (*stack)[base + 5].toBool() && (*stack)[base + 3].isTensor() &&
      (*stack)[base + 3].toTensor().defined()) {
    running = {(*stack)[base + 3].toTensor(), (*stack)[base + 4].toTensor()};
    op = c10::Dispatcher::singleton().findSchemaOrThrow(
        "aten::_native_batch_norm_legit_functional", "");
  }

  // An integer histogram has no CPU kernel; PyTorch code that asks `device.type
  // == "cpu"` goes through float there, and the counts are the same.
  c10::OperatorName called = op.operator_name();
  std::optional<at::ScalarType> cast_back;
  if (options_.target == "cpu" && called.name == "aten::histc" &&
      (*stack)[base].isTensor() &&
      !at::isFloatingType((*stack)[base].toTensor().scalar_type())) {
    cast_back = (*stack)[base].toTensor().scalar_type();
    (*stack)[base] = (*stack)[base].toTensor().to(at::kFloat);
  }

  OpRecord record;
  record.name = called;
  record.schema = &op.schema();
  LinkToAutograd(record);

  torch::jit::Stack meta_stack;
  std::vector<std::pair<const c10::TensorImpl*, at::Tensor>>
      identity;  // Meta impl → the trace tensor it stands for.
  int64_t operand = 0;
  auto to_meta = [&](const at::Tensor& tensor,
                     bool written) -> std::pair<ValueId, at::Tensor> {
    at::Tensor traced = tensor;
    if (tensor.defined() && !IsTraced(tensor)) {
      TORCH_CHECK(!written, "heddle.capture: ", Place(name),
                  " writes into a host tensor");
      ValueId id = UseHostTensor(tensor, name);
      traced =
          MakeTraceTensor(storages_[tape_.values[id].storage],
                          tape_.values[id].dtype, tape_.values[id].sizes,
                          tape_.values[id].strides, tape_.values[id].offset);
    }
    ValueId id = Use(traced, name);
    TORCH_CHECK(
        !written || id < 0 || lazily_read_.count(tape_.values[id].storage) == 0,
        "heddle.capture: ", Place(name),
        " writes into a tensor that has a conjugated or negated view. Make the "
        "view a copy (resolve_conj, resolve_neg, clone) or write elsewhere.");
    if (written) record.mutates.push_back(operand);
    if (id >= 0) ++operand;
    at::Tensor meta = MetaOf(traced);
    if (meta.defined())
      identity.emplace_back(meta.unsafeGetTensorImpl(), tensor);
    return {id, meta};
  };
  for (size_t i = 0; i < count; ++i) {
    const c10::IValue& value = (*stack)[base + i];
    const c10::Argument& argument = op.schema().arguments()[i];
    bool written = argument.alias_info() && argument.alias_info()->isWrite();
    if (value.isTensor()) {
      auto [id, meta] = to_meta(value.toTensor(), written);
      record.arguments.push_back({Argument::Kind::kTensor, {id}, {}});
      meta_stack.emplace_back(meta);
    } else if (IsTensorListType(argument.type()) && value.isList()) {
      Argument list{Argument::Kind::kTensorList, {}, {}};
      auto generic = c10::impl::GenericList(value.toList().elementType());
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) {
          auto [id, meta] = to_meta(element.toTensor(), written);
          list.values.push_back(id);
          generic.push_back(meta);
        } else {
          list.values.push_back(-1);
          generic.push_back(c10::IValue());
        }
      }
      record.arguments.push_back(std::move(list));
      meta_stack.emplace_back(std::move(generic));
    } else {
      // Seen where the thread's operators are not, as inside a profiler's own.
      if (value.isGenerator()) NoteGenerator(name);
      CheckGenerators();
      record.arguments.push_back({Argument::Kind::kConstant, {}, value});
      if (value.isDevice()) {
        c10::Device device = value.toDevice();
        TORCH_CHECK(device.type() == kTraceType || device.is_meta(),
                    "heddle.capture: ", Place(name), " creates a tensor on ",
                    device, " from tensors of the step");
        meta_stack.emplace_back(c10::Device(c10::DeviceType::Meta));
      } else {
        meta_stack.push_back(value);
      }
    }
  }

  record.rng_id = DrawnAgain(record);
  if (record.rng_id < 0 && HasTag(op, at::Tag::nondeterministic_seeded) &&
      DrawsNumbers(op.schema(), *stack, base))
    record.rng_id = next_rng_++;

  try {
    InferOnMeta(op, options_.target == "cpu", &meta_stack);
  } catch (const std::exception& error) {
    // Tags say what an operator may do (indexing with integers is static, with
    // a mask it is not), so they explain a failure but do not cause one.
    bool by_data = HasTag(op, at::Tag::data_dependent_output) ||
                   HasTag(op, at::Tag::dynamic_output_shape);
    const auto* known = dynamic_cast<const c10::Error*>(&error);
    TORCH_CHECK(name.find("sparse") == std::string::npos &&
                    name.find("nested") == std::string::npos,
                "heddle.capture: ", Place(name),
                " makes a sparse or nested tensor; the captured step must be "
                "dense. Keep the tensor dense, padded and masked.");
    TORCH_CHECK(
        by_data, "heddle.capture: ", Place(name),
        " has no shape function for these arguments: ",
        known != nullptr ? known->what_without_backtrace() : error.what(),
        ". If it is a custom operator, register a fake or meta kernel for it "
        "(torch.library.register_fake).");
    meta_stack = InferFromValues(op, torch::jit::last(*stack, count));
  }

  torch::jit::drop(*stack, count);
  auto wrap = [&](const at::Tensor& meta) -> at::Tensor {
    if (!meta.defined()) {
      record.results.push_back(-1);
      return meta;
    }
    TORCH_CHECK(meta.is_meta(), "heddle.capture: ", Place(name),
                " returned a tensor on ", meta.device(),
                " when asked for shapes only");
    for (const auto& [impl, tensor] : identity) {
      if (impl == meta.unsafeGetTensorImpl()) {
        TORCH_CHECK(meta.sizes() == tensor.sizes() &&
                        meta.strides() == tensor.strides(),
                    "heddle.capture: ", Place(name),
                    " gives a tensor of shape ", tensor.sizes(), " the shape ",
                    meta.sizes(),
                    " in place. Give `out` the shape of the result, or use the "
                    "operator that returns a new tensor.");
        record.results_are_operands = true;
        record.results.push_back(NewValue(tensor));
        return tensor;
      }
    }
    at::Tensor result = FromMeta(meta);
    record.results.push_back(NewValue(result));
    return result;
  };
  torch::jit::Stack results;
  for (const c10::IValue& value : meta_stack) {
    if (value.isTensor()) {
      results.emplace_back(wrap(value.toTensor()));
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& element : value.toTensorVector())
        list.push_back(wrap(element));
      results.emplace_back(std::move(list));
    } else {
      results.push_back(value);
    }
  }
  if (Repeats()) {
    LinkToRepeated(record);
  } else if (phase_ == Phase::kForward) {
    RememberForward(record);
  }
  if (lazy) lazily_read_.insert(StorageIdOf(results[0].toTensor()));
  const int64_t drawn = record.rng_id;
  tape_.ops.push_back(std::move(record));
  // The generator state that fused attention returns for its backward is no
  // value of the program (infer.cc): zeros stand for it. Where there is dropout
  // they lead the backward to the id of the draw, from which a run knows the
  // state; else nobody reads them.
  if (options_.target == "cuda") {
    for (size_t i : GeneratorStateResults(called)) {
      results[i] = EmitScalarTensor(at::scalar_tensor(0, at::kLong));
      if (drawn >= 0)
        generator_states_[Use(results[i].toTensor(), name)] = drawn;
    }
  }
  if (cast_back) results[0] = results[0].toTensor().to(*cast_back);
  for (size_t i = 0; i < running.size(); ++i)
    running[i].copy_(results[3 + i].toTensor());
  if (!running.empty()) results.resize(3);
  for (c10::IValue& value : results) stack->push_back(std::move(value));
}

}  // namespace heddle::capture
