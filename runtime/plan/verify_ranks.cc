// Runs each section once for all ranks in step, on Contents instead of numbers.
// A step's results are as different between ranks as the most different thing
// it reads; kernels that go through tensors element by element keep the
// elements' numbers, everything else makes a new tensor. What would break it: a
// kernel that moves elements about and stands in ElementwiseOperands.

#include "runtime/plan/verify_ranks.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/plan/collective.h"
#include "runtime/plan/contents.h"
#include "runtime/plan/rank_memory.h"

namespace heddle::plan {
namespace {

// Arguments of a kernel whose elements of one number go together, and how its
// results follow: result j lies over or is made from entry j % n of `results`.
struct Elementwise {
  std::vector<std::string> operands;
  std::string results;
};

const Elementwise* ElementwiseOperands(const Step& step) {
  static const auto& kernels = *new std::map<std::string, Elementwise>{
      {"accumulate", {{"dst", "src"}, "dst"}},
      {"adamw", {{"exp_avg", "exp_avg_sq", "grad", "param"}, ""}},
      {"multi_adamw",
       {{"exp_avgs", "exp_avg_sqs", "grads", "params", "copies"}, ""}},
      {"muon_momentum", {{"momenta", "grads"}, "momenta"}},
      {"newton_schulz", {{"x"}, "x"}},
      {"muon_apply", {{"params", "updates"}, "params"}},
  };
  if (step.kind != StepKind::kKernel) return nullptr;
  const auto it = kernels.find(step.name);
  return it == kernels.end() ? nullptr : &it->second;
}

std::vector<int64_t> ValuesOf(const Arg& arg) {
  if (arg.kind == ArgKind::kValue) return {arg.i};
  if (arg.kind == ArgKind::kValueList) return arg.ints;
  return {};
}

std::vector<int64_t> ValuesOf(const Step& step, const std::string& name) {
  for (const Arg& arg : step.args) {
    if (arg.name == name) return ValuesOf(arg);
  }
  return {};
}

bool ReadsOld(const Step& step, const Arg& arg) {
  if (step.kind != StepKind::kKernel || step.name != "accumulate" ||
      arg.name != "dst")
    return true;
  for (const Arg& other : step.args) {
    if (other.name == "first") return other.i == 0;
  }
  return true;
}

class Simulation : private RankMemory {
 public:
  explicit Simulation(const Plan& plan)
      : RankMemory(plan), plan_(plan), ranks_(ranks()), fresh_(names()) {}

  absl::Status Run(const Section& section) {
    section_ = &section;
    Reset();
    for (index_ = 0; index_ < section.steps.size(); ++index_) {
      const Step& step = section.steps[index_];
      absl::Status status = step.kind == StepKind::kCollective
                                ? RunCollective(step)
                                : RunStep(step);
      if (!status.ok()) return status;
      fresh_ += static_cast<int64_t>(step.results.size());
    }
    if (absl::Status status = CheckState(); !status.ok()) return status;
    return CheckResults();
  }

 private:
  template <typename... Args>
  absl::Status Violation(const char* rule, const Args&... args) const {
    return absl::FailedPreconditionError(
        absl::StrCat(rule, ": section ", section_->name,
                     index_ < section_->steps.size()
                         ? absl::StrCat(" step ", index_, " (",
                                        section_->steps[index_].name, ") ")
                         : " ",
                     args...));
  }

  int64_t NamedElements(int64_t value, int64_t rank) {
    int64_t bytes = 0;
    for (const Piece& piece : Read(value, rank))
      bytes += IsNamed(piece.content) ? piece.end - piece.begin : 0;
    return bytes / ElementSize(ValueAt(value).dtype);
  }

