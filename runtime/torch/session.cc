// Binds tensors by name and runs sections.

#include "runtime/torch/session.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/device/cpu.h"
#include "runtime/device/cuda.h"
#include "runtime/exec/gemm_cuda.h"
#include "runtime/exec/gemm_handler.h"
#include "runtime/exec/host_handler.h"
#include "runtime/plan/nearest.h"
#include "runtime/torch/planned_cuda.h"

namespace heddle::torch_runtime {
namespace {

std::string ShapeText(c10::ScalarType type, c10::ArrayRef<int64_t> sizes) {
  return absl::StrCat(c10::toString(type), "[",
                      absl::StrJoin(sizes.begin(), sizes.end(), ", "), "]");
}

// A copy with the value's own strides.
at::Tensor CopyOut(const at::Tensor& planned) {
  at::Tensor copy =
      at::empty_strided(planned.sizes(), planned.strides(), planned.options());
  copy.copy_(planned);
  return copy;
}

// A host tensor goes through pinned memory of its own, which torch takes back
// when the copy is done: a copy from ordinary memory would make the host wait
// for all that the stream has yet to do.
void CopyIn(const at::Tensor& tensor, const at::Tensor& planned) {
  if (!planned.is_cuda() || !tensor.is_cpu()) {
    planned.copy_(tensor);
    return;
  }
  at::Tensor pinned =
      at::empty(tensor.sizes(), tensor.options().pinned_memory(true));
  pinned.copy_(tensor);
  planned.copy_(pinned, /*non_blocking=*/true);
}

std::string ResultKey(const plan::Binding& binding) {
  return binding.kind == "loss" ? "loss"
                                : absl::StrCat(binding.kind, ":", binding.name);
}

// The part of a version that decides whether operators are the same:
// "2.11.0+cu130" and "2.11.1" are 2.11.
std::string MajorMinor(const std::string& version) {
  const size_t first = version.find('.');
  const size_t second =
      first == std::string::npos ? first : version.find('.', first + 1);
  return version.substr(0, second);
}

// The elements of a tensor in the order of its storage.
at::Tensor Storage(const plan::StateEntry& entry, const at::Tensor& tensor) {
  return tensor.as_strided({plan::StorageElements(entry.sizes, entry.strides)},
                           {1});
}

}  // namespace

Part PartOf(const plan::StateEntry& entry, int64_t coordinate) {
  const int64_t begin = entry.bounds[static_cast<size_t>(coordinate)];
  const int64_t end = entry.bounds[static_cast<size_t>(coordinate) + 1];
  const int64_t slot_end =
      entry.slot_offset + plan::StorageElements(entry.sizes, entry.strides);
  const int64_t from = std::max(begin, entry.slot_offset);
  const int64_t to = std::min(end, slot_end);
  return {from - entry.slot_offset, std::max<int64_t>(0, to - from),
          from - begin};
}

// An unknown entry is answered with the one whose spelling differs least.
absl::StatusOr<const plan::StateEntry*> FindState(const plan::Plan& plan,
                                                  const std::string& kind,
                                                  const std::string& name) {
  std::string nearest;
  size_t best = SIZE_MAX;
  for (const plan::StateEntry& entry : plan.state) {
    for (const std::string& known : entry.names) {
      if (entry.kind == kind && known == name) return &entry;
      const size_t distance =
          plan::EditDistance(kind + " " + name, entry.kind + " " + known);
      if (distance < best) {
        best = distance;
        nearest = absl::StrCat(entry.kind, " ", known);
      }
    }
  }
  return absl::NotFoundError(absl::StrCat(
      "the plan has no state ", kind, " ", name,
      nearest.empty() ? "; it has no state at all"
                      : absl::StrCat("; the nearest is ", nearest)));
}

namespace {

// The input buffers that a section's steps and results read.
std::set<uint32_t> InputsRead(const plan::Plan& plan,
                              const plan::Section& section) {
  std::set<uint32_t> read;
  const auto use = [&](int64_t value) {
    if (value < 0) return;
    const uint32_t buffer = plan.values[static_cast<size_t>(value)].buffer;
    if (plan.buffers[buffer].arena == plan::Arena::kInput) read.insert(buffer);
  };
  for (const plan::Step& step : section.steps) {
    for (const plan::Arg& arg : step.args) {
      if (arg.kind == plan::ArgKind::kValue) use(arg.i);
      if (arg.kind != plan::ArgKind::kValueList) continue;
      for (int64_t value : arg.ints) use(value);
    }
  }
  for (const plan::Binding& result : section.results) use(result.value);
  return read;
}

// The kinds of state that a section's steps write.
std::set<std::string> WrittenKinds(const plan::Plan& plan,
                                   const plan::Section& section) {
  std::map<uint32_t, std::string> kinds;
  for (const plan::StateEntry& entry : plan.state)
    kinds[plan.values[entry.value].buffer] = entry.kind;
  std::set<std::string> written;
  for (const plan::Step& step : section.steps) {
    for (int32_t value : step.results) {
      if (value < 0) continue;
      const auto kind =
          kinds.find(plan.values[static_cast<size_t>(value)].buffer);
      if (kind != kinds.end()) written.insert(kind->second);
    }
  }
  return written;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Load(plan::Plan plan,
                                                       uint64_t seed,
                                                       Rank rank) {
  return LoadBeside(nullptr, std::move(plan), seed, std::move(rank));
}

absl::StatusOr<std::unique_ptr<Session>> Session::LoadSharing(plan::Plan plan,
                                                              uint64_t seed,
                                                              Rank rank) const {
  return LoadBeside(this, std::move(plan), seed, std::move(rank));
}

absl::StatusOr<std::unique_ptr<Session>> Session::LoadBeside(
    const Session* other, plan::Plan plan, uint64_t seed, Rank rank) {
  constexpr const char* kTorch = TORCH_VERSION;
  if (MajorMinor(plan.torch_version) != MajorMinor(kTorch))
    return absl::FailedPreconditionError(absl::StrCat(
        "the plan needs torch ", plan.torch_version,
        " and this Heddle runs with torch ", kTorch, "; install torch ",
        plan.torch_version, " or compile the step again"));
  if (absl::Status status = InstallPlannedAllocator(); !status.ok())
    return status;
  auto session = std::unique_ptr<Session>(new Session());
  if (plan.target == "cuda") {
    if (other == nullptr) {
      absl::StatusOr<std::unique_ptr<device::Device>> device =
          device::CreateCudaDevice(rank.device);
      if (!device.ok()) return device.status();
      session->device_ = *std::move(device);
    } else {
      session->device_ = other->device_;
    }
    absl::StatusOr<Source*> source = InstallPlannedCudaAllocator();
    if (!source.ok()) return source.status();
    session->shared_ = std::make_shared<Shared>(
        c10::Device(c10::DeviceType::CUDA,
                    static_cast<c10::DeviceIndex>(rank.device)),
        **source);
  } else {
    session->device_ =
        other == nullptr ? device::CreateCpuDevice() : other->device_;
    session->shared_ = std::make_shared<Shared>(
        c10::Device(c10::DeviceType::CPU), CpuSource());
  }
  session->shared_->threads = rank.threads;
  exec::HandlerTable handlers;
  handlers[plan::StepKind::kAten] =
      CreateAtenHandler(session->shared_, plan.mode == "train");
  handlers[plan::StepKind::kKernel] = CreateKernelHandler(session->shared_);
  handlers[plan::StepKind::kCopy] = CreateCopyHandler(session->shared_);
  handlers[plan::StepKind::kHost] = exec::CreateHostHandler();
  if (rank.communicators != nullptr)
    handlers[plan::StepKind::kCollective] =
        exec::CreateCollectiveHandler(std::move(rank.communicators));
  if (plan.target == "cuda") {
    absl::StatusOr<std::unique_ptr<exec::GemmEngine>> engine =
        exec::CreateCudaGemmEngine(*session->device_);
    if (!engine.ok()) return engine.status();
    handlers[plan::StepKind::kGemm] =
        exec::CreateGemmHandler(*std::move(engine));
  } else {
    handlers[plan::StepKind::kGemm] =
        exec::CreateGemmHandler(exec::CreateHostGemmEngine());
  }
  for (auto& [kind, handler] : handlers) {
    if (rank.wrap) handler = rank.wrap(std::move(handler));
  }
  absl::StatusOr<std::unique_ptr<exec::Executable>> executable =
      exec::Executable::Load(
          std::move(plan), *session->device_, std::move(handlers), seed,
          other == nullptr ? nullptr : other->executable_->memory().state(),
          rank.place);
  if (!executable.ok()) return executable.status();
  session->executable_ = *std::move(executable);
  for (const plan::Section& section : session->plan().sections)
    session->inputs_read_[section.name] = InputsRead(session->plan(), section);
  const nlohmann::json config = nlohmann::json::parse(
      session->plan().config, nullptr, /*allow_exceptions=*/false);
  exec::GraphMode graphs = exec::GraphMode::kAuto;
  if (config.is_object() && config.contains("cuda_graph") &&
      config["cuda_graph"].is_boolean())
    graphs = config["cuda_graph"].get<bool>() ? exec::GraphMode::kOn
                                              : exec::GraphMode::kOff;
  if (absl::Status status = session->executable_->SetGraphs(graphs);
      !status.ok())
    return status;
  if (session->device_->asynchronous()) {
    absl::StatusOr<std::unique_ptr<device::Event>> handover =
        session->device_->CreateEvent();
    if (!handover.ok()) return handover.status();
    session->handover_ = *std::move(handover);
  }
  if (other == nullptr)
    if (absl::Status status = session->FillInitial(); !status.ok())
      return status;
  return session;
}

absl::Status Session::FillInitial() {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (absl::Status status = CallerFollowsPlan(); !status.ok()) return status;
  for (const plan::StateEntry& entry : plan().state)
    if (entry.initial != 0) Tensor(entry.value).fill_(entry.initial);
  return PlanFollowsCaller();
}

// Work in flight uses the arenas that go now.
Session::~Session() {
  if (device_ != nullptr) device_->Synchronize().IgnoreError();
}

absl::Status Session::CallerFollowsPlan() {
  if (handover_ == nullptr) return absl::OkStatus();
  device::Stream& plan = *executable_->streams()[0];
  std::unique_ptr<device::Stream> caller =
      device_->Borrow(CurrentStream(shared_->device.index()));
  plan.Record(*handover_);
  caller->Wait(*handover_);
  if (absl::Status status = caller->Failure(); !status.ok()) return status;
  return plan.Failure();
}

absl::Status Session::PlanFollowsCaller() {
  if (handover_ == nullptr) return absl::OkStatus();
  device::Stream& plan = *executable_->streams()[0];
  std::unique_ptr<device::Stream> caller =
      device_->Borrow(CurrentStream(shared_->device.index()));
  caller->Record(*handover_);
  plan.Wait(*handover_);
  if (absl::Status status = caller->Failure(); !status.ok()) return status;
  return plan.Failure();
}

absl::Status Session::SetState(const std::string& kind, const std::string& name,
                               const at::Tensor& tensor) {
  absl::StatusOr<const plan::StateEntry*> entry = FindState(plan(), kind, name);
  if (!entry.ok()) return entry.status();
  const at::Tensor& planned = Tensor((*entry)->value);
  const bool sharded = !(*entry)->bounds.empty();
  const c10::IntArrayRef sizes =
      sharded ? c10::IntArrayRef((*entry)->sizes) : planned.sizes();
  if (tensor.sizes() != sizes)
    return absl::InvalidArgumentError(
        absl::StrCat("state ", kind, " ", name, " is ",
                     ShapeText(planned.scalar_type(), sizes), " and was given ",
                     ShapeText(tensor.scalar_type(), tensor.sizes())));
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (absl::Status status = CallerFollowsPlan(); !status.ok()) return status;
  if (!sharded) {
    planned.copy_(tensor);
    return PlanFollowsCaller();
  }
  const Part part = PartOf(**entry, executable_->memory().coordinate());
  if (part.count == 0) return absl::OkStatus();
  at::Tensor whole =
      at::empty_strided(sizes, (*entry)->strides, tensor.options());
  whole.copy_(tensor);
  planned.narrow(0, part.in_shard, part.count)
      .copy_(Storage(**entry, whole).narrow(0, part.first, part.count));
  return PlanFollowsCaller();
}

absl::StatusOr<at::Tensor> Session::GetState(const std::string& kind,
                                             const std::string& name) {
  absl::StatusOr<const plan::StateEntry*> entry = FindState(plan(), kind, name);
  if (!entry.ok()) return entry.status();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (absl::Status status = CallerFollowsPlan(); !status.ok()) return status;
  const at::Tensor& planned = Tensor((*entry)->value);
  if ((*entry)->bounds.empty()) return CopyOut(planned);
  at::Tensor whole =
      at::empty_strided((*entry)->sizes, (*entry)->strides, planned.options());
  Storage(**entry, whole).zero_();
  GetShard(**entry, whole);
  return whole;
}

void Session::GetShard(const plan::StateEntry& entry, const at::Tensor& whole) {
  const Part part = PartOf(entry, executable_->memory().coordinate());
  if (part.count == 0) return;
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  Storage(entry, whole)
      .narrow(0, part.first, part.count)
      .copy_(Tensor(entry.value).narrow(0, part.in_shard, part.count));
}

absl::Status Session::GatherShards(const plan::StateEntry& entry,
                                   const at::Tensor& whole,
                                   comm::Communicator& communicator) {
  const at::Tensor storage = Storage(entry, whole);
  const int64_t bytes = whole.element_size();
  comm::Collective gather;
  gather.kind = comm::Kind::kAllGather;
  gather.dtype = plan::DType::kU8;
  // Parts follow each other in the order of ranks.
  for (size_t r = 0; r + 1 < entry.bounds.size(); ++r)
    gather.counts.push_back(PartOf(entry, static_cast<int64_t>(r)).count *
                            bytes);
  const Part own = PartOf(entry, executable_->memory().coordinate());
  gather.output = storage.mutable_data_ptr();
  gather.input = static_cast<char*>(gather.output) +
                 (own.count > 0 ? own.first * bytes : 0);
  const comm::Origin origin{absl::StrCat("state ", entry.kind),
                            entry.names.front(), ""};
  gather.origin = &origin;
  if (handover_ == nullptr) return communicator.Issue(gather, nullptr);
  if (absl::Status status = PlanFollowsCaller(); !status.ok()) return status;
  if (absl::Status status =
          communicator.Issue(gather, executable_->streams()[0].get());
      !status.ok())
    return status;
  return CallerFollowsPlan();
}

absl::Status Session::BindInputs(const std::string& section_name,
                                 const TensorMap& inputs) {
  // A result may be born in the memory of an argument that dies in its step;
  // filling "uninitialized" results would destroy the argument before it is
  // read.
  if (at::globalContext().deterministicAlgorithms() &&
      at::globalContext().deterministicFillUninitializedMemory())
    return absl::FailedPreconditionError(
        "torch.use_deterministic_algorithms fills every new tensor before it "
        "is computed, and planned memory cannot be filled; set "
        "torch.utils.deterministic.fill_uninitialized_memory = False");
  const auto bound = inputs_read_.find(section_name);
  if (bound == inputs_read_.end()) return absl::OkStatus();  // Run says so
  const std::set<uint32_t>& read = bound->second;
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (absl::Status status = CallerFollowsPlan(); !status.ok()) return status;
  std::set<std::string> known;
  for (const plan::Binding& input : plan().inputs) {
    known.insert(input.name);
    const auto given = inputs.find(input.name);
    if (given == inputs.end()) {
      if (read.count(plan().values[input.value].buffer) == 0) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("section ", section_name, " reads input ", input.name,
                       ", which was not given"));
    }
    const at::Tensor& planned = Tensor(input.value);
    const at::Tensor& tensor = given->second;
    if (tensor.sizes() != planned.sizes() ||
        tensor.scalar_type() != planned.scalar_type())
      return absl::InvalidArgumentError(absl::StrCat(
          "input ", input.name, " is ",
          ShapeText(planned.scalar_type(), planned.sizes()),
          " in the plan and ", ShapeText(tensor.scalar_type(), tensor.sizes()),
          " in this batch"));
    CopyIn(tensor, planned);
  }
  for (const auto& [name, tensor] : inputs) {
    if (known.count(name) == 0)
      return absl::InvalidArgumentError(
          absl::StrCat("the plan has no input ", name, "; it has ",
                       absl::StrJoin(known, ", ")));
  }
  return PlanFollowsCaller();
}

absl::StatusOr<TensorMap> Session::Run(const std::string& section,
                                       const TensorMap& inputs) {
  if (absl::Status status = BindInputs(section, inputs); !status.ok())
    return status;
  if (absl::Status status = Execute(section); !status.ok()) return status;
  return Results(section);
}

absl::Status Session::Execute(const std::string& section) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = executable_->Run(section); !status.ok())
    return status;
  enqueue_ms_[section] = std::chrono::duration<double, std::milli>(
                             std::chrono::steady_clock::now() - start)
                             .count();
  return absl::OkStatus();
}

