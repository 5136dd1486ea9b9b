// Collects every collective that some rank waits in, then asks in this order:
// did a rank fail by itself, did ranks issue different things, is somebody not
// there who waits nowhere else, do ranks wait in a ring, or does a complete
// collective not end.

#include "runtime/trace/verdict.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace heddle::trace {
namespace {

// One collective that has not ended well on some rank.
struct Waiting {
  std::string group;
  int64_t sequence = 0;
  int64_t since_ns = 0;  // when the first rank began to wait
  int64_t seen_ns = 0;   // when the last dump was written
  std::vector<int> members;
  std::map<int, const Record*> present;
  std::vector<int> absent;
  std::vector<int> failed;  // the transport gave them an error
};

std::string Ranks(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ",
                      absl::StrJoin(ranks, ", "));
}

bool Waits(const Record& r) {
  return r.state == State::kStarted || r.state == State::kFailed;
}

const GroupRecord* FindGroup(const Dump& dump, const std::string& name) {
  for (const GroupRecord& group : dump.groups) {
    if (group.name == name) return &group;
  }
  return nullptr;
}

std::vector<Waiting> Collect(const std::map<int, Dump>& dumps) {
  std::map<std::pair<std::string, int64_t>, Waiting> found;
  for (const auto& [rank, dump] : dumps) {
    for (const Record& r : dump.records) {
      if (!Waits(r)) continue;
      Waiting& w = found[{r.group, r.sequence}];
      w.group = r.group;
      w.sequence = r.sequence;
      if (w.since_ns == 0 || r.started_ns < w.since_ns)
        w.since_ns = r.started_ns;
      if (const GroupRecord* g = FindGroup(dump, r.group); g != nullptr)
        w.members = g->ranks;
    }
  }
  std::vector<Waiting> all;
  for (auto& [key, w] : found) {
    for (const auto& [rank, dump] : dumps) {
      w.seen_ns = std::max(w.seen_ns, dump.written_ns);
      for (const Record& r : dump.records) {
        if (r.group != w.group || r.sequence != w.sequence) continue;
        if (r.state == State::kEnqueued) continue;
        w.present[rank] = &r;
        if (r.state == State::kFailed) w.failed.push_back(rank);
      }
    }
    for (int rank : w.members) {
      if (w.present.count(rank) != 0) continue;
      // The record may have left the ring; the counter has not.
      const auto dump = dumps.find(rank);
      const GroupRecord* g =
          dump == dumps.end() ? nullptr : FindGroup(dump->second, w.group);
      if (g == nullptr || g->started < w.sequence) w.absent.push_back(rank);
    }
    all.push_back(std::move(w));
  }
  std::sort(all.begin(), all.end(), [](const Waiting& a, const Waiting& b) {
    return a.since_ns < b.since_ns;
  });
  return all;
}

// "all_gather f32 8 #17 of group dp [0,1] (32 bytes; zero.gather in
// model.layers.3 at model.py:88)"
std::string Name(const Waiting& w, const Record& r) {
  std::string place;
  if (!r.op.empty()) absl::StrAppend(&place, "; ", r.op);
  if (!r.module.empty()) absl::StrAppend(&place, " in ", r.module);
  if (!r.source.empty()) absl::StrAppend(&place, " at ", r.source);
  return absl::StrCat(r.signature, " #", w.sequence, " of group ", w.group,
                      " [", absl::StrJoin(w.members, ","), "] (", r.bytes,
                      " bytes", place, ")");
}

std::string Seconds(const Waiting& w) {
  const int64_t tenths = (w.seen_ns - w.since_ns) / 100000000;
  return absl::StrCat(tenths / 10, ".", tenths % 10, " s");
}

std::vector<int> PresentRanks(const Waiting& w) {
  std::vector<int> ranks;
  for (const auto& [rank, r] : w.present) ranks.push_back(rank);
  return ranks;
}

