// Versions of a checkpoint on disk: DIR/step-N, one after the other, and
// DIR/latest, a link to the newest. Invariant: at every moment `latest` names a
// version that is whole: its manifest lists every file with size and CRC-32,
// and was written after them.

#ifndef HEDDLE_TOOLS_HEDDLE_RUN_VERSIONS_H_
#define HEDDLE_TOOLS_HEDDLE_RUN_VERSIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heddle::run {

// A file-system error with its remedy; ResourceExhausted for a full device.
absl::Status filesystemError(const std::string& what,
                             const std::error_code& error);

// The whole file, empty if there is none.
std::string readFile(const std::string& path);

// Lets `fill` write files into a directory, adds the manifest, makes it the
// version of `step` (step-N, or step-N.1 ... where that is taken), moves
// `latest` to it and removes all but the `keep` newest. Returns its path when
// it is on the disk. After an error `latest` is what it was.
absl::StatusOr<std::string> addVersion(
    const std::string& directory, int64_t step, int64_t keep,
    const std::function<absl::Status(const std::string& into)>& fill);

// Checks a version's files against its manifest: DataLoss names the first file
// that is gone, has another size or other bytes.
absl::Status checkVersion(const std::string& version);

}  // namespace heddle::run

#endif  // HEDDLE_TOOLS_HEDDLE_RUN_VERSIONS_H_
