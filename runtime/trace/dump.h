// A rank's flight record as a file: versioned JSON, one file a rank. Invariant:
// ParseDump(DumpJson(d)) equals d, and never crashes, whatever the text is.

#ifndef HEDDLE_RUNTIME_TRACE_DUMP_H_
#define HEDDLE_RUNTIME_TRACE_DUMP_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/trace/flight_recorder.h"
#include "runtime/trace/verdict.h"

namespace heddle::trace {

inline constexpr int kDumpVersion = 1;

std::string DumpJson(const Dump& dump);

// InvalidArgument says what is wrong: not a dump, another version, a field.
[[nodiscard]] absl::StatusOr<Dump> ParseDump(const std::string& text);

// A verdict on its way to the other ranks.
std::string VerdictJson(const Verdict& verdict);
[[nodiscard]] absl::StatusOr<Verdict> ParseVerdict(const std::string& text);

// "flight-recorder.rank3.json"
std::string DumpFileName(int rank);

// Writes the dump into `directory`, which is made if it is not there. The file
// appears whole or not at all.
[[nodiscard]] absl::Status WriteDump(const Dump& dump,
                                     const std::string& directory);

// The dumps of a folder by rank. NotFound if it holds none; InvalidArgument
// names the file that is not one, or two files of one rank or of two worlds.
// Given `damaged`, files that are no dumps are left out and named there, with
// what is wrong, as long as there is one that is.
[[nodiscard]] absl::StatusOr<std::map<int, Dump>> ReadDumps(
    const std::string& directory, std::vector<std::string>* damaged = nullptr);

// A file with this text, or what was there before.
absl::Status WriteWhole(const std::string& path, const std::string& text);

}  // namespace heddle::trace

#endif  // HEDDLE_RUNTIME_TRACE_DUMP_H_