  // plan_parts, where the elements of two values go together.
  absl::Status CheckMeeting(int64_t first, int64_t second, size_t pair,
                            bool may_have_more, int64_t rank) {
    const Place a = PlaceOf(first, rank), b = PlaceOf(second, rank);
    if (!a.exists || !b.exists) return absl::OkStatus();
    const int64_t size_a = ElementSize(ValueAt(first).dtype);
    const int64_t size_b = ElementSize(ValueAt(second).dtype);
    if ((a.end - a.begin) / size_a != (b.end - b.begin) / size_b ||
        !IsDense(ValueAt(first)) || !IsDense(ValueAt(second)))
      return absl::OkStatus();
    const std::vector<Piece> others = Read(second, rank);
    int64_t together = 0;
    for (const Piece& x : Read(first, rank)) {
      for (const Piece& y : others) {
        const int64_t from = std::max((x.begin - a.begin) / size_a,
                                      (y.begin - b.begin) / size_b);
        const int64_t to =
            std::min((x.end - a.begin) / size_a, (y.end - b.begin) / size_b);
        const Content &p = x.content, &q = y.content;
        if (from >= to || p.tensor < 0 || q.tensor < 0 || p.element != size_a ||
            q.element != size_b)
          continue;
        const int64_t number_x = (a.begin + from * size_a - p.origin) / size_a;
        const int64_t number_y = (b.begin + from * size_b - q.origin) / size_b;
        if (IsNamed(p) && IsNamed(q)) {
          if (p.tensor != q.tensor || number_x != number_y)
            return Violation("plan_parts", "takes element ", number_x, " of ",
                             TensorName(p.tensor), " together with element ",
                             number_y, " of ", TensorName(q.tensor),
                             " on rank ", rank);
          together += to - from;
        }
        const auto [met, added] =
            met_.try_emplace({pair, p.tensor, q.tensor}, number_x - number_y);
        if (!added && met->second != number_x - number_y)
          return Violation("plan_parts", "takes element ", number_x, " of ",
                           TensorName(p.tensor), " together with element ",
                           number_y, " of ", TensorName(q.tensor), " on rank ",
                           rank, ", and elsewhere together with element ",
                           number_x - met->second);
      }
    }
    // What state has of a tensor goes together with all that other state has,
    // but for parameters that the update leaves alone.
    if (ArenaOf(ValueAt(first)) != Arena::kState ||
        ArenaOf(ValueAt(second)) != Arena::kState)
      return absl::OkStatus();
    const int64_t of_first = NamedElements(first, rank);
    const int64_t of_second = NamedElements(second, rank);
    if (together < of_first || (!may_have_more && together < of_second))
      return Violation("plan_parts", "takes ", of_first,
                       " elements of state together with ", of_second,
                       " of which ", together, " are the same on rank ", rank);
    return absl::OkStatus();
  }

  // plan_parts: on every rank a kernel's lists are of one length.
  absl::Status CheckLists(const Step& step, const Elementwise& kernel) const {
    for (int64_t rank = 0; rank < ranks_; ++rank) {
      const auto count = [&](const std::vector<int64_t>& values) {
        return std::count_if(values.begin(), values.end(), [&](int64_t value) {
          const std::vector<int64_t>* offsets = nullptr;
          if (value >= 0) offsets = &ValueAt(value).rank_offsets;
          return offsets == nullptr || offsets->empty() ||
                 (*offsets)[static_cast<size_t>(rank)] >= 0;
        });
      };
      const int64_t wanted = count(ValuesOf(step, kernel.operands[0]));
      for (const std::string& name : kernel.operands) {
        const std::vector<int64_t> list = ValuesOf(step, name);
        if (list.empty() || count(list) == wanted) continue;
        return Violation("plan_parts", "has ", wanted, " ", kernel.operands[0],
                         " and ", count(list), " ", name, " on rank ", rank);
      }
      const int64_t results = count({step.results.begin(), step.results.end()});
      if (wanted == 0 ? results != 0 : results % wanted != 0 || results == 0)
        return Violation("plan_parts", "has ", wanted, " ", kernel.operands[0],
                         " and ", results, " results on rank ", rank);
    }
    return absl::OkStatus();
  }

  // What element j of a result is made from, or -1.
  int64_t SourceOf(const Step& step, size_t result) const {
    if (step.kind == StepKind::kCopy) {
      const std::vector<int64_t> source = ValuesOf(step, "src");
      return source.empty() ? -1 : source[0];
    }
    for (const Arg& arg : step.args) {
      for (int64_t value : ValuesOf(arg)) {
        if (value == step.results[result]) return value;
      }
    }
    const Elementwise* kernel = ElementwiseOperands(step);
    if (kernel == nullptr || kernel->results.empty()) return -1;
    const std::vector<int64_t> sources = ValuesOf(step, kernel->results);
    return sources.empty() ? -1 : sources[result % sources.size()];
  }