// What is known of a rank that a collective waits for.
std::string Whereabouts(int rank, const Waiting& w,
                        const std::map<int, Dump>& dumps) {
  const auto dump = dumps.find(rank);
  if (dump == dumps.end())
    return absl::StrCat("rank ", rank, " gave no sign of life");
  const GroupRecord* g = FindGroup(dump->second, w.group);
  const int64_t begun = g == nullptr ? 0 : g->started;
  const int64_t issued = g == nullptr ? 0 : g->issued;
  std::string text = absl::StrCat("rank ", rank);
  if (dump->second.left) {
    absl::StrAppend(&text, " has left the run after #", begun);
  } else if (issued >= w.sequence) {
    absl::StrAppend(&text, " has enqueued it behind work that does not end");
  } else if (begun == 0) {
    absl::StrAppend(&text, " has not begun any collective of the group");
  } else {
    absl::StrAppend(&text, " was last in #", begun,
                    " and has not come to this one");
  }
  return text;
}

Verdict About(Finding finding, std::vector<int> ranks, const Waiting& w,
              std::string text) {
  return {finding, std::move(ranks), w.group, w.sequence, std::move(text)};
}

bool FindFailure(const std::map<int, Dump>& dumps,
                 const std::vector<Waiting>& waiting, Verdict& verdict) {
  std::vector<int> failed;
  for (const auto& [rank, dump] : dumps) {
    if (!dump.failure.empty()) failed.push_back(rank);
  }
  if (failed.empty()) return false;
  std::string text =
      absl::StrCat(Ranks(failed), " failed: ", dumps.at(failed[0]).failure);
  for (const Waiting& w : waiting) {
    const bool waits_for_it =
        std::any_of(failed.begin(), failed.end(), [&](int rank) {
          return std::count(w.absent.begin(), w.absent.end(), rank) > 0;
        });
    if (!waits_for_it) continue;
    verdict =
        About(Finding::kFailed, failed, w,
              absl::StrCat(text, "; ", Ranks(PresentRanks(w)), " waited in ",
                           Name(w, *w.present.begin()->second)));
    return true;
  }
  verdict = {Finding::kFailed, failed, "", 0, text};
  return true;
}

bool FindMismatch(const std::vector<Waiting>& waiting, Verdict& verdict) {
  for (const Waiting& w : waiting) {
    // What most ranks issued is taken for right; of two camps of one size the
    // one with the lowest rank.
    std::map<std::string, std::vector<int>> camps;
    for (const auto& [rank, r] : w.present) camps[r->signature].push_back(rank);
    if (camps.size() < 2) continue;
    const auto right = std::max_element(
        camps.begin(), camps.end(), [](const auto& a, const auto& b) {
          if (a.second.size() != b.second.size())
            return a.second.size() < b.second.size();
          return a.second[0] > b.second[0];
        });
    std::vector<int> others;
    std::string text;
    for (const auto& [signature, ranks] : camps) {
      if (signature == right->first) continue;
      others.insert(others.end(), ranks.begin(), ranks.end());
      const Record& r = *w.present.at(ranks[0]);
      absl::StrAppend(&text, text.empty() ? "" : ", ", Ranks(ranks), " issued ",
                      Name(w, r));
    }
    std::sort(others.begin(), others.end());
    const Record& r = *w.present.at(right->second[0]);
    verdict = About(Finding::kMismatch, others, w,
                    absl::StrCat(text, " where ", Ranks(right->second),
                                 " issued ", Name(w, r)));
    return true;
  }
  return false;
}

// Ranks that are inside a collective which lacks somebody.
std::set<int> Blocked(const std::vector<Waiting>& waiting) {
  std::set<int> blocked;
  for (const Waiting& w : waiting) {
    if (w.absent.empty()) continue;
    for (const auto& [rank, r] : w.present) {
      if (Waits(*r)) blocked.insert(rank);
    }
  }
  return blocked;
}

// Which absent ranks are to blame. A rank that gave no sign explains more than
// one that left, and that more than one that is merely late.
enum class Absence { kSilent, kLeft, kLate };

