// The wheel's heddle-opt and heddle-inspect: a few kilobytes that call the
// function of their own name in libheddle_compiler.so beside them, so that the
// wheel holds MLIR once. The name decides: heddle-opt calls heddle_opt_main.
#include <dlfcn.h>
#include <limits.h>
#include <unistd.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  char path[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0 || length == sizeof(path)) {
    std::perror("error: cannot read /proc/self/exe");
    return 2;
  }
  std::string self(path, length);
  size_t slash = self.rfind('/');
  size_t dash = self.rfind('-');
  std::string library = self.substr(0, slash) + "/libheddle_compiler.so";
  std::string symbol = "heddle_" + self.substr(dash + 1) + "_main";

  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* function = handle ? dlsym(handle, symbol.c_str()) : nullptr;
  if (function == nullptr) {
    std::fprintf(stderr, "error: %s: reinstall heddle\n", dlerror());
    return 2;
  }
  return reinterpret_cast<int (*)(int, char**)>(function)(argc, argv);
}
