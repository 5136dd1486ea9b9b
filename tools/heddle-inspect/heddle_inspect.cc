// The command line of heddle-inspect: arguments -> files read, forms written.
// Invariant: every output is made before the first is written, and each appears
// whole or not at all.
#include "tools/heddle-inspect/heddle_inspect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "api/errors/json_error.h"
#include "runtime/trace/costs.h"
#include "tools/heddle-inspect/outputs.h"
#include "tools/heddle-inspect/program.h"

namespace heddle {
namespace {

constexpr char kUsage[] =
    "usage: heddle-inspect FILE [--json OUT] [--trace OUT] [--dot OUT] [--html "
    "OUT] [--costs FILE] [--json-errors]\n"
    "       heddle-inspect A --diff B\n"
    "       heddle-inspect FOLDER\n"
    "\n"
    "FILE is a step.mlir, one of its phases (text or bytecode), or a "
    "step.plan.\n"
    "FOLDER holds the flight records of ranks that failed; prints the "
    "verdict.\n"
    "Without an option: a summary of parameters, FLOPs, memory and what lives "
    "longest.\n"
    "  --json OUT     the graph for Model Explorer, modules as namespaces\n"
    "  --trace OUT    streams with predicted times, for Perfetto\n"
    "  --dot OUT      Graphviz\n"
    "  --html OUT     one page with everything, for any browser, offline\n"
    "  --costs C      predict times from what heddle-run --measure wrote, not "
    "from the table\n"
    "  --diff B       what changed from FILE to B\n"
    "  --json-errors  errors as one JSON object on stderr\n";

struct Output {
  const char* flag;
  std::string (*make)(const inspect::Program&);
};
constexpr Output kOutputs[] = {{"--json", inspect::modelExplorerJson},
                               {"--trace", inspect::traceJson},
                               {"--dot", inspect::dotText},
                               {"--html", inspect::htmlPage}};

struct Request {
  std::string file;
  std::string diff;
  std::string costs;
  std::vector<std::pair<const Output*, std::string>> outputs;
  bool help = false;
};

absl::Status usageError(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; heddle-inspect --help lists what there is"));
}

absl::StatusOr<Request> parseArguments(int argc, char** argv) {
  Request request;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg == "--json-errors") continue;
    if (arg == "--help" || arg == "-h") {
      request.help = true;
      continue;
    }
    if (arg.size() < 2 || arg[0] != '-') {
      if (!request.file.empty())
        return usageError(absl::StrCat("two files, '", request.file, "' and '",
                                       arg, "': compare them with --diff"));
      request.file = arg;
      continue;
    }
    std::string value;
    const size_t equals = arg.find('=');
    const bool inlined = equals != std::string::npos;
    if (inlined) {
      value = arg.substr(equals + 1);
      arg.resize(equals);
    }
    const Output* output = nullptr;
    for (const Output& known : kOutputs)
      if (arg == known.flag) output = &known;
    if (!output && arg != "--diff" && arg != "--costs")
      return usageError(absl::StrCat("unknown option '", arg, "'"));
    if (!inlined) {
      if (i + 1 == argc) return usageError(absl::StrCat(arg, " needs a file"));
      value = argv[++i];
    }
    if (value.empty()) return usageError(absl::StrCat(arg, " needs a file"));
    if (output)
      request.outputs.emplace_back(output, value);
    else
      (arg == "--diff" ? request.diff : request.costs) = value;
  }
  if (request.help) return request;
  if (request.file.empty()) return usageError("no file given");
  if (!request.diff.empty() && !request.outputs.empty())
    return usageError(
        absl::StrCat("--diff prints text and goes with no other output (",
                     request.outputs[0].first->flag, ")"));
  return request;
}

