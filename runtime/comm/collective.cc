#include "runtime/comm/collective.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace heddle::comm {
namespace {

// Far above any memory, far below where products overflow.
constexpr int64_t kMostElements = int64_t{1} << 48;

int64_t SumBefore(const std::vector<int64_t>& counts, int position) {
  int64_t sum = 0;
  for (int i = 0; i < position; ++i) sum += counts[i];
  return sum;
}

struct Bytes {
  const char* begin = nullptr;
  int64_t size = 0;
};

bool Overlap(const Bytes& a, const Bytes& b) {
  return a.size > 0 && b.size > 0 && a.begin < b.begin + b.size &&
         b.begin < a.begin + a.size;
}

bool MayReduce(plan::DType dtype, Reduction reduction) {
  switch (dtype) {
    case plan::DType::kF16:
    case plan::DType::kBF16:
    case plan::DType::kF32:
    case plan::DType::kF64:
    case plan::DType::kI8:
    case plan::DType::kU8:
    case plan::DType::kI32:
    case plan::DType::kI64:
      return true;
    case plan::DType::kBool:
      return reduction != Reduction::kSum;
    default:
      return false;
  }
}

absl::Status CheckCounts(const std::vector<int64_t>& counts, const char* what,
                         const Collective& c, int size) {
  if (static_cast<int>(counts.size()) != size)
    return absl::InvalidArgumentError(absl::StrCat(KindName(c.kind), " has ",
                                                   counts.size(), " ", what,
                                                   " for a group of ", size));
  int64_t sum = 0;
  for (int64_t n : counts) {
    if (n < 0 || n > kMostElements || (sum += n) > kMostElements)
      return absl::InvalidArgumentError(
          absl::StrCat(KindName(c.kind), " has impossible ", what, " [",
                       absl::StrJoin(counts, ","), "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const Collective& c, int size) {
  if (c.count < 0 || c.count > kMostElements / size)
    return absl::InvalidArgumentError(absl::StrCat(
        KindName(c.kind), " has an impossible count of ", c.count));
  const bool slots =
      c.kind == Kind::kAllGather || c.kind == Kind::kReduceScatter;
  if (!c.counts.empty()) {
    if (!slots)
      return absl::InvalidArgumentError(absl::StrCat(
          "counts by position belong to all_gather and reduce_scatter, not to ",
          KindName(c.kind)));
    if (absl::Status s = CheckCounts(c.counts, "counts", c, size); !s.ok())
      return s;
  }
  const bool device = c.device_send_counts || c.device_recv_counts;
  const bool host = !c.send_counts.empty() || !c.recv_counts.empty();
  if ((device || host) && c.kind != Kind::kAllToAll)
    return absl::InvalidArgumentError(
        absl::StrCat("send and receive counts belong to all_to_all, not to ",
                     KindName(c.kind)));
  if (device && host)
    return absl::InvalidArgumentError(
        "all_to_all has counts on the host and on the device; give one");
  if (device && !(c.device_send_counts && c.device_recv_counts))
    return absl::InvalidArgumentError(
        "all_to_all with device counts needs both addresses");
  if (host) {
    for (const auto& [counts, what] :
         {std::pair(&c.send_counts, "send counts"),
          std::pair(&c.recv_counts, "receive counts")}) {
      if (absl::Status s = CheckCounts(*counts, what, c, size); !s.ok())
        return s;
    }
  }
  const bool rooted = c.kind == Kind::kBroadcast || c.kind == Kind::kReduce;
  if (c.root < 0 || c.root >= size || (!rooted && c.root != 0))
    return absl::InvalidArgumentError(absl::StrCat(
        KindName(c.kind), " has root ", c.root, " in a group of ", size));
  return absl::OkStatus();
}

}  // namespace

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kAllGather:
      return "all_gather";
    case Kind::kReduceScatter:
      return "reduce_scatter";
    case Kind::kAllReduce:
      return "all_reduce";
    case Kind::kAllToAll:
      return "all_to_all";
    case Kind::kBroadcast:
      return "broadcast";
    case Kind::kReduce:
      return "reduce";
  }
  return "unknown collective";
}

const char* ReductionName(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return "sum";
    case Reduction::kMax:
      return "max";
    case Reduction::kMin:
      return "min";
  }
  return "unknown reduction";
}

bool Reduces(Kind kind) {
  return kind == Kind::kReduceScatter || kind == Kind::kAllReduce ||
         kind == Kind::kReduce;
}

int64_t SlotCount(const Collective& c, int position) {
  return c.counts.empty() ? c.count : c.counts[position];
}

int64_t SlotOffset(const Collective& c, int position) {
  return c.counts.empty() ? position * c.count : SumBefore(c.counts, position);
}

int64_t SendOffset(const Collective& c, int position) {
  return c.send_counts.empty() ? position * c.count
                               : SumBefore(c.send_counts, position);
}

int64_t SendCount(const Collective& c, int position) {
  return c.send_counts.empty() ? c.count : c.send_counts[position];
}

int64_t RecvOffset(const Collective& c, int position) {
  return c.recv_counts.empty() ? position * c.count
                               : SumBefore(c.recv_counts, position);
}

int64_t RecvCount(const Collective& c, int position) {
  return c.recv_counts.empty() ? c.count : c.recv_counts[position];
}

int64_t InputElements(const Collective& c, int size, int position) {
  switch (c.kind) {
    case Kind::kAllGather:
      return SlotCount(c, position);
    case Kind::kReduceScatter:
      return SlotOffset(c, size);
    case Kind::kAllToAll:
      return SendOffset(c, size);
    case Kind::kBroadcast:
      return position == c.root ? c.count : 0;
    case Kind::kAllReduce:
    case Kind::kReduce:
      return c.count;
  }
  return 0;
}

