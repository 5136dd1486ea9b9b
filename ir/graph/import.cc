// Measures the nesting of text before MLIR's recursive parser sees it. Strings
// and comments end where MLIR's lexer ends them; a bracket counted too many is
// harmless, one too few would be the crash that this file prevents.
#include "ir/graph/import.h"

#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"

using namespace mlir;

namespace heddle::graph {

unsigned nestedTooDeepAt(llvm::StringRef text) {
  int depth = 0;
  unsigned line = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '\n':
        ++line;
        break;
      case '/':
        if (text.substr(i, 2) == "//") {
          size_t end = text.find('\n', i);
          if (end == llvm::StringRef::npos) return 0;
          i = end - 1;
        }
        break;
      case '"':
        for (++i; i < text.size() && text[i] != '"' && text[i] != '\n'; ++i)
          if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] != '\n')
            ++i;
        if (i < text.size() && text[i] == '\n') --i;
        break;
      case '(':
      case '[':
      case '{':
      case '<':
        if (++depth > kMaxNesting) return line;
        break;
      case '>':
        if (i > 0 && text[i - 1] == '-') break;
        [[fallthrough]];
      case ')':
      case ']':
      case '}':
        if (depth > 0) --depth;
        break;
      default:
        break;
    }
  }
  return 0;
}

OwningOpRef<ModuleOp> importStep(MLIRContext* context, llvm::StringRef bytes,
                                 llvm::StringRef name) {
  bool bytecode = bytes.starts_with("ML\xefR");
  if (unsigned line = bytecode ? 0 : nestedTooDeepAt(bytes)) {
    emitError(FileLineColLoc::get(context, name, line, 1))
        << "more than " << kMaxNesting
        << " brackets are open at once; no captured step is nested like this "
           "(graph_import_r1)";
    return {};
  }
  // MLIR's lexer ends at the NUL behind the text, which `bytes` need not have.
  llvm::SourceMgr sources;
  sources.AddNewSourceBuffer(llvm::MemoryBuffer::getMemBufferCopy(bytes, name),
                             llvm::SMLoc());
  return parseSourceFile<ModuleOp>(sources, ParserConfig(context));
}

}  // namespace heddle::graph
