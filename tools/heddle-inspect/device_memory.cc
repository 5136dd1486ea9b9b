// A plan for GPUs -> everything that a rank takes of its device, what the plan
// places and what is there beside it. Invariant: a part that neither the plan,
// a measured run nor the table of devices knows has no number; the sum of those
// that have one is what cudaMemGetInfo should count. What would break it:
// memory that the runtime reserves without saying so in trace::Costs.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "ir/sched/Sched.h"
#include "passes/analysis/cost_model.h"
#include "tools/heddle-inspect/analysis.h"

namespace heddle::inspect {
namespace {

// What the run reserved, else what the table says.
DeviceBytes reserved(const Program& program, const std::string& name,
                     std::string what, int64_t otherwise, std::string note) {
  const auto known = program.reserved.find(name);
  if (known == program.reserved.end())
    return {std::move(what), otherwise, std::move(note)};
  return {std::move(what), known->second,
          absl::StrCat("as a run on ", program.costs, " reserved")};
}

}  // namespace

std::vector<DeviceBytes> deviceMemory(const Program& program) {
  if (program.target != "cuda" || program.format != "step.plan") return {};
  std::map<Category, int64_t> resident;
  for (const Storage& storage : program.storages)
    if (storage.resident)
      resident[storage.category] += sched::alignUp(storage.bytes);
  std::vector<DeviceBytes> parts;
  for (const auto& [category, bytes] : resident)
    parts.push_back({categoryName(category), bytes, ""});

  DeviceBytes scratch{"scratch arena", 0, ""};
  std::set<int> products, communicators;
  for (const Section& section : program.sections) {
    if (section.scratchBytes > scratch.bytes) {
      scratch.bytes = section.scratchBytes;
      scratch.note = absl::StrCat("what ", section.name, " needs");
    }
    for (const Op& op : section.ops) {
      if (op.name == "gemm") products.insert(op.stream);
      if (op.wireBytes >= 0) communicators.insert(op.stream);
    }
  }
  parts.push_back(std::move(scratch));

  const DeviceOverhead& table = deviceOverhead(program.target);
  const std::string source = table.source;
  parts.push_back(reserved(program, "workspaces", "inside operators", -1,
                           "heddle-run --measure finds it; --costs"));
  const int64_t streams = static_cast<int64_t>(products.size());
  parts.push_back(reserved(
      program, "products", "matrix products", streams * table.productsPerStream,
      absl::StrCat("on ", streams, streams == 1 ? " stream" : " streams")));
  if (program.reserved.count("process")) {
    parts.push_back(reserved(program, "process", "context, libraries", 0, ""));
    return parts;
  }
  parts.push_back({"cuBLAS", table.blas, source});
  if (program.ranks > 1) {
    const int64_t count = static_cast<int64_t>(communicators.size());
    parts.push_back({"NCCL",
                     table.communicator < 0 ? -1 : count * table.communicator,
                     absl::StrCat(count, " communicators")});
  }
  parts.push_back({"modules", table.modules, source});
  parts.push_back({"CUDA context", table.context, source});
  return parts;
}

}  // namespace heddle::inspect
