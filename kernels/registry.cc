// The table behind the names. Static initialisers of several files fill it, in
// any order.

#include "kernels/registry.h"

#include "absl/strings/str_cat.h"

namespace heddle::kernels {
namespace {

std::map<std::string, Kernel>& Table() {
  static std::map<std::string, Kernel>& table =
      *new std::map<std::string, Kernel>();
  return table;
}

}  // namespace

const Kernel* Find(const std::string& name) {
  const auto it = Table().find(name);
  return it == Table().end() ? nullptr : &it->second;
}

std::string KnownNames() {
  std::string names;
  for (const auto& [name, kernel] : Table())
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

Registration::Registration(const char* name, Launch host, Launch device) {
  Kernel& kernel = Table()[name];
  kernel.host = host;
  if (device != nullptr) kernel.device = device;
}

DeviceRegistration::DeviceRegistration(const char* name, Launch device,
                                       Workspace workspace) {
  Kernel& kernel = Table()[name];
  kernel.device = device;
  kernel.workspace = workspace;
}

}  // namespace heddle::kernels
