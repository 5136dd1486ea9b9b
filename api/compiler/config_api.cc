// The C functions that read configurations; they need no MLIR.
#include <cstdlib>
#include <cstring>
#include <string>

#include "api/compiler/compiler.h"
#include "api/compiler/deepspeed.h"
#include "api/schedule/schedule.h"

namespace {

int Give(HeddleBuffer* buffer, const std::string& text, int code) {
  if (buffer == nullptr) return code;
  buffer->data = static_cast<char*>(std::malloc(text.size() + 1));
  std::memcpy(buffer->data, text.c_str(), text.size() + 1);
  buffer->size = text.size();
  return code;
}

}  // namespace

extern "C" {

int heddle_read_deepspeed(const char* text, size_t size,
                          const char* context_json, HeddleBuffer* out,
                          HeddleBuffer* error_out) {
  if (text == nullptr || out == nullptr)
    return Give(error_out,
                "heddle_read_deepspeed needs a text and a place for what it "
                "says",
                1);
  std::string read;
  const std::string error =
      heddle::ReadDeepSpeed(std::string(text, size),
                            context_json == nullptr ? "" : context_json, &read);
  return error.empty() ? Give(out, read, 0) : Give(error_out, error, 1);
}

int heddle_schedule_factor(const char* schedule_json, int64_t update,
                           double* factor, HeddleBuffer* error_out) {
  if (schedule_json == nullptr || factor == nullptr)
    return Give(error_out,
                "heddle_schedule_factor needs a schedule and a place for the "
                "factor",
                1);
  const absl::StatusOr<heddle::Schedule> schedule = heddle::Schedule::Parse(
      nlohmann::json::parse(schedule_json, nullptr, false), /*total=*/1);
  if (!schedule.ok())
    return Give(error_out, std::string(schedule.status().message()), 1);
  *factor = schedule->Factor(update);
  return 0;
}
}
