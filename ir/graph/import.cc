// Looks for what MLIR's parser of text does not survive, before it sees the
// text: nesting, on which it recurses, and names that are used before they are
// defined. Where such a name is defined in a region that then turns out to be
// wrong, the parser frees the definition under its use and writes there.
// Strings and comments end where MLIR's lexer ends them. A bracket or a use
// counted too many is harmless, one too few would be the crash that this file
// prevents.
#include "ir/graph/import.h"

#include <vector>

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"

using namespace mlir;

namespace heddle::graph {

namespace {

class TextCheck {
 public:
  explicit TextCheck(llvm::StringRef text) : text(text) {}

  Hazard run() {
    while (at < text.size() && !hazard) step();
    return hazard;
  }

 private:
  // A name in an open scope: where it was defined, counted in open braces, and
  // whether something deeper has used it.
  struct Definition {
    int scope;
    bool usedDeeper = false;
  };

  void step() {
    switch (text[at]) {
      case '\n':
        ++line;
        break;
      case '/':
        if (text.substr(at, 2) == "//") {
          at = text.find('\n', at);
          return;
        }
        break;
      case '"':
        for (++at; at < text.size() && text[at] != '"' && text[at] != '\n';
             ++at)
          if (text[at] == '\\' && at + 1 < text.size() && text[at + 1] != '\n')
            ++at;
        if (at < text.size() && text[at] == '\n') return;
        break;
      case '^':
        return label();
      case '%':
        return name();
      case '{':
        scopes.emplace_back();
        open();
        break;
      case '(':
      case '[':
      case '<':
        open();
        break;
      case '>':
        if (at == 0 || text[at - 1] != '-') close();
        break;
      case '}':
        if (scopes.size() > 1) {
          for (llvm::StringRef gone : scopes.back()) defined[gone].pop_back();
          scopes.pop_back();
        }
        close();
        break;
      case ')':
        if (depth == arguments) arguments = 0;
        close();
        break;
      case ']':
        close();
        break;
      default:
        break;
    }
    ++at;
  }

  void open() {
    if (++depth > kMaxNesting)
      refuse("more than " + std::to_string(kMaxNesting) +
             " brackets are open at once; no captured step is nested like this "
             "(graph_import_r1)");
  }
  void close() {
    if (depth > 0) --depth;
  }
  void refuse(const std::string& what) { hazard = Hazard{line, what}; }

  // ^bb0(%a: type, ...): the names between these parentheses are definitions.
  void label() {
    skipName(++at);
    size_t next = blanks(at);
    if (next < text.size() && text[next] == '(') arguments = depth + 1;
  }

  void name() {
    size_t begin = at++;
    skipName(at);
    llvm::StringRef known = text.slice(begin, at);
    defines(at) ? define(known) : use(known);
  }

  void define(llvm::StringRef name) {
    int scope = static_cast<int>(scopes.size());
    llvm::SmallVector<Definition, 1>& open = defined[name];
    if (awaited.contains(name) ||
        (!open.empty() && open.back().scope < scope && open.back().usedDeeper))
      return refuse((name + " is used before it is defined; a captured step "
                            "defines every value above its uses "
                            "(graph_import_r2)")
                        .str());
    if (!open.empty() && open.back().scope == scope) return;
    open.push_back({scope});
    scopes.back().push_back(name);
  }

  void use(llvm::StringRef name) {
    auto it = defined.find(name);
    if (it == defined.end() || it->second.empty()) {
      awaited.insert(name);
      return;
    }
    Definition& last = it->second.back();
    last.usedDeeper |= last.scope < static_cast<int>(scopes.size());
  }

  // Whether the name that ends at `end` is one of those left of a '=', or an
  // argument of a block.
  bool defines(size_t end) {
    if (end < usesUntil) return false;
    size_t i = end;
    for (;;) {
      i = blanks(i);
      if (i < text.size() && text[i] == ':') {
        size_t digits = blanks(i + 1), after = digits;
        while (after < text.size() && llvm::isDigit(text[after])) ++after;
        if (after == digits) return arguments != 0 && depth == arguments;
        i = blanks(after);
      }
      if (i < text.size() && text[i] == '=') return true;
      if (i >= text.size() || text[i] != ',') break;
      i = blanks(i + 1);
      if (i >= text.size() || text[i] != '%') break;
      skipName(++i);
    }
    // All names up to here are uses: a long list is looked at once.
    usesUntil = i;
    return false;
  }

  void skipName(size_t& i) const {
    if (i < text.size() && llvm::isDigit(text[i])) {
      while (i < text.size() && llvm::isDigit(text[i])) ++i;
      return;
    }
    while (i < text.size() &&
           (llvm::isAlnum(text[i]) || text[i] == '_' || text[i] == '$' ||
            text[i] == '.' || text[i] == '-'))
      ++i;
  }

  // The first character behind blanks and comments.
  size_t blanks(size_t i) const {
    for (; i < text.size(); ++i) {
      if (text.substr(i, 2) == "//") {
        i = text.find('\n', i);
        if (i == llvm::StringRef::npos) return text.size();
      }
      if (!llvm::isSpace(text[i]) && text[i] != '\0') break;
    }
    return i;
  }

  const llvm::StringRef text;
  size_t at = 0;
  unsigned line = 1;
  int depth = 0;
  // The brackets that are open inside the parentheses of a label; 0 outside.
  int arguments = 0;
  size_t usesUntil = 0;
  // The names of each open scope, and of each name its definitions.
  std::vector<std::vector<llvm::StringRef>> scopes =
      std::vector<std::vector<llvm::StringRef>>(1);
  llvm::StringMap<llvm::SmallVector<Definition, 1>> defined;
  llvm::StringSet<> awaited;
  Hazard hazard;
};

}  // namespace

Hazard hazardIn(llvm::StringRef bytes) {
  return bytes.starts_with("ML\xefR") ? Hazard() : TextCheck(bytes).run();
}

OwningOpRef<ModuleOp> importStep(MLIRContext* context, llvm::StringRef bytes,
                                 llvm::StringRef name) {
  if (Hazard hazard = hazardIn(bytes)) {
    emitError(FileLineColLoc::get(context, name, hazard.line, 1))
        << hazard.what;
    return {};
  }
  // MLIR's lexer ends at the NUL behind the text, which `bytes` need not have.
  llvm::SourceMgr sources;
  sources.AddNewSourceBuffer(llvm::MemoryBuffer::getMemBufferCopy(bytes, name),
                             llvm::SMLoc());
  return parseSourceFile<ModuleOp>(sources, ParserConfig(context));
}

}  // namespace heddle::graph