int64_t OutputElements(const Collective& c, int size, int position) {
  switch (c.kind) {
    case Kind::kAllGather:
      return SlotOffset(c, size);
    case Kind::kReduceScatter:
      return SlotCount(c, position);
    case Kind::kAllToAll:
      return RecvOffset(c, size);
    case Kind::kReduce:
      return position == c.root ? c.count : 0;
    case Kind::kAllReduce:
    case Kind::kBroadcast:
      return c.count;
  }
  return 0;
}

int64_t PayloadBytes(const Collective& c, int size) {
  int64_t elements = 0;
  switch (c.kind) {
    case Kind::kAllGather:
    case Kind::kReduceScatter:
      elements = SlotOffset(c, size);
      break;
    case Kind::kAllToAll:
      elements = std::max(SendOffset(c, size), RecvOffset(c, size));
      break;
    default:
      elements = c.count;
  }
  return elements * plan::ElementSize(c.dtype);
}

absl::Status Validate(const Collective& c, const Group& group) {
  const int size = group.size();
  if (absl::Status s = CheckShape(c, size); !s.ok()) return s;
  if (Reduces(c.kind) && !MayReduce(c.dtype, c.reduction))
    return absl::InvalidArgumentError(absl::StrCat(
        KindName(c.kind), " cannot take the ", ReductionName(c.reduction),
        " of ", plan::DTypeName(c.dtype), "; cast before it"));
  const int64_t element = plan::ElementSize(c.dtype);
  const int p = group.position;
  const Bytes in{static_cast<const char*>(c.input),
                 InputElements(c, size, p) * element};
  const Bytes out{static_cast<const char*>(c.output),
                  OutputElements(c, size, p) * element};
  if ((in.size > 0 && in.begin == nullptr) ||
      (out.size > 0 && out.begin == nullptr))
    return absl::InvalidArgumentError(
        absl::StrCat(KindName(c.kind), " of ", PayloadBytes(c, size),
                     " bytes has no address for its ",
                     in.size > 0 && in.begin == nullptr ? "input" : "output"));
  if (!Overlap(in, out)) return absl::OkStatus();
  const int64_t slot =
      c.kind == Kind::kAllGather || c.kind == Kind::kReduceScatter
          ? SlotOffset(c, p) * element
          : 0;
  bool in_place = in.begin == out.begin;
  if (c.kind == Kind::kAllGather) in_place = in.begin == out.begin + slot;
  if (c.kind == Kind::kReduceScatter) in_place = out.begin == in.begin + slot;
  if (c.kind == Kind::kAllToAll) in_place = false;
  if (in_place) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      KindName(c.kind), " reads ", in.size, " bytes and writes ", out.size,
      " bytes that overlap, ", out.begin - in.begin, " bytes apart",
      c.kind == Kind::kAllToAll
          ? "; an all_to_all is never in place"
          : absl::StrCat("; in place they would be ",
                         c.kind == Kind::kAllGather ? -slot : slot,
                         " bytes apart")));
}

std::string Signature(const Collective& c) {
  std::string text =
      absl::StrCat(KindName(c.kind), " ", plan::DTypeName(c.dtype));
  if (Reduces(c.kind)) absl::StrAppend(&text, " ", ReductionName(c.reduction));
  if (c.kind == Kind::kBroadcast || c.kind == Kind::kReduce)
    absl::StrAppend(&text, " root=", c.root);
  if (!c.counts.empty())
    absl::StrAppend(&text, " [", absl::StrJoin(c.counts, ","), "]");
  else if (!c.send_counts.empty())
    absl::StrAppend(&text, " uneven");
  else
    absl::StrAppend(&text, " ", c.count);
  if (c.device_send_counts != nullptr) absl::StrAppend(&text, " device-counts");
  return text;
}

Collective AllGather(const void* input, void* output, int64_t count,
                     plan::DType dtype) {
  Collective c;
  c.kind = Kind::kAllGather;
  c.dtype = dtype;
  c.input = input;
  c.output = output;
  c.count = count;
  return c;
}

Collective ReduceScatter(const void* input, void* output, int64_t count,
                         plan::DType dtype, Reduction reduction) {
  Collective c = AllGather(input, output, count, dtype);
  c.kind = Kind::kReduceScatter;
  c.reduction = reduction;
  return c;
}

Collective AllReduce(const void* input, void* output, int64_t count,
                     plan::DType dtype, Reduction reduction) {
  Collective c = ReduceScatter(input, output, count, dtype, reduction);
  c.kind = Kind::kAllReduce;
  return c;
}

Collective AllToAll(const void* input, void* output, int64_t count,
                    plan::DType dtype) {
  Collective c = AllGather(input, output, count, dtype);
  c.kind = Kind::kAllToAll;
  return c;
}

Collective Broadcast(const void* input, void* output, int64_t count,
                     plan::DType dtype, int root) {
  Collective c = AllGather(input, output, count, dtype);
  c.kind = Kind::kBroadcast;
  c.root = root;
  return c;
}

Collective Reduce(const void* input, void* output, int64_t count,
                  plan::DType dtype, int root, Reduction reduction) {
  Collective c = ReduceScatter(input, output, count, dtype, reduction);
  c.kind = Kind::kReduce;
  c.root = root;
  return c;
}

}  // namespace heddle::comm
