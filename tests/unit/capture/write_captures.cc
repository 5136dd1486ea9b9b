// write_captures DIR: DIR/NAME.mlir for every test model, captured without
// Python.
#include <fstream>
#include <iostream>

#include "tests/unit/capture/models.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_captures DIR\n";
    return 1;
  }
  for (heddle::capture::testing::Case& test :
       heddle::capture::testing::Cases()) {
    heddle::capture::RecordOptions options;
    options.module = test.module.get();
    options.batch = test.batch;
    auto program = heddle::capture::Record(test.step, options);
    if (!program.ok()) {
      std::cerr << test.name << ": " << program.status() << "\n";
      return 1;
    }
    std::ofstream(std::string(argv[1]) + "/" + test.name + ".mlir")
        << program->text;
  }
  return 0;
}
