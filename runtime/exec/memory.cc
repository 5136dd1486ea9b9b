// Lays the arenas out at load.

#include "runtime/exec/memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::exec {
namespace {

uint64_t AlignUp(uint64_t bytes) {
  return (bytes + plan::kAlignment - 1) / plan::kAlignment * plan::kAlignment;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Memory>> Memory::Create(
    const plan::Plan& plan, device::Device& device,
    std::shared_ptr<StateArena> state, int64_t coordinate) {
  auto memory = std::unique_ptr<Memory>(new Memory());
  memory->coordinate_ = coordinate;
  memory->plan_ = &plan;
  memory->device_ = &device;
  device::Allocator& allocator = device.allocator();
  const auto allocate = [&](uint64_t bytes, const char* what,
                            device::Allocation* to) -> absl::Status {
    absl::StatusOr<void*> address = allocator.Allocate(bytes, what);
    if (!address.ok()) return address.status();
    *to = device::Allocation(&allocator, *address);
    return absl::OkStatus();
  };

  for (const plan::Section& section : plan.sections)
    memory->scratch_bytes_ =
        std::max(memory->scratch_bytes_, section.scratch_bytes);
  std::vector<uint64_t> input_offsets(plan.buffers.size(), 0);
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    if (plan.buffers[i].arena != plan::Arena::kInput) continue;
    input_offsets[i] = memory->input_bytes_;
    memory->input_bytes_ += AlignUp(plan.buffers[i].bytes);
  }
  if (state == nullptr) {
    state = std::make_shared<StateArena>();
    state->layout_hash = plan.layout_hash;
    state->bytes = plan.state_bytes;
    if (absl::Status status =
            allocate(plan.state_bytes, "state arena", &state->memory);
        !status.ok())
      return status;
  } else if (state->layout_hash != plan.layout_hash ||
             state->bytes != plan.state_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the plan's state layout (hash ", plan.layout_hash, ", ",
                     plan.state_bytes,
                     " bytes) is not that of the state it should share (hash ",
                     state->layout_hash, ", ", state->bytes,
                     " bytes); compile both from one model and optimizer"));
  }
  memory->state_ = std::move(state);
  if (absl::Status status =
          allocate(memory->scratch_bytes_, "scratch arena", &memory->scratch_);
      !status.ok())
    return status;
  if (absl::Status status =
          allocate(memory->input_bytes_, "input arena", &memory->inputs_);
      !status.ok())
    return status;
  if (absl::Status status =
          allocate(plan.constant_bytes, "constant arena", &memory->constants_);
      !status.ok())
    return status;

  memory->buffers_.resize(plan.buffers.size());
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    const plan::Buffer& buffer = plan.buffers[i];
    char* base = nullptr;
    uint64_t offset = buffer.offset;
    switch (buffer.arena) {
      case plan::Arena::kScratch:
        base = static_cast<char*>(memory->scratch_.address());
        break;
      case plan::Arena::kState:
        base = static_cast<char*>(memory->state_->memory.address());
        break;
      case plan::Arena::kInput:
        base = static_cast<char*>(memory->inputs_.address());
        offset = input_offsets[i];
        break;
      case plan::Arena::kConstant:
        base = static_cast<char*>(memory->constants_.address());
        break;
    }
    memory->buffers_[i] = base + offset;
  }
  for (const plan::ConstantData& constant : plan.constants) {
    if (absl::Status status =
            device.CopyFromHost(memory->Address(constant.value),
                                constant.data.data(), constant.data.size());
        !status.ok())
      return status;
  }
  return memory;
}

Memory::Spare Memory::SpareScratch(const plan::Section& section) const {
  const uint64_t used = AlignUp(section.scratch_bytes);
  if (used >= scratch_bytes_) return {};
  return {static_cast<char*>(scratch_.address()) + used, scratch_bytes_ - used};
}

int64_t Memory::Offset(uint32_t value) const {
  const plan::Value& v = plan_->values[value];
  return v.offset + coordinate_ * v.rank_stride;
}

char* Memory::Address(uint32_t value) const {
  const plan::Value& v = plan_->values[value];
  return buffers_[v.buffer] + Offset(value) * plan::ElementSize(v.dtype);
}

}  // namespace heddle::exec