  // The elements of `source` at the place of a result of as many elements.
  std::vector<Piece> Carried(int64_t source, int64_t result, int64_t rank) {
    const Place from = PlaceOf(source, rank), to = PlaceOf(result, rank);
    if (!from.exists || !to.exists || !IsDense(ValueAt(source)) ||
        !IsDense(ValueAt(result)))
      return {};
    const int64_t size = ElementSize(ValueAt(source).dtype);
    const int64_t wanted = ElementSize(ValueAt(result).dtype);
    if ((from.end - from.begin) / size != (to.end - to.begin) / wanted)
      return {};
    std::vector<Piece> pieces = Read(source, rank);
    const auto at = [&](int64_t address) {
      return to.begin + (address - from.begin) / size * wanted;
    };
    for (Piece& piece : pieces) {
      if (piece.content.element != size) piece.content.tensor = -1;
      piece.begin = at(piece.begin);
      piece.end = at(piece.end);
      piece.content.origin = at(piece.content.origin);
      piece.content.element = wanted;
    }
    return pieces;
  }

  absl::Status RunStep(const Step& step) {
    met_.clear();
    if (const Elementwise* kernel = ElementwiseOperands(step)) {
      const std::vector<int64_t> first = ValuesOf(step, kernel->operands[0]);
      if (absl::Status status = CheckLists(step, *kernel); !status.ok())
        return status;
      for (size_t k = 1; k < kernel->operands.size(); ++k) {
        const std::vector<int64_t> other = ValuesOf(step, kernel->operands[k]);
        const bool more = kernel->operands[k][0] == 'p';  // param, params
        for (size_t i = 0; i < std::min(first.size(), other.size()); ++i) {
          for (int64_t rank = 0; rank < ranks_; ++rank) {
            if (absl::Status status =
                    CheckMeeting(first[i], other[i], k, more, rank);
                !status.ok())
              return status;
          }
        }
      }
    }
    for (int64_t rank = 0; rank < ranks_; ++rank) {
      if (absl::Status status = CheckReads(step, rank); !status.ok())
        return status;
      RunStepOn(step, rank);
    }
    return absl::OkStatus();
  }

  // plan_parts: the model computes with whole tensors of the state, and with
  // one at a time.
  absl::Status CheckReads(const Step& step, int64_t rank) {
    if ((step.kind != StepKind::kAten && step.kind != StepKind::kGemm) ||
        section_->name == "boundary")
      return absl::OkStatus();
    for (const Arg& arg : step.args) {
      for (int64_t value : ValuesOf(arg)) {
        const Content* first = nullptr;
        const std::vector<Piece> pieces = Read(value, rank);
        for (const Piece& piece : pieces) {
          if (IsNamed(piece.content)) first = &piece.content;
        }
        if (first == nullptr) continue;
        for (const Piece& piece : pieces) {
          if (piece.content.tensor != first->tensor ||
              piece.content.origin != first->origin)
            return Violation("plan_parts", "reads ", TensorName(first->tensor),
                             " and what lies beside it on rank ", rank);
          if (piece.content.agreement == Agreement::kPart)
            return Violation("plan_parts", "reads the part of ",
                             TensorName(first->tensor), " that rank ", rank,
                             " has");
        }
      }
    }
    return absl::OkStatus();
  }

