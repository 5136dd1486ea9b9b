// One function per rule; each looks at one section (the last one at all of
// them) and returns the first violation. The rules trust nothing but the steps:
// lifetimes are recomputed here, never read from the plan.

#include "runtime/plan/verify.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/plan/access.h"
#include "runtime/plan/collective.h"
#include "runtime/plan/gemm.h"
#include "runtime/plan/verify_ranks.h"

namespace heddle::plan {
namespace {

using AccessMap = std::map<uint32_t, std::vector<Access>>;

struct Context {
  const Plan& plan;
  const Section& section;
  const HappensBefore& before;
  const AccessMap& accesses;
  int64_t coordinate = 0;
};

template <typename... Args>
absl::Status Violation(const Args&... args) {
  return absl::FailedPreconditionError(absl::StrCat(args...));
}

std::string StepName(const Context& c, uint32_t step) {
  if (step >= c.section.steps.size())
    return absl::StrCat("the end of section ", c.section.name);
  return absl::StrCat("section ", c.section.name, " step ", step, " (",
                      c.section.steps[step].name, ")");
}

bool Overlap(ByteRange a, ByteRange b) {
  return a.begin < b.end && b.begin < a.end;
}

// Bytes counted from the arena's start.
ByteRange InArena(const Buffer& buffer) {
  return {buffer.offset, buffer.offset + buffer.bytes};
}

// plan_collective
absl::Status CheckCollectives(const Context& c) {
  for (uint32_t i = 0; i < c.section.steps.size(); ++i) {
    const Step& step = c.section.steps[i];
    if (step.kind != StepKind::kCollective) continue;
    const absl::StatusOr<Collective> collective = ReadCollective(c.plan, step);
    if (!collective.ok())
      return Violation(collective.status().message(), " in ", StepName(c, i));
    if (c.plan.values[collective->src].buffer !=
            c.plan.values[collective->dst].buffer ||
        InPlace(c.plan, *collective, c.coordinate))
      continue;
    if (Overlap(GivenBytes(c.plan, *collective, c.coordinate),
                TakenBytes(c.plan, *collective, c.coordinate)))
      return Violation("plan_collective: ", StepName(c, i),
                       " has src and result that share bytes, and neither is "
                       "the other's slice of rank ",
                       c.coordinate);
  }
  return absl::OkStatus();
}

// plan_order
absl::Status CheckOrder(const Context& c) {
  for (const auto& [buffer, uses] : c.accesses) {
    const bool any_write = std::any_of(uses.begin(), uses.end(),
                                       [](const Access& a) { return a.write; });
    if (!any_write) continue;
    for (size_t j = 0; j < uses.size(); ++j) {
      for (size_t i = 0; i < j; ++i) {
        if (!uses[i].write && !uses[j].write) continue;
        if (uses[i].step == uses[j].step ||
            !Overlap(uses[i].bytes, uses[j].bytes))
          continue;
        if (c.before(uses[i].step, uses[j].step)) continue;
        return Violation("plan_order: ", StepName(c, uses[j].step), " ",
                         uses[j].write ? "writes" : "reads", " buffer ", buffer,
                         " without waiting for ", StepName(c, uses[i].step),
                         ", which ", uses[i].write ? "writes" : "reads",
                         " the same bytes");
      }
    }
  }
  return absl::OkStatus();
}

// First and last use of a buffer on each stream: enough to order all uses of
// two buffers.
struct Lifetime {
  uint32_t buffer = 0;
  std::map<uint16_t, std::pair<uint32_t, uint32_t>> uses;
  bool until_end = false;
};

bool AllBefore(const Context& c, const Lifetime& a, const Lifetime& b) {
  if (a.until_end) return false;
  for (const auto& [sa, ua] : a.uses) {
    for (const auto& [sb, ub] : b.uses) {
      if (!c.before(ua.second, ub.first)) return false;
    }
  }
  return true;
}

// plan_overlap, the scratch part
absl::Status CheckScratchOverlap(const Context& c) {
  std::vector<Lifetime> lifetimes;
  for (const auto& [buffer, uses] : c.accesses) {
    if (c.plan.buffers[buffer].arena != Arena::kScratch) continue;
    Lifetime life;
    life.buffer = buffer;
    for (const Access& use : uses) {
      if (use.step >= c.section.steps.size()) {
        life.until_end = true;
        continue;
      }
      auto [it, added] = life.uses.try_emplace(c.section.steps[use.step].stream,
                                               use.step, use.step);
      it->second.second = use.step;
    }
    lifetimes.push_back(std::move(life));
  }
  std::sort(lifetimes.begin(), lifetimes.end(),
            [&](const Lifetime& a, const Lifetime& b) {
              return c.plan.buffers[a.buffer].offset <
                     c.plan.buffers[b.buffer].offset;
            });
  std::vector<const Lifetime*> open;
  for (const Lifetime& life : lifetimes) {
    const Buffer& buffer = c.plan.buffers[life.buffer];
    open.erase(std::remove_if(open.begin(), open.end(),
                              [&](const Lifetime* other) {
                                const Buffer& b = c.plan.buffers[other->buffer];
                                return b.offset + b.bytes <= buffer.offset;
                              }),
               open.end());
    for (const Lifetime* other : open) {
      if (!Overlap(InArena(buffer), InArena(c.plan.buffers[other->buffer])))
        continue;
      if (AllBefore(c, life, *other) || AllBefore(c, *other, life)) continue;
      return Violation("plan_overlap: section ", c.section.name, ": buffers ",
                       other->buffer, " and ", life.buffer,
                       " share bytes from ", buffer.offset,
                       " and are alive together");
    }
    open.push_back(&life);
  }
  return absl::OkStatus();
}

// True if two entries are slots of one sharded bucket.
bool OneBucket(const StateEntry& a, const StateEntry& b) {
  return !a.bounds.empty() && a.value == b.value && a.bounds == b.bounds &&
         a.kind == b.kind;
}

// plan_overlap, between entries: two may share a buffer or be slots of one
// sharded bucket, but they do not share bytes, on any rank.
absl::Status CheckStateOverlap(const Plan& plan) {
  // One span of all ranks' bytes; a bucket's slots are compared by themselves.
  const int64_t last = AxisSize(plan, "dp") - int64_t{1};
  std::map<uint32_t, std::vector<const StateEntry*>> entries;
  for (const StateEntry& entry : plan.state) {
    auto& others = entries[plan.values[entry.value].buffer];
    const auto shared = [&](const StateEntry& other) {
      const auto slot = [](const StateEntry& e) {
        return ByteRange{
            static_cast<uint64_t>(e.slot_offset),
            static_cast<uint64_t>(e.slot_offset +
                                  StorageElements(e.sizes, e.strides))};
      };
      if (OneBucket(entry, other)) return Overlap(slot(entry), slot(other));
      const auto span = [&](const StateEntry& e) {
        const Value& value = plan.values[e.value];
        return ByteRange{BytesOf(value).begin, BytesOf(value, last).end};
      };
      return Overlap(span(entry), span(other));
    };
    for (const StateEntry* other : others) {
      if (shared(*other))
        return Violation("plan_overlap: state ", entry.kind, " ",
                         entry.names[0], " shares bytes with ", other->kind,
                         " ", other->names[0]);
    }
    others.push_back(&entry);
  }
  return absl::OkStatus();
}

// plan_overlap, the arenas whose buffers live for ever
absl::Status CheckFixedOverlap(const Plan& plan) {
  for (Arena arena : {Arena::kState, Arena::kConstant}) {
    std::vector<uint32_t> buffers;
    for (uint32_t i = 0; i < plan.buffers.size(); ++i) {
      if (plan.buffers[i].arena == arena && plan.buffers[i].bytes > 0)
        buffers.push_back(i);
    }
    std::sort(buffers.begin(), buffers.end(), [&](uint32_t a, uint32_t b) {
      return plan.buffers[a].offset < plan.buffers[b].offset;
    });
    for (size_t i = 1; i < buffers.size(); ++i) {
      if (!Overlap(InArena(plan.buffers[buffers[i - 1]]),
                   InArena(plan.buffers[buffers[i]])))
        continue;
      return Violation(
          "plan_overlap: ", arena == Arena::kState ? "state" : "constant",
          " buffers ", buffers[i - 1], " and ", buffers[i],
          " share bytes from ", plan.buffers[buffers[i]].offset);
    }
  }
  std::set<uint32_t> inputs;
  for (const Binding& input : plan.inputs) {
    if (!inputs.insert(plan.values[input.value].buffer).second)
      return Violation("plan_overlap: input ", input.name, " shares buffer ",
                       plan.values[input.value].buffer, " with another input");
  }
  return CheckStateOverlap(plan);
}

// The kind of state that each byte of a buffer belongs to.
std::string StateKind(const Plan& plan, uint32_t buffer, ByteRange bytes) {
  for (const StateEntry& entry : plan.state) {
    if (plan.values[entry.value].buffer == buffer &&
        Overlap(BytesOf(plan.values[entry.value]), bytes))
      return entry.kind;
  }
  return "";
}

// True if the bytes hold something when the section starts.
bool InitialisedAtStart(const Context& c, uint32_t buffer, ByteRange bytes) {
  switch (c.plan.buffers[buffer].arena) {
    case Arena::kScratch:
      return false;
    case Arena::kInput:
    case Arena::kConstant:
      return true;
    case Arena::kState:
      break;
  }
  // Before the first micro-batch an accumulator holds the last step's sum.
  const bool accumulates =
      c.section.name == "micro_next" || c.section.name == "boundary";
  return accumulates || StateKind(c.plan, buffer, bytes) != "accumulator";
}

// plan_initialised
absl::Status CheckInitialised(const Context& c) {
  for (const auto& [buffer, uses] : c.accesses) {
    // Reads are checked against the writes that are certainly done; the set
    // grows in global order and plan_order has made sure that conflicting
    // writes are ordered.
    ByteSet written;
    std::vector<const Access*> pending;
    for (const Access& use : uses) {
      if (use.write) {
        pending.push_back(&use);
        continue;
      }
      auto first_open = std::remove_if(
          pending.begin(), pending.end(), [&](const Access* write) {
            if (!c.before(write->step, use.step)) return false;
            for (ByteRange piece : PiecesOf(c.plan, *write, c.coordinate))
              written.Add(piece);
            return true;
          });
      pending.erase(first_open, pending.end());
      if (InitialisedAtStart(c, buffer, use.bytes)) continue;
      for (ByteRange piece : PiecesOf(c.plan, use, c.coordinate)) {
        if (written.Covers(piece)) continue;
        return Violation("plan_initialised: ", StepName(c, use.step),
                         " reads value ", use.value, " in buffer ", buffer,
                         " and bytes ", piece.begin, " to ", piece.end,
                         " of it were not written before");
      }
    }
  }
  return absl::OkStatus();
}

// The kinds of state that a section may write; nullptr for a section that the
// format does not have.
const std::set<std::string>* WritableKinds(const std::string& section) {
  static const auto& kinds = *new std::map<std::string, std::set<std::string>>{
      {"prologue", {}},
      {"micro_first", {"accumulator", "buffer"}},
      {"micro_next", {"accumulator", "buffer"}},
      {"boundary",
       {"parameter", "master", "exp_avg", "exp_avg_sq", "momentum", "scaler"}},
      {"evaluate", {}},
      {"replay", {"buffer"}},
  };
  const auto it = kinds.find(section);
  return it == kinds.end() ? nullptr : &it->second;
}

// plan_section and plan_once
absl::Status CheckStateWrites(const Context& c) {
  const std::set<std::string>* kinds = WritableKinds(c.section.name);
  if (kinds == nullptr)
    return Violation("plan_section: unknown section '", c.section.name, "'");
  for (const auto& [buffer, uses] : c.accesses) {
    const Arena arena = c.plan.buffers[buffer].arena;
    if (arena == Arena::kScratch) continue;
    ByteSet written;
    for (const Access& use : uses) {
      if (!use.write) continue;
      if (arena != Arena::kState)
        return Violation("plan_section: ", StepName(c, use.step),
                         " writes buffer ", buffer, " of the ",
                         arena == Arena::kInput ? "input" : "constant",
                         " arena");
      bool found = false;
      for (const StateEntry& entry : c.plan.state) {
        if (c.plan.values[entry.value].buffer != buffer) continue;
        found = true;  // what lies between a bucket's slots is nobody's
        if (!Overlap(BytesOf(c.plan.values[entry.value]), use.bytes)) continue;
        // The boundary sums over ranks where the sums over micro-batches lie.
        const bool reduces =
            c.section.name == "boundary" && entry.kind == "accumulator" &&
            c.section.steps[use.step].kind == StepKind::kCollective;
        if (kinds->count(entry.kind) == 0 && !reduces)
          return Violation("plan_section: ", StepName(c, use.step), " writes ",
                           entry.kind, " ", entry.names[0], ", which section ",
                           c.section.name, " must not");
      }
      if (!found)
        return Violation("plan_section: ", StepName(c, use.step),
                         " writes state buffer ", buffer,
                         ", which no state entry names");
      const std::vector<ByteRange> pieces = PiecesOf(c.plan, use, c.coordinate);
      for (ByteRange piece : pieces) {
        if (written.Meets(piece))
          return Violation("plan_once: ", StepName(c, use.step),
                           " writes bytes of state buffer ", buffer,
                           " that the section has written before");
      }
      for (ByteRange piece : pieces) written.Add(piece);
    }
  }
  return absl::OkStatus();
}

// The bytes of `range` that belong to accumulators. What lies between the slots
// of a bucket is zero from the start, and reading it does no harm.
std::vector<ByteRange> AccumulatorBytes(const Plan& plan, uint32_t buffer,
                                        ByteRange range, int64_t rank) {
  std::vector<ByteRange> parts;
  for (const StateEntry& entry : plan.state) {
    const Value& value = plan.values[entry.value];
    if (value.buffer != buffer || entry.kind != "accumulator" ||
        !Overlap(BytesOf(value, rank), range))
      continue;
    for (ByteRange piece : PiecesOf(value, rank)) {
      if (Overlap(piece, range))
        parts.push_back({std::max(piece.begin, range.begin),
                         std::min(piece.end, range.end)});
    }
  }
  return parts;
}

// plan_initialised across sections: what later sections read of the
// accumulators, the first micro-batch has written.
absl::Status CheckAccumulators(const Plan& plan, int64_t rank) {
  const Section* first = FindSection(plan, "micro_first");
  if (first == nullptr) return absl::OkStatus();
  const auto written = CollectAccesses(plan, *first, rank);
  for (const char* name : {"micro_next", "boundary"}) {
    const Section* later = FindSection(plan, name);
    if (later == nullptr) continue;
    for (const auto& [buffer, uses] : CollectAccesses(plan, *later, rank)) {
      if (plan.buffers[buffer].arena != Arena::kState) continue;
      ByteSet set;
      if (const auto it = written.find(buffer); it != written.end()) {
        for (const Access& use : it->second) {
          if (!use.write) continue;
          for (ByteRange piece : PiecesOf(plan, use, rank)) set.Add(piece);
        }
      }
      for (const Access& use : uses) {
        if (use.write) continue;
        for (ByteRange piece : PiecesOf(plan, use, rank)) {
          for (ByteRange part : AccumulatorBytes(plan, buffer, piece, rank)) {
            if (set.Covers(part)) continue;
            return Violation("plan_initialised: section ", name, " step ",
                             use.step, " reads an accumulator in buffer ",
                             buffer,
                             " that section micro_first does not write");
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

// plan_gemm
absl::Status CheckGemms(const Context& c) {
  for (uint32_t i = 0; i < c.section.steps.size(); ++i) {
    if (c.section.steps[i].kind != StepKind::kGemm) continue;
    absl::StatusOr<Gemm> gemm = GemmOf(c.plan, c.section.steps[i]);
    if (!gemm.ok())
      return Violation(gemm.status().message(), " (", StepName(c, i), ")");
    for (const Matrix& read : {gemm->a, gemm->b}) {
      const Value& value = c.plan.values[read.value];
      const Value& out = c.plan.values[gemm->out.value];
      if (value.buffer == out.buffer && Overlap(BytesOf(value), BytesOf(out)))
        return Violation("plan_gemm: ", StepName(c, i),
                         " writes over a matrix that it multiplies");
    }
  }
  return absl::OkStatus();
}

// Which steps of which section do anything, and whether it is of any use.
struct Use {
  bool writes = false;
  bool used = false;
};
using Uses = std::vector<std::vector<Use>>;

// What a step writes is of use if it is more than scratch, if somebody reads it
// later, or takes no elements of it.
void CollectUses(const Context& c, std::vector<Use>& uses) {
  std::map<uint32_t, uint32_t> last_empty;
  for (uint32_t i = 0; i < c.section.steps.size(); ++i) {
    for (const Arg& arg : c.section.steps[i].args) {
      if (arg.kind != ArgKind::kValue) continue;
      const Value& value = c.plan.values[static_cast<size_t>(arg.i)];
      if (ElementCount(value) == 0) last_empty[value.buffer] = i;
    }
  }
  for (const auto& [buffer, accesses] : c.accesses) {
    const bool scratch = c.plan.buffers[buffer].arena == Arena::kScratch;
    const auto empty = last_empty.find(buffer);
    for (size_t i = 0; i < accesses.size(); ++i) {
      const Access& write = accesses[i];
      if (!write.write) continue;
      Use& use = uses[write.step];
      use.writes = true;
      use.used |=
          !scratch || (empty != last_empty.end() && empty->second > write.step);
      for (size_t j = i + 1; j < accesses.size() && !use.used; ++j)
        use.used = !accesses[j].write && accesses[j].step > write.step &&
                   Overlap(accesses[j].bytes, write.bytes);
    }
  }
}

// plan_unused
absl::Status CheckUses(const Plan& plan, const Uses& uses) {
  if (plan.mode != "train") return absl::OkStatus();
  for (size_t s = 0; s < plan.sections.size(); ++s) {
    const Section& section = plan.sections[s];
    for (size_t i = 0; i < section.steps.size(); ++i) {
      if (uses[s][i].writes && !uses[s][i].used && section.steps[i].rng_id < 0)
        return Violation("plan_unused: section ", section.name, " step ", i,
                         " (", section.steps[i].name,
                         ") writes only what nobody reads");
    }
  }
  return absl::OkStatus();
}

// The bytes that the entry's own elements take on the rank.
std::vector<ByteRange> OwnBytes(const Plan& plan, const StateEntry& entry,
                                int64_t rank) {
  const Value& value = plan.values[entry.value];
  if (entry.bounds.empty()) return PiecesOf(value, rank);
  const auto r = static_cast<size_t>(rank);
  const int64_t end =
      std::min(entry.bounds[r + 1],
               entry.slot_offset + StorageElements(entry.sizes, entry.strides));
  const int64_t begin = std::max(entry.bounds[r], entry.slot_offset);
  if (begin >= end) return {};
  const uint64_t start = BytesOf(value, rank).begin;
  const auto element = static_cast<uint64_t>(ElementSize(value.dtype));
  return {{start + static_cast<uint64_t>(begin - entry.bounds[r]) * element,
           start + static_cast<uint64_t>(end - entry.bounds[r]) * element}};
}

// plan_complete
absl::Status CheckComplete(const Context& c) {
  const bool boundary = c.section.name == "boundary";
  if (c.plan.mode != "train" || (!boundary && c.section.name != "micro_first" &&
                                 c.section.name != "micro_next"))
    return absl::OkStatus();
  std::set<std::string> updated;
  for (const StateEntry& entry : c.plan.state) {
    if (entry.kind == "accumulator") updated.insert(entry.names[0]);
  }
  std::map<uint32_t, ByteSet> written;
  for (const auto& [buffer, uses] : c.accesses) {
    for (const Access& use : uses) {
      if (!use.write || c.plan.buffers[buffer].arena != Arena::kState) continue;
      for (ByteRange piece : PiecesOf(c.plan, use, c.coordinate))
        written[buffer].Add(piece);
    }
  }
  for (const StateEntry& entry : c.plan.state) {
    const bool due = boundary ? entry.kind != "accumulator" &&
                                    entry.kind != "buffer" &&
                                    updated.count(entry.names[0]) != 0
                              : entry.kind == "accumulator";
    if (!due) continue;
    for (ByteRange piece : OwnBytes(c.plan, entry, c.coordinate)) {
      if (!written[c.plan.values[entry.value].buffer].Covers(piece))
        return Violation("plan_complete: section ", c.section.name,
                         " does not write all of ", entry.kind, " ",
                         entry.names[0], " on rank ", c.coordinate);
    }
  }
  return absl::OkStatus();
}

// Every rule that looks at one rank, on the ranks [first, end).
absl::Status VerifyRanks(const Plan& plan, int64_t first, int64_t end,
                         Uses& used) {
  if (absl::Status status = CheckFixedOverlap(plan); !status.ok())
    return status;
  const std::vector<bool> differs = BuffersThatDifferByRank(plan);
  for (size_t s = 0; s < plan.sections.size(); ++s) {
    const Section& section = plan.sections[s];
    absl::StatusOr<HappensBefore> before = HappensBefore::Create(plan, section);
    if (!before.ok()) return before.status();
    for (int64_t rank = first; rank < end; ++rank) {
      AccessMap accesses = CollectAccesses(plan, section, rank);
      const Context context{plan, section, *before, accesses, rank};
      CollectUses(context, used[s]);
      if (absl::Status status = CheckComplete(context); !status.ok())
        return status;
      // What is the same on every rank has been looked at on the first.
      for (auto it = accesses.begin(); rank > first && it != accesses.end();)
        it = differs[it->first] ? std::next(it) : accesses.erase(it);
      for (auto* rule :
           {&CheckCollectives, &CheckGemms, &CheckStateWrites, &CheckOrder,
            &CheckScratchOverlap, &CheckInitialised}) {
        if (absl::Status status = rule(context); !status.ok()) return status;
      }
    }
  }
  for (int64_t rank = first; rank < end; ++rank) {
    if (absl::Status status = CheckAccumulators(plan, rank); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Verify(const Plan& plan) {
  const int64_t ranks = AxisSize(plan, "dp");
  Uses uses;
  for (const Section& section : plan.sections)
    uses.emplace_back(section.steps.size());
  const bool tables = HasRankTables(plan);
  for (int64_t rank = 0; rank < (tables ? ranks : 1); ++rank) {
    const absl::Status status =
        tables ? VerifyRanks(ForRank(plan, rank), rank, rank + 1, uses)
               : VerifyRanks(plan, 0, ranks, uses);
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckUses(plan, uses); !status.ok()) return status;
  return VerifyRanksAgree(plan);
}

}  // namespace heddle::plan
