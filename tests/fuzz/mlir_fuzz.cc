// Any bytes as a captured step: parsed and verified without a crash, and
// whatever is accepted can be read with plain casts, printed and parsed again.
// A third of the mutations change whole tokens, because bytes changed at random
// rarely get past the parser.
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ir/graph/GraphOps.h"
#include "ir/graph/aten_call.h"
#include "ir/graph/import.h"
#include "llvm/Support/raw_ostream.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Headers of LLVM and of the standard library poison what a container or an
// allocator holds in reserve. MLIR's archives are compiled without the address
// sanitizer and never unpoison it. An abort in them is a finding, with a stack;
// what their static tables keep is not.
extern "C" const char* __asan_default_options() {
  return "allow_user_poisoning=0:detect_container_overflow=0:handle_abort=1:"
         "detect_leaks=0";
}

namespace {

using namespace heddle::graph;

void readEverything(mlir::ModuleOp module) {
  module.walk([](mlir::Operation* op) {
    if (auto step = llvm::dyn_cast<StepOp>(op)) {
      for (mlir::Attribute role : step.getArgRoles()) {
        if (auto param = llvm::dyn_cast<ParamAttr>(role)) (void)param.getName();
      }
    }
    if (auto costed = llvm::dyn_cast<Costed>(op)) {
      (void)costed.getFlops();
      (void)costed.getBytes();
    }
    if (auto linked = llvm::dyn_cast<Linked>(op)) {
      (void)linked.getNode();
      (void)linked.getPhase();
    }
    if (isAtenCall(op)) (void)decodeAtenCall(op);
    for (mlir::Value result : op->getResults()) {
      if (auto type =
              llvm::dyn_cast<mlir::RankedTensorType>(result.getType())) {
        (void)geometryOf(type);
        (void)isRowMajor(type);
      }
    }
  });
}

// Names, numbers, punctuation; strings and blanks whole.
std::vector<std::string> tokensOf(llvm::StringRef text) {
  std::vector<std::string> tokens;
  auto word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '.' || c == '%' || c == '#';
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i + 1;
    if (text[i] == '"') {
      while (end < text.size() && text[end] != '"') ++end;
      end = std::min(end + 1, text.size());
    } else if (word(text[i])) {
      while (end < text.size() && word(text[end])) ++end;
    }
    tokens.push_back(text.substr(i, end - i).str());
    i = end;
  }
  return tokens;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned seed) {
  std::mt19937 random(seed);
  if (random() % 3 != 0 || size == 0)
    return LLVMFuzzerMutate(data, size, max_size);
  static const char* const kInteresting[] = {"0",
                                             "-1",
                                             "1",
                                             "9223372036854775807",
                                             "-9223372036854775808",
                                             "4611686018427387904",
                                             "2147483648",
                                             "3x",
                                             "?x",
                                             "0x",
                                             "unit",
                                             "[]",
                                             "[#graph.operand]",
                                             "array<i64>",
                                             "array<i64: 0, 0>",
                                             "array<i1: true>",
                                             "array<i32: 1, 1>",
                                             "tensor<*xf32>",
                                             "tensor<f32>",
                                             "tensor<2x3xindex>",
                                             "i4",
                                             "index",
                                             "none",
                                             "vector<2xf32>",
                                             "f32",
                                             "complex<f32>",
                                             "memref<2xf32>",
                                             "true",
                                             "\"\"",
                                             "\"x\"",
                                             "1 : i32",
                                             "#graph.operand",
                                             "#graph.loss",
                                             "#graph.param<[], true, \"x\">",
                                             "#graph.param<[1], true, \"x\">",
                                             "#graph.layout<[1], 0, 8>",
                                             "#graph.layout<[], 0, 0>",
                                             "dense<1> : tensor<2xi64>",
                                             "@x",
                                             "()"};
  std::vector<std::string> tokens =
      tokensOf(llvm::StringRef(reinterpret_cast<const char*>(data), size));
  for (unsigned edits = 1 + random() % 3; edits > 0 && !tokens.empty();
       --edits) {
    size_t i = random() % tokens.size(), j = random() % tokens.size();
    switch (random() % 4) {
      case 0:
        tokens.erase(tokens.begin() + i);
        break;
      case 1:
        tokens[i] = kInteresting[random() % std::size(kInteresting)];
        break;
      case 2:
        tokens[i] = tokens[j];
        break;
      default:
        std::swap(tokens[i], tokens[j]);
        break;
    }
  }
  std::string text;
  for (const std::string& token : tokens) text += token;
  size = std::min(text.size(), max_size);
  std::memcpy(data, text.data(), size);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Registering the dialect's ops takes longer than an input, and a context
  // that lives for ever would keep every input's types.
  static std::unique_ptr<mlir::MLIRContext> shared;
  static int inputs = 0;
  if (inputs++ % 256 == 0) {
    mlir::DialectRegistry registry;
    registry.insert<GraphDialect>();
    shared = std::make_unique<mlir::MLIRContext>(
        registry, mlir::MLIRContext::Threading::DISABLED);
    shared->loadAllAvailableDialects();
  }
  mlir::MLIRContext& context = *shared;
  mlir::ScopedDiagnosticHandler quiet(
      &context, [](mlir::Diagnostic&) { return mlir::success(); });
  auto module = importStep(
      &context, llvm::StringRef(reinterpret_cast<const char*>(data), size),
      "input");
  if (!module) return 0;
  readEverything(*module);
  std::string text;
  llvm::raw_string_ostream stream(text);
  module->print(stream,
                mlir::OpPrintingFlags().printGenericOpForm().enableDebugInfo());
  if (!importStep(&context, text, "output")) __builtin_trap();
  return 0;
}
