// An error message -> the one JSON object that --json-errors prints.
// Invariant: `message` is the whole text; the other fields are parts of it, and
// null where a message has no such part.
#ifndef HEDDLE_API_ERRORS_JSON_ERROR_H_
#define HEDDLE_API_ERRORS_JSON_ERROR_H_

#include <string>

namespace heddle {

// {"error": {"tool", "exit_code", "kind", "message", "where", "what",
// "remedy"}} on one line. Messages read "where: what; remedy": `where` is a
// path, a position or an option in front of the first ": ", `remedy` what comes
// after the last "; ".
std::string JsonError(const std::string& tool, int exit_code,
                      const std::string& kind, const std::string& message);

}  // namespace heddle

#endif  // HEDDLE_API_ERRORS_JSON_ERROR_H_