  void RunStepOn(const Step& step, int64_t rank) {
    Content made;
    if (step.rng_id >= 0) made.agreement = Agreement::kOwn;
    const auto at_least = [&](Agreement other) {
      made.agreement = std::max(made.agreement, other);
    };
    for (const Arg& arg : step.args) {
      if (arg.kind == ArgKind::kRuntime && arg.s == "rank")
        at_least(Agreement::kPart);
      if (!ReadsOld(step, arg)) continue;
      for (int64_t value : ValuesOf(arg)) {
        if (value < 0) continue;
        if (!(PlaceOf(value, rank) == PlaceOf(value, 0)))
          at_least(Agreement::kPart);
        for (const Piece& piece : Read(value, rank)) {
          at_least(piece.content.agreement);
          made.summed |= piece.content.summed;
          made.picked |= piece.content.picked;
        }
      }
    }
    std::vector<std::vector<Piece>> carried;
    for (size_t j = 0; j < step.results.size(); ++j) {
      const int64_t source = SourceOf(step, j);
      carried.push_back(source < 0 ? std::vector<Piece>{}
                                   : Carried(source, step.results[j], rank));
    }
    for (size_t j = 0; j < step.results.size(); ++j) {
      const Place place = PlaceOf(step.results[j], rank);
      if (!place.exists) continue;
      const Value& value = ValueAt(step.results[j]);
      Content content = made;
      if (!(place == PlaceOf(step.results[j], 0)))
        content.agreement = std::max(content.agreement, Agreement::kPart);
      // A part that is made here is not said to be of any tensor.
      if (content.agreement != Agreement::kPart)
        content.tensor = fresh_ + static_cast<int64_t>(j);
      content.origin = place.begin;
      content.element = ElementSize(value.dtype);
      Write(step.results[j], rank, content);
      for (Piece& piece : carried[j]) {
        piece.content.agreement = content.agreement;
        piece.content.summed = content.summed;
        piece.content.picked = content.picked;
        piece.content.reduced &= step.kind == StepKind::kCopy;
      }
      if (!carried[j].empty())
        Put(step.results[j], rank, place.end - place.begin, carried[j]);
    }
  }

  absl::Status RunCollective(const Step& step) {
    const absl::StatusOr<Collective> collective = ReadCollective(plan_, step);
    if (!collective.ok()) return collective.status();
    const Collective& c = *collective;
    const int64_t element = ElementSize(ValueAt(c.src).dtype);
    const bool parts = c.kind == CollectiveKind::kAllGather ||
                       c.kind == CollectiveKind::kReduceScatter;
    const auto bytes_of = [&](int64_t rank) {
      const Place place = PlaceOf(c.dst, rank);
      const auto r = static_cast<size_t>(rank);
      return c.kind == CollectiveKind::kReduceScatter
                 ? (c.bounds[r + 1] - c.bounds[r]) * element
                 : place.end - place.begin;
    };
    if (c.axis != "dp") {  // an axis of one rank: a copy
      for (int64_t rank = 0; rank < ranks_; ++rank) {
        const Place from = PlaceOf(c.src, rank), to = PlaceOf(c.dst, rank);
        const int64_t count =
            parts ? c.bounds[1] : (from.end - from.begin) / element;
        Put(c.dst, rank, count * element,
            Moved(ReadElements(c.src, rank, 0, count), to.begin - from.begin));
      }
      return absl::OkStatus();
    }
    if (c.kind == CollectiveKind::kAllGather) return Gather(c, element);
    if (c.kind == CollectiveKind::kBroadcast) {
      std::vector<Piece> pieces = Carried(c.src, c.dst, c.root);
      const int64_t from = PlaceOf(c.dst, c.root).begin;
      for (Piece& piece : pieces) {
        if (piece.content.agreement == Agreement::kOwn && c.root != 0)
          return Violation("plan_agree", "makes what rank ", c.root,
                           " has of its own everyone's, not what rank 0 has");
        piece.content.picked |= piece.content.agreement == Agreement::kOwn ||
                                (piece.content.agreement == Agreement::kPart &&
                                 !IsNamed(piece.content));
        piece.content.agreement = Agreement::kSame;
      }
      for (int64_t rank = 0; rank < ranks_; ++rank)
        Put(c.dst, rank, bytes_of(rank),
            Moved(pieces, PlaceOf(c.dst, rank).begin - from));
      return absl::OkStatus();
    }
    for (int64_t rank = 0; rank < ranks_; ++rank) {
      const auto r = static_cast<size_t>(rank);
      std::vector<Piece> pieces =
          parts ? ReadElements(c.src, rank, c.bounds[r], c.bounds[r + 1])
                : Read(c.src, rank);
      for (Piece& piece : pieces) {
        if (piece.content.reduced)
          return Violation("plan_agree",
                           "sums over the ranks what is such a sum already");
        piece.content.agreement = parts ? Agreement::kPart : Agreement::kSame;
        piece.content.reduced = true;
        piece.content.summed = true;
      }
      const int64_t from =
          PlaceOf(c.src, rank).begin + (parts ? c.bounds[r] * element : 0);
      Put(c.dst, rank, bytes_of(rank),
          Moved(pieces, PlaceOf(c.dst, rank).begin - from));
    }
    return absl::OkStatus();
  }