absl::StatusOr<TensorMap> Session::Results(const std::string& section) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (absl::Status status = CallerFollowsPlan(); !status.ok()) return status;
  TensorMap results;
  for (const plan::Binding& binding :
       plan::FindSection(plan(), section)->results)
    results[ResultKey(binding)] = CopyOut(Tensor(binding.value));
  return results;
}

absl::Status Session::ExecuteTimed(const std::string& section,
                                   std::vector<double>* seconds) {
  if (absl::Status status = device_->Synchronize(); !status.ok()) return status;
  seconds->clear();
  auto last = std::chrono::steady_clock::now();
  return executable_->RunTraced(section, [&](size_t) {
    const auto now = std::chrono::steady_clock::now();
    seconds->push_back(std::chrono::duration<double>(now - last).count());
    last = std::chrono::steady_clock::now();
    return absl::OkStatus();
  });
}

absl::StatusOr<double> Session::TimeCollective(
    comm::Communicator& communicator, const comm::Collective& collective) {
  const bool host = handover_ == nullptr;
  if (absl::Status status = device_->Synchronize(); !status.ok()) return status;
  const auto begin = std::chrono::steady_clock::now();
  absl::Status status = communicator.Issue(
      collective, host ? nullptr : executable_->streams()[0].get());
  if (status.ok() && !host) status = device_->Synchronize();
  if (!status.ok()) return status;
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

absl::StatusOr<std::vector<TracedStep>> Session::RunTraced(
    const std::string& section_name, const TensorMap& inputs) {
  if (absl::Status status = BindInputs(section_name, inputs); !status.ok())
    return status;
  std::vector<TracedStep> trace;
  const plan::Section* section = plan::FindSection(plan(), section_name);
  absl::Status status = executable_->RunTraced(section_name, [&](size_t index) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const plan::Step& step = section->steps[index];
    TracedStep traced{static_cast<int64_t>(index),
                      step.name,
                      plan::LocationText(plan(), step),
                      {}};
    for (int32_t value : step.results)
      traced.results.push_back(
          value < 0 ? at::Tensor()
                    : CopyOut(Tensor(static_cast<uint32_t>(value))));
    trace.push_back(std::move(traced));
    // The next step may write over what the copies read.
    return device_->Synchronize();
  });
  if (!status.ok()) return status;
  return trace;
}

