// The forms in which a described program leaves the tool, each the whole
// content of a file or of the terminal.
#ifndef HEDDLE_TOOLS_HEDDLE_INSPECT_OUTPUTS_H_
#define HEDDLE_TOOLS_HEDDLE_INSPECT_OUTPUTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "tools/heddle-inspect/program.h"

namespace heddle::inspect {

// For the terminal.
std::string summaryText(const Program& program);
// Model Explorer's graph collection: one graph per section, namespaces are
// module paths.
std::string modelExplorerJson(const Program& program);
// Chrome's trace event format, which Perfetto opens: one process per section,
// one thread per stream.
std::string traceJson(const Program& program);
// Graphviz: one cluster per module, views left out.
std::string dotText(const Program& program);
// One page without any reference to another file or host.
std::string htmlPage(const Program& program);
// What changed from `before` to `after`; says so if nothing did.
std::string diffText(const Program& before, const Program& after);

// Who kept whom waiting, out of a folder of flight records; the error names
// the folder or the file.
absl::StatusOr<std::string> flightText(const std::string& directory);

}  // namespace heddle::inspect

#endif  // HEDDLE_TOOLS_HEDDLE_INSPECT_OUTPUTS_H_
