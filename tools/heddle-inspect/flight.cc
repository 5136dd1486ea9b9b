// A folder of flight records -> who kept whom waiting, for people: a line per
// rank, then the verdict, which is the one that the running ranks reached if
// their records are all there.
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "runtime/trace/dump.h"
#include "runtime/trace/verdict.h"
#include "tools/heddle-inspect/outputs.h"

namespace heddle::inspect {
namespace {

std::string rankLine(const trace::Dump& dump) {
  int64_t issued = 0, finished = 0;
  for (const trace::GroupRecord& group : dump.groups) {
    issued += group.issued;
    finished += group.finished;
  }
  std::string line =
      absl::StrCat("  rank ", dump.rank, ": ", finished, " of ", issued,
                   " collectives ended, in ", trace::WaitingText(dump));
  if (dump.left) absl::StrAppend(&line, ", left in good order");
  if (!dump.failure.empty()) absl::StrAppend(&line, ", failed: ", dump.failure);
  return line + "\n";
}

}  // namespace

absl::StatusOr<std::string> flightText(const std::string& directory) {
  std::vector<std::string> damaged;
  absl::StatusOr<std::map<int, trace::Dump>> dumps =
      trace::ReadDumps(directory, &damaged);
  if (!dumps.ok()) return dumps.status();
  const trace::Dump& first = dumps->begin()->second;
  std::string text =
      absl::StrCat("Flight records of ", dumps->size(), " of ", first.world,
                   " ranks (", first.backend, ")\n");
  for (int rank = 0; rank < first.world; ++rank) {
    const auto dump = dumps->find(rank);
    if (dump == dumps->end())
      absl::StrAppend(&text, "  rank ", rank, ": left no record",
                      damaged.empty() ? "" : " that can be read", "\n");
    else
      absl::StrAppend(&text, rankLine(dump->second));
  }
  for (const std::string& file : damaged)
    absl::StrAppend(&text, "  damaged: ", file, "\n");
  absl::StrAppend(&text, "Verdict",
                  damaged.empty() ? "" : " without what is damaged", ": ",
                  trace::Judge(first.world, *dumps).text, "\n");
  return text;
}

}  // namespace heddle::inspect