std::map<std::string, int64_t> Session::MemoryBeside() const {
  const auto workspaces = static_cast<int64_t>(shared_->workspace_bytes());
  const auto products = static_cast<int64_t>(executable_->reserved_bytes());
  std::map<std::string, int64_t> memory = {{"workspaces", workspaces},
                                           {"products", products}};
  if (const auto used = static_cast<int64_t>(device_->used_bytes()); used > 0)
    memory["process"] =
        used - workspaces - products - static_cast<int64_t>(ArenaBytes());
  return memory;
}

uint64_t Session::MemoryBytes() const {
  return ArenaBytes() + shared_->counters.workspace_high_water.load();
}

std::string Session::StateNames() const {
  nlohmann::json entries = nlohmann::json::array();
  for (const plan::StateEntry& entry : plan().state) {
    const plan::Value& value = plan().values[entry.value];
    const bool sharded = !entry.bounds.empty();
    const int64_t elements =
        sharded ? PartOf(entry, executable_->memory().coordinate()).count
                : plan::ElementCount(value);
    entries.push_back({{"kind", entry.kind},
                       {"names", entry.names},
                       {"dtype", plan::DTypeName(value.dtype)},
                       {"shape", sharded ? entry.sizes : value.sizes},
                       {"sharded", sharded},
                       {"bytes", elements * plan::ElementSize(value.dtype)},
                       {"trainable", entry.trainable},
                       {"persistent", entry.persistent},
                       {"initial", entry.initial},
                       {"role", entry.role}});
  }
  return entries.dump();
}

