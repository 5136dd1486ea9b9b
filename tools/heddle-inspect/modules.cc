// Parameters by module path: the tree, and its text with equal layers folded.
// Invariant: folding joins siblings only if their names are consecutive numbers
// and their subtrees are equal, so the folded text is still exact.
#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/heddle-inspect/analysis.h"

namespace heddle::inspect {
namespace {

bool isNumber(const std::string& text) {
  return !text.empty() && text.size() < 9 &&
         std::all_of(
             text.begin(), text.end(),
             [](unsigned char c) { return std::isdigit(c); });
}

// What two subtrees must share to be folded.
std::string signature(const Program& program, const Module& module) {
  if (module.argument >= 0)
    return absl::StrCat(
        typeText(program.values[program.arguments[module.argument].value]),
        program.arguments[module.argument].role);
  std::string text = "{";
  for (const auto& child : module.children)
    absl::StrAppend(&text, child->name, ":", signature(program, *child), ";");
  return text + "}";
}

void addLine(std::string& text, int depth, const std::string& name,
             int64_t elements, int64_t bytes, const std::string& note) {
  std::string line = absl::StrCat(std::string(2 * depth + 2, ' '), name);
  if (line.size() < 46) line.resize(46, ' ');
  std::string count = countText(elements);
  std::string size = bytesText(bytes);
  count.insert(0, count.size() < 9 ? 9 - count.size() : 0, ' ');
  size.insert(0, size.size() < 11 ? 11 - size.size() : 0, ' ');
  absl::StrAppend(&text, line, count, size, note.empty() ? "" : "  ", note,
                  "\n");
}

void addModule(std::string& text, const Program& program, const Module& module,
               int depth, int maxDepth) {
  for (size_t i = 0; i < module.children.size();) {
    const Module* child = module.children[i].get();
    size_t end = i + 1;
    if (isNumber(child->name)) {
      const std::string own = signature(program, *child);
      while (end < module.children.size() &&
             isNumber(module.children[end]->name) &&
             std::stoi(module.children[end]->name) ==
                 std::stoi(child->name) + static_cast<int>(end - i) &&
             signature(program, *module.children[end]) == own)
        ++end;
    }
    const int64_t times = end - i;
    std::string name = child->name, note;
    if (times > 1) {
      name = absl::StrCat(child->name, "-", module.children[end - 1]->name);
      note = absl::StrCat(times, " equal, each ", countText(child->elements),
                          ", ", bytesText(child->bytes), ":");
    }
    // A module with one child and nothing else is one line with it.
    while (child->argument < 0 && child->children.size() == 1) {
      child = child->children.front().get();
      absl::StrAppend(&name, ".", child->name);
    }
    if (child->argument >= 0) {
      const Argument& argument = program.arguments[child->argument];
      note = absl::StrCat(
          typeText(program.values[argument.value]),
          argument.role.empty() ? "" : " ", argument.role,
          argument.kind == "parameter" && !argument.trainable ? " frozen" : "",
          argument.kind == "buffer" && argument.role.empty() ? " buffer" : "",
          argument.names.size() > 1
              ? absl::StrCat(" tied with ", argument.names[1])
              : "",
          times > 1 ? absl::StrCat(" x", times) : "");
    }
    addLine(text, depth, name, child->elements * times, child->bytes * times,
            note);
    if (depth + 1 < maxDepth)
      addModule(text, program, *child, depth + 1, maxDepth);
    i = end;
  }
}

}  // namespace

std::unique_ptr<Module> moduleTree(const Program& program) {
  auto root = std::make_unique<Module>();
  for (size_t i = 0; i < program.arguments.size(); ++i) {
    const Argument& argument = program.arguments[i];
    if (argument.kind != "parameter" && argument.kind != "buffer") continue;
    const int64_t elements =
        argument.kind == "parameter" ? program.elements(argument.value) : 0;
    const int64_t bytes =
        program.storages[program.values[argument.value].storage].bytes;
    Module* module = root.get();
    module->elements += elements;
    module->bytes += bytes;
    const std::vector<std::string> parts = absl::StrSplit(argument.name(), '.');
    for (size_t part = 0; part < parts.size(); ++part) {
      auto same = [&](const std::unique_ptr<Module>& child) {
        return child->name == parts[part] && child->argument < 0;
      };
      auto it =
          std::find_if(module->children.begin(), module->children.end(), same);
      if (it == module->children.end() || part + 1 == parts.size()) {
        module->children.push_back(std::make_unique<Module>());
        module->children.back()->name = parts[part];
        module = module->children.back().get();
      } else {
        module = it->get();
      }
      module->elements += elements;
      module->bytes += bytes;
    }
    module->argument = static_cast<int>(i);
  }
  return root;
}

std::string moduleTreeText(const Program& program, int maxDepth) {
  std::string text;
  addModule(text, program, *moduleTree(program), 0, maxDepth);
  return text;
}

}  // namespace heddle::inspect