  absl::Status Gather(const Collective& c, int64_t element) {
    std::vector<Piece> whole;  // counted from dst's start
    std::map<int64_t, int64_t> origins;
    for (int64_t rank = 0; rank < ranks_; ++rank) {
      const auto r = static_cast<size_t>(rank);
      const std::vector<Piece> part =
          ReadElements(c.src, rank, 0, c.bounds[r + 1] - c.bounds[r]);
      for (Piece piece :
           Moved(part, c.bounds[r] * element - PlaceOf(c.src, rank).begin)) {
        const Content& content = piece.content;
        piece.content.agreement = Agreement::kSame;
        whole.push_back(piece);
        if (content.tensor < 0) continue;
        const auto [origin, added] =
            origins.try_emplace(content.tensor, content.origin);
        if (!added && origin->second != content.origin)
          return Violation("plan_parts", "puts rank ", rank, "'s part of ",
                           TensorName(content.tensor), " ",
                           (content.origin - origin->second) / element,
                           " elements from where the parts before it end");
      }
    }
    for (int64_t rank = 0; rank < ranks_; ++rank)
      Put(c.dst, rank, c.bounds.back() * element,
          Moved(whole, PlaceOf(c.dst, rank).begin));
    return absl::OkStatus();
  }

  absl::Status CheckState() {
    for (const StateEntry& entry : plan_.state) {
      const bool whole = entry.bounds.empty();
      if (whole && entry.kind == "accumulator") continue;
      for (int64_t rank = 0; rank < ranks_; ++rank) {
        const Piece own = OwnPart(entry, rank);
        for (const Piece& piece : ReadState(own, rank)) {
          const Content& content = piece.content;
          if (content.agreement > (whole ? Agreement::kSame : Agreement::kPart))
            return Violation("plan_agree", "leaves ", entry.kind, " ",
                             entry.names[0],
                             whole ? " different from rank to rank"
                                   : " with what only one rank has");
          const bool buffer = entry.kind == "buffer";
          if (buffer ? content.summed : content.picked)
            return Violation("plan_agree", "leaves ", entry.kind, " ",
                             entry.names[0],
                             buffer ? " with a sum over the ranks, not with "
                                      "what rank 0 has"
                                    : " with what one rank alone has");
          // Buffers may be copied from each other.
          if (buffer || !IsNamed(content)) continue;
          if (content.tensor != own.content.tensor ||
              content.origin != own.content.origin)
            return Violation("plan_parts", "leaves ", entry.kind, " ",
                             entry.names[0], " on rank ", rank,
                             " with elements of ", TensorName(content.tensor),
                             " in other places");
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckResults() {
    if (section_->name != "boundary") return absl::OkStatus();
    for (const Binding& result : section_->results) {
      for (const Piece& piece : Read(result.value, ranks_ - 1)) {
        if (piece.content.agreement != Agreement::kSame)
          return Violation("plan_agree", "returns ", result.kind, " ",
                           result.name, " different from rank to rank");
      }
    }
    return absl::OkStatus();
  }

  const Plan& plan_;
  const int64_t ranks_;
  const Section* section_ = nullptr;
  size_t index_ = 0;
  int64_t fresh_;
  // Of the current step: operands and tensors that met, and the difference of
  // their elements' numbers.
  std::map<std::tuple<size_t, int64_t, int64_t>, int64_t> met_;
};

}  // namespace

absl::Status VerifyRanksAgree(const Plan& plan) {
  const uint32_t ranks = AxisSize(plan, "dp");
  if (ranks == 1 || ranks != WorldSize(plan) || plan.mode != "train")
    return absl::OkStatus();
  Simulation simulation(plan);
  for (const Section& section : plan.sections) {
    if (absl::Status status = simulation.Run(section); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

}  // namespace heddle::plan