int64_t Session::Orthogonalised() const {
  int64_t matrices = 0;
  for (const plan::Section& section : plan().sections) {
    for (const plan::Step& step : section.steps) {
      if (step.kind != plan::StepKind::kKernel || step.name != "newton_schulz")
        continue;
      for (int32_t value : step.results) {
        if (value < 0) continue;
        // All but the last two dimensions count matrices.
        const std::vector<int64_t>& sizes =
            plan().values[static_cast<size_t>(value)].sizes;
        int64_t count = 1;
        for (size_t d = 0; d + 2 < sizes.size(); ++d) count *= sizes[d];
        matrices += count;
      }
    }
  }
  return matrices;
}

std::string Session::Stats() const {
  const Counters& c = shared_->counters;
  nlohmann::json stats = {
      {"state_bytes", plan().state_bytes},
      {"constant_bytes", plan().constant_bytes},
      {"input_bytes", executable_->memory().input_bytes()},
      {"scratch_bytes", executable_->memory().scratch_bytes()},
      {"workspace_high_water", c.workspace_high_water.load()},
      {"workspace_bytes", shared_->workspace_bytes()},
      {"vendor_workspace_bytes", executable_->reserved_bytes()},
      {"newton_schulz", Orthogonalised()},
      {"counters",
       {{"outside_workspace", c.outside_workspace.load()},
        {"unplanned_copies", c.unplanned_copies.load()},
        {"escaped", c.escaped.load()},
        {"warmup_steps", c.warmup_steps.load()},
        {"warmup_copied_bytes", c.warmup_copied_bytes.load()},
        {"steps", c.steps.load()}}}};
  for (const plan::Section& section : plan().sections) {
    uint64_t flops = 0;
    uint64_t bytes = 0;
    size_t collectives = 0;
    for (const plan::Step& step : section.steps) {
      flops += step.flops;
      bytes += step.bytes;
      collectives += step.kind == plan::StepKind::kCollective ? 1 : 0;
    }
    stats["sections"][section.name] = {
        {"steps", section.steps.size()},
        {"flops", flops},
        {"bytes", bytes},
        {"collectives", collectives},
        {"writes", WrittenKinds(plan(), section)},
        {"scratch_bytes", section.scratch_bytes},
        {"live_lower_bound", section.live_lower_bound},
        {"cuda_graph", executable_->GraphState(section.name)}};
    if (const auto ms = enqueue_ms_.find(section.name); ms != enqueue_ms_.end())
      stats["sections"][section.name]["enqueue_ms"] = ms->second;
  }
  stats["streams"] = plan().streams;
  stats["config"] = nlohmann::json::parse(plan().config, nullptr, false);
  return stats.dump();
}

}  // namespace heddle::torch_runtime