// Gives every op of a plan the time that the file of costs has for it.
absl::Status priceByCosts(const std::string& path, inspect::Program* program) {
  const absl::StatusOr<trace::Costs> costs = trace::ReadCosts(path);
  if (!costs.ok()) return costs.status();
  program->costs = costs->device;
  program->reserved = costs->memory;
  for (inspect::Section& section : program->sections) {
    for (inspect::Op& op : section.ops) {
      if (op.wireBytes >= 0) {
        const trace::CollectiveCost* cost =
            costs->Find(op.name, op.axis, op.axisRanks);
        if (cost == nullptr) continue;
        op.measured = cost->Seconds(op.wireBytes);
      } else {
        const auto cost = costs->operators.find(op.signature);
        if (op.signature.empty() || cost == costs->operators.end()) continue;
        op.measured = cost->second.microseconds * 1e-6;
      }
      ++program->measured;
    }
  }
  if (program->measured == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": measured none of the operators of ",
                     program->file, "; measure this plan"));
  return absl::OkStatus();
}

absl::Status cannotWrite(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
}

// Writes and closes; errno tells why it returns false.
bool writeAll(int file, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = write(file, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      close(file);
      errno = reason;
      return false;
    }
    done += static_cast<size_t>(written);
  }
  return close(file) == 0;
}

// Beside its place first, so that a full device or a signal leaves the old file
// or none. A pipe or a device has no such place.
absl::Status writeWhole(const std::string& path, const std::string& text) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    return file >= 0 && writeAll(file, text) ? absl::OkStatus()
                                             : cannotWrite(path);
  }
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".new");
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file >= 0 && writeAll(file, text) &&
      rename(temporary.c_str(), path.c_str()) == 0)
    return absl::OkStatus();
  const absl::Status status = cannotWrite(path);
  if (file >= 0) unlink(temporary.c_str());
  return status;
}

absl::Status print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
      std::fflush(stdout) != 0)
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write to stdout: ", std::strerror(errno)));
  return absl::OkStatus();
}

absl::Status run(const Request& request) {
  if (request.help) return print(kUsage);
  struct stat info;
  if (stat(request.file.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    if (!request.diff.empty() || !request.outputs.empty())
      return usageError(absl::StrCat(
          request.file, " is a folder of flight records and takes no option"));
    absl::StatusOr<std::string> text = inspect::flightText(request.file);
    return text.ok() ? print(*text) : text.status();
  }
  absl::StatusOr<inspect::Program> program = inspect::readProgram(request.file);
  if (!program.ok()) return program.status();
  if (!request.costs.empty()) {
    if (absl::Status status = priceByCosts(request.costs, &*program);
        !status.ok())
      return status;
  }
  if (!request.diff.empty()) {
    absl::StatusOr<inspect::Program> other = inspect::readProgram(request.diff);
    if (!other.ok()) return other.status();
    return print(inspect::diffText(*program, *other));
  }
  if (request.outputs.empty()) return print(inspect::summaryText(*program));
  std::vector<std::string> texts;
  for (const auto& [output, path] : request.outputs)
    texts.push_back(output->make(*program));
  for (size_t i = 0; i < texts.size(); ++i) {
    if (absl::Status status = writeWhole(request.outputs[i].second, texts[i]);
        !status.ok())
      return status;
    if (absl::Status status =
            print(absl::StrCat("wrote ", request.outputs[i].second, " (",
                               texts[i].size(), " bytes)\n"));
        !status.ok())
      return status;
  }
  return absl::OkStatus();
}

}  // namespace

int heddleInspectMain(int argc, char** argv) {
  absl::StatusOr<Request> request = parseArguments(argc, argv);
  absl::Status status = request.ok() ? run(*request) : request.status();
  if (status.ok()) return 0;
  bool json = false;
  for (int i = 1; i < argc; ++i)
    json |= std::strcmp(argv[i], "--json-errors") == 0;
  const std::string message(status.message());
  if (json)
    std::fprintf(
        stderr, "%s\n",
        JsonError("heddle-inspect", 1,
                  std::string(absl::StatusCodeToString(status.code())), message)
            .c_str());
  else
    std::fprintf(stderr, "heddle-inspect: error: %s\n", message.c_str());
  return 1;
}

}  // namespace heddle

extern "C" int heddle_inspect_main(int argc, char** argv) {
  return heddle::heddleInspectMain(argc, argv);
}