bool FindMissing(Absence absence, const std::map<int, Dump>& dumps,
                 const std::vector<Waiting>& waiting, Verdict& verdict) {
  const std::set<int> blocked = Blocked(waiting);
  // A collective that lacks only such ranks comes first: another may also lack
  // those who wait for them elsewhere.
  for (bool only : {true, false}) {
    for (const Waiting& w : waiting) {
      std::vector<int> missing;
      for (int rank : w.absent) {
        const auto dump = dumps.find(rank);
        const bool silent = dump == dumps.end();
        const bool left = !silent && dump->second.left;
        if (absence == Absence::kSilent && !silent) continue;
        if (absence == Absence::kLeft && !left) continue;
        if (blocked.count(rank) == 0) missing.push_back(rank);
      }
      if (missing.empty() || (only && missing != w.absent)) continue;
      std::string text = absl::StrCat(
          Ranks(missing), missing.size() == 1 ? " is" : " are",
          " missing: ", Name(w, *w.present.begin()->second), " has waited ",
          Seconds(w), " on ", Ranks(PresentRanks(w)));
      for (int rank : missing)
        absl::StrAppend(&text, "; ", Whereabouts(rank, w, dumps));
      verdict = About(Finding::kMissing, missing, w, text);
      return true;
    }
  }
  return false;
}

bool FindCycle(const std::vector<Waiting>& waiting, Verdict& verdict) {
  std::set<int> ranks;
  std::string text;
  const Waiting* first = nullptr;
  for (const Waiting& w : waiting) {
    if (w.absent.empty()) continue;
    if (first == nullptr) first = &w;
    absl::StrAppend(&text, text.empty() ? "" : ", and ", Ranks(PresentRanks(w)),
                    " in ", Name(w, *w.present.begin()->second), " for ",
                    Ranks(w.absent));
    for (const auto& [rank, r] : w.present) ranks.insert(rank);
  }
  if (first == nullptr) return false;
  verdict = About(
      Finding::kCycle, {ranks.begin(), ranks.end()}, *first,
      absl::StrCat("ranks issue the collectives of several groups in different "
                   "orders and wait for each other: ",
                   text));
  return true;
}

}  // namespace

std::string WaitingText(const Dump& dump) {
  std::string text;
  const std::map<int, Dump> alone = {{dump.rank, dump}};  // Waiting points here
  for (const Waiting& w : Collect(alone))
    absl::StrAppend(&text, text.empty() ? "" : ", ",
                    Name(w, *w.present.begin()->second));
  return text.empty() ? "no collective" : text;
}

Verdict Judge(int world, const std::map<int, Dump>& dumps) {
  const std::vector<Waiting> waiting = Collect(dumps);
  Verdict verdict;
  if (FindFailure(dumps, waiting, verdict)) return verdict;
  if (FindMismatch(waiting, verdict)) return verdict;
  for (Absence absence : {Absence::kSilent, Absence::kLeft}) {
    if (FindMissing(absence, dumps, waiting, verdict)) return verdict;
  }
  // An error of the transport comes at once: who is not there yet is late
  // because of it, or on its way.
  const bool failed =
      std::any_of(waiting.begin(), waiting.end(),
                  [](const Waiting& w) { return !w.failed.empty(); });
  if (!failed && (FindMissing(Absence::kLate, dumps, waiting, verdict) ||
                  FindCycle(waiting, verdict)))
    return verdict;
  for (const Waiting& w : waiting) {
    if (failed && w.failed.empty()) continue;
    const std::vector<int> ranks =
        w.failed.empty() ? PresentRanks(w) : w.failed;
    const Record& r = *w.present.at(ranks[0]);
    verdict = About(Finding::kStuck, ranks, w,
                    w.failed.empty()
                        ? absl::StrCat("all ranks take part in ", Name(w, r),
                                       ", which has not ended for ", Seconds(w))
                        : absl::StrCat(Name(w, r), " failed on ",
                                       Ranks(w.failed), ": ", r.error));
    return verdict;
  }
  std::vector<int> silent;
  for (int rank = 0; rank < world; ++rank) {
    if (dumps.count(rank) == 0) silent.push_back(rank);
  }
  if (!silent.empty())
    return {Finding::kMissing, silent, "", 0,
            absl::StrCat(Ranks(silent),
                         " gave no sign of life; no collective waits for ",
                         silent.size() == 1 ? "it" : "them")};
  verdict.text = "no rank failed and no collective waits";
  return verdict;
}

}  // namespace heddle::trace
