// Takes messages apart where the project's messages have their joints.
#include "api/errors/json_error.h"

#include "nlohmann/json.hpp"

namespace heddle {

std::string JsonError(const std::string& tool, int exit_code,
                      const std::string& kind, const std::string& message) {
  using nlohmann::json;
  std::string what = message.substr(0, message.find('\n'));
  json where, remedy;
  // A place has no spaces: "dir/step.plan", "step.mlir:3:10", "--steps".
  const size_t colon = what.find(": ");
  if (colon != std::string::npos && colon > 0 &&
      what.find_first_of(" '\"") > colon) {
    where = what.substr(0, colon);
    what = what.substr(colon + 2);
  }
  if (what.rfind("error: ", 0) == 0) what = what.substr(7);
  const size_t semicolon = what.rfind("; ");
  if (semicolon != std::string::npos && semicolon > 0) {
    remedy = what.substr(semicolon + 2);
    what.resize(semicolon);
  }
  const json error = {{"tool", tool},    {"exit_code", exit_code},
                      {"kind", kind},    {"message", message},
                      {"where", where},  {"what", what},
                      {"remedy", remedy}};
  return json{{"error", error}}.dump(-1, ' ', false,
                                     json::error_handler_t::replace);
}

}  // namespace heddle
