// Options are a table: name, where it goes, what it must be.

#include "tools/heddle-run/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <variant>

#include "absl/strings/str_cat.h"
#include "runtime/plan/nearest.h"

namespace heddle::run {

const char* const kUsage =
    "usage: heddle-run PLAN --weights DIR --data FILE --steps N [options]\n"
    "  --weights DIR         a Hugging Face model directory: config.json and "
    "safetensors\n"
    "  --data FILE           safetensors with input_ids [N, S] (and labels, "
    "... if the step has them), or a flat .bin of tokens\n"
    "  --seq S               row length of a .bin\n"
    "  --token-type T        uint16 or uint32, type of a .bin's tokens; "
    "default uint16 if the vocabulary fits\n"
    "  --steps N             optimizer steps\n"
    "  --micro-batches K     micro-batches per step and rank (1)\n"
    "  --lr X                learning rate; default the plan's configuration\n"
    "  --schedule S          constant, linear or cosine, after --warmup W "
    "steps; default the plan's configuration\n"
    "  --checkpoint DIR      where versions are written; --checkpoint-every N "
    "steps, and at the end\n"
    "  --keep N              versions to keep, the newest (2)\n"
    "  --resume              go on from DIR/latest\n"
    "  --seed N              of the step's random operators (0)\n"
    "  --device D            cpu or cuda; must be the plan's\n"
    "  --ranks N             must be the plan's: threads of this process, or "
    "processes under torchrun --no-python, which wants -- before heddle-run\n"
    "  --deadline S          seconds without progress after which ranks give "
    "up on one that they wait for; default HEDDLE_DEADLINE, else 60\n"
    "  --dumps DIR           flight records of a failed run, for "
    "heddle-inspect; default HEDDLE_DUMPS\n"
    "  --log FILE            one JSON object a step\n"
    "  --tensorboard DIR     the same as TensorBoard events\n"
    "  --peak-tflops X       the device's peak, for MFU (model FLOPs of the "
    "plan / time / peak); default by the GPU's name\n"
    "  --measure             runs operator by operator and writes what each "
    "took, and what collectives take, to PLAN.costs.json, for heddle-inspect "
    "--costs and the compiler\n"
    "  --json-errors         errors as JSON on stderr\n"
    "exit code: 0 done, 1 the input or configuration is wrong, 2 the run "
    "failed,\n"
    "           128 + signal: stopped by Ctrl-C (130) or SIGTERM (143) after "
    "the step in hand, with a checkpoint\n";

namespace {

using Target =
    std::variant<std::string*, int64_t*, std::optional<double>*, bool*>;

struct Option {
  const char* name;
  Target target;
  int64_t minimum;
};

absl::Status setValue(const Option& option, const std::string& text) {
  const auto fail = [&](const char* what) {
    return absl::InvalidArgumentError(
        absl::StrCat(option.name, " ", text, ": not ", what));
  };
  if (auto* target = std::get_if<std::string*>(&option.target)) {
    **target = text;
    return absl::OkStatus();
  }
  if (auto* target = std::get_if<std::optional<double>*>(&option.target)) {
    double value = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !std::isfinite(value) || value < 0)
      return fail("a number of at least 0");
    **target = value;
    return absl::OkStatus();
  }
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail("an integer");
  if (value < option.minimum)
    return fail(absl::StrCat("at least ", option.minimum).c_str());
  **std::get_if<int64_t*>(&option.target) = value;
  return absl::OkStatus();
}

absl::Status checkChoice(const char* name, const std::string& value,
                         std::initializer_list<const char*> choices) {
  if (value.empty()) return absl::OkStatus();
  std::string known;
  for (const char* choice : choices) {
    if (value == choice) return absl::OkStatus();
    absl::StrAppend(&known, known.empty() ? "" : ", ", choice);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name, " ", value, ": not one of ", known));
}

}  // namespace

absl::Status parseOptions(const std::vector<std::string>& args,
                          Options* options) {
  const std::vector<Option> table = {
      {"--weights", &options->weights, 0},
      {"--data", &options->data, 0},
      {"--checkpoint", &options->checkpoint, 0},
      {"--log", &options->log, 0},
      {"--tensorboard", &options->tensorboard, 0},
      {"--peak-tflops", &options->peakTflops, 0},
      {"--deadline", &options->deadline, 0},
      {"--dumps", &options->dumps, 0},
      {"--measure", &options->measure, 0},
      {"--keep", &options->keep, 1},
      {"--device", &options->device, 0},
      {"--schedule", &options->schedule, 0},
      {"--token-type", &options->tokenType, 0},
      {"--lr", &options->lr, 0},
      {"--steps", &options->steps, 1},
      {"--warmup", &options->warmup, 0},
      {"--seq", &options->seq, 1},
      {"--micro-batches", &options->microBatches, 1},
      {"--ranks", &options->ranks, 1},
      {"--seed", &options->seed, 0},
      {"--resume", &options->resume, 0},
      {"--checkpoint-every", &options->checkpointEvery, 1},
      {"--json-errors", &options->jsonErrors, 0},
      {"--help", &options->help, 0},
  };
  options->jsonErrors =
      std::find(args.begin(), args.end(), "--json-errors") != args.end();
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].rfind("--", 0) != 0) {
      if (!options->plan.empty())
        return absl::InvalidArgumentError(absl::StrCat(
            "two plans were given: ", options->plan, " and ", args[i]));
      options->plan = args[i];
      continue;
    }
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    const auto option =
        std::find_if(table.begin(), table.end(),
                     [&](const Option& o) { return name == o.name; });
    if (option == table.end()) {
      const auto nearest = std::min_element(
          table.begin(), table.end(), [&](const Option& a, const Option& b) {
            return plan::EditDistance(name, a.name) <
                   plan::EditDistance(name, b.name);
          });
      return absl::InvalidArgumentError(absl::StrCat(
          "unknown option ", name, "; did you mean ", nearest->name, "?"));
    }
    if (auto* flag = std::get_if<bool*>(&option->target)) {
      **flag = true;
      continue;
    }
    if (equals == std::string::npos && i + 1 == args.size())
      return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
    const std::string value =
        equals == std::string::npos ? args[++i] : args[i].substr(equals + 1);
    if (absl::Status status = setValue(*option, value); !status.ok())
      return status;
  }
  if (options->help) return absl::OkStatus();
  for (const auto& [name, value] :
       {std::pair<const char*, const std::string*>{"a plan", &options->plan},
        {"--weights", &options->weights},
        {"--data", &options->data}}) {
    if (value->empty())
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is missing; see heddle-run --help"));
  }
  if (options->steps == 0)
    return absl::InvalidArgumentError(
        "--steps is missing; see heddle-run --help");
  if (options->resume && options->checkpoint.empty())
    return absl::InvalidArgumentError(
        "--resume needs --checkpoint DIR to go on from");
  if (absl::Status status =
          checkChoice("--device", options->device, {"cpu", "cuda"});
      !status.ok())
    return status;
  if (absl::Status status =
          checkChoice("--token-type", options->tokenType, {"uint16", "uint32"});
      !status.ok())
    return status;
  return checkChoice("--schedule", options->schedule,
                     {"constant", "linear", "cosine"});
}

}  // namespace heddle::run
