// Writes what MLIR's own printer would write: attributes sorted by name,
// location aliases numbered files first, floats in MLIR's decimal form. What
// would break it: an operator table row that does not match the ODS op, or a
// change of MLIR's generic syntax; the round-trip test sees both.
#include "capture/print.h"

#include <c10/core/Scalar.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <unordered_map>

#include "ir/graph/op_table.h"

namespace heddle::capture {
namespace {

using graph::ArgKind;

const char* ElementType(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBool:
      return "i1";
    case at::kByte:
      return "ui8";
    case at::kChar:
      return "i8";
    case at::kShort:
      return "i16";
    case at::kInt:
      return "i32";
    case at::kLong:
      return "i64";
    case at::kHalf:
      return "f16";
    case at::kBFloat16:
      return "bf16";
    case at::kFloat:
      return "f32";
    case at::kDouble:
      return "f64";
    case at::kComplexFloat:
      return "complex<f32>";
    case at::kComplexDouble:
      return "complex<f64>";
    case at::kFloat8_e4m3fn:
      return "f8E4M3FN";
    case at::kFloat8_e5m2:
      return "f8E5M2";
    default:
      TORCH_CHECK(false, "heddle.capture: dtype ", dtype,
                  " has no element type in the graph dialect");
  }
}

std::string Quote(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '"' || c < 0x20 || c >= 0x7f) {
      char hex[4];
      std::snprintf(hex, sizeof hex, "\\%02X", c);
      out += hex;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

template <typename T, typename F>
std::string Join(const T& items, F format) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += ", ";
    out += format(item);
  }
  return out;
}

std::string Number(int64_t n) { return std::to_string(n); }
const char* Bool(bool b) { return b ? "true" : "false"; }

template <typename T, typename F>
std::string DenseArray(const char* type, const T& items, F format) {
  std::string body = Join(items, format);
  return std::string("array<") + type + (body.empty() ? "" : ": " + body) + ">";
}

std::string MemoryFormatName(at::MemoryFormat format) {
  switch (format) {
    case at::MemoryFormat::Contiguous:
      return "contiguous";
    case at::MemoryFormat::Preserve:
      return "preserve";
    case at::MemoryFormat::ChannelsLast:
      return "channels_last";
    case at::MemoryFormat::ChannelsLast3d:
      return "channels_last_3d";
    default:
      TORCH_CHECK(false, "heddle.capture: unknown memory format");
  }
}

using Attributes =
    std::map<std::string, std::string>;  // Sorted as MLIR sorts a dictionary.
                                         // An empty value is a unit attribute.

std::string Dictionary(const Attributes& attributes) {
  return "{" +
         Join(attributes,
              [](const auto& entry) {
                return entry.second.empty()
                           ? entry.first
                           : entry.first + " = " + entry.second;
              }) +
         "}";
}

class Printer {
 public:
  explicit Printer(const Tape& tape)
      : tape_(tape), names_(tape.values.size()), types_(tape.values.size()) {}

  std::string Print() {
    NumberLocations();
    out_ =
        "#loc = loc(unknown)\n\"builtin.module\"() ({\n  \"graph.step\"() <" +
        Dictionary(StepAttributes()) + "> ({\n  ^bb0(";
    for (size_t i = 0; i < tape_.bindings.size(); ++i) {
      ValueId id = tape_.bindings[i].value;
      names_[id] = "%arg" + Number(static_cast<int64_t>(i));
      if (i != 0) out_ += ", ";
      out_ += names_[id] + ": " + Type(id) + " loc(unknown)";
    }
    out_ += "):\n";
    for (const OpRecord& op : tape_.ops) PrintOp(op);
    out_ +=
        "    \"graph.return\"(" +
        Join(tape_.results, [&](const Result& r) { return names_[r.value]; }) +
        ") : (" +
        Join(tape_.results, [&](const Result& r) { return Type(r.value); }) +
        ") -> () loc(#loc)\n  }) : () -> () loc(#loc)\n}) : () -> () "
        "loc(#loc)\n";
    out_ += location_definitions_ +
            "\n";  // The blank line is where mlir-opt ends a module.
    return std::move(out_);
  }

 private:
  static uint64_t LocationKey(const OpRecord& op) {
    return static_cast<uint64_t>(op.scope) << 32 |
           static_cast<uint32_t>(op.source);
  }

  // MLIR numbers aliases by depth, then by first appearance: file positions and
  // module paths without one before module paths that wrap a position.
  void NumberLocations() {
    std::vector<uint64_t> order;
    std::unordered_map<int32_t, std::string> files;
    int next = 0;
    const auto define = [&](const std::string& location) {
      const std::string alias = "#loc" + Number(++next);
      location_definitions_ += alias + " = loc(" + location + ")\n";
      return alias;
    };
    for (const OpRecord& op : tape_.ops) {
      if (op.source != 0 && files.try_emplace(op.source, "").second) {
        const auto& source = tape_.sources[op.source];
        files[op.source] =
            define(Quote(source.file) + ":" + Number(source.line) + ":0");
      }
      const uint64_t key = LocationKey(op);
      if (!locations_.try_emplace(key, "").second) continue;
      const std::string& scope = tape_.scopes[op.scope];
      if (op.source == 0)
        locations_[key] = scope.empty() ? "#loc" : define(Quote(scope));
      else if (scope.empty())
        locations_[key] = files[op.source];
      else
        order.push_back(key);
    }
    for (uint64_t key : order)
      locations_[key] =
          define(Quote(tape_.scopes[static_cast<int32_t>(key >> 32)]) + "(" +
                 files[static_cast<int32_t>(key & 0xffffffff)] + ")");
  }

  const std::string& Type(ValueId id) {
    std::string& type = types_[id];
    if (!type.empty()) return type;
    const ValueInfo& value = tape_.values[id];
    type = "tensor<";
    int64_t numel = 1;
    bool row_major = value.offset == 0;
    for (int64_t size : value.sizes) type += Number(size) + "x";
    for (size_t d = value.sizes.size(); d-- > 0;) {
      row_major = row_major && value.strides[d] == numel;
      numel *= value.sizes[d];
    }
    type += ElementType(value.dtype);
    int64_t storage = tape_.storage_bytes[value.storage];
    if (!row_major || storage != numel * static_cast<int64_t>(
                                             c10::elementSize(value.dtype))) {
      type += ", #graph.layout<[" + Join(value.strides, Number) + "], " +
              Number(value.offset) + ", " + Number(storage) + ">";
    }
    type += ">";
    return type;
  }

  Attributes StepAttributes() const {
    Attributes attributes;
    attributes["arg_roles"] =
        "[" +
        Join(tape_.bindings,
             [](const Binding& binding) -> std::string {
               switch (binding.kind) {
                 case Binding::Kind::kParameter:
                   return "#graph.param<[" + Join(binding.names, Quote) +
                          "], " + Bool(binding.flag) + ", " +
                          Quote(binding.role) + ">";
                 case Binding::Kind::kBuffer:
                   return "#graph.buffer<" + Quote(binding.names[0]) + ", " +
                          Bool(binding.flag) + ">";
                 case Binding::Kind::kInput:
                   return "#graph.input<" + Quote(binding.names[0]) + ">";
                 default:
                   return "#graph.constant<" + Quote(binding.names[0]) + ">";
               }
             }) +
        "]";
    attributes["format_version"] = "1 : i64";
    attributes["precision"] = Quote(tape_.precision);
    attributes["result_roles"] =
        "[" +
        Join(tape_.results,
             [](const Result& result) {
               return "#graph." + result.kind +
                      (result.name.empty() ? ""
                                           : "<" + Quote(result.name) + ">");
             }) +
        "]";
    attributes["target"] = Quote(tape_.target);
    attributes["torch_version"] = Quote(tape_.torch_version);
    return attributes;
  }

  static std::string ScalarAttribute(const c10::IValue& value) {
    if (value.isBool()) return Bool(value.toBool());
    if (value.isInt()) return Number(value.toInt()) + " : i64";
    if (value.isDouble()) return FormatDouble(value.toDouble()) + " : f64";
    TORCH_CHECK(false, "heddle.capture: a constant of type ", value.tagKind(),
                " cannot be written");
  }

  // Inside an array MLIR leaves out the types that it would assume: i64, and
  // f64 where the number is not hexadecimal.
  static std::string ArrayElement(std::string attribute) {
    bool number = !attribute.empty() &&
                  (std::isdigit(static_cast<unsigned char>(attribute[0])) ||
                   attribute[0] == '-') &&
                  attribute.rfind("0x", 0) != 0;
    size_t type = attribute.find(" : ");
    return number && type != std::string::npos ? attribute.substr(0, type)
                                               : attribute;
  }

  // `type` is the schema's real type, which still tells a dtype from an int.
  static std::string Constant(const c10::IValue& value,
                              const c10::TypePtr& declared) {
    c10::TypePtr type = declared;
    if (type->kind() == c10::TypeKind::OptionalType)
      type = type->castRaw<c10::OptionalType>()->getElementType();
    switch (type->kind()) {
      case c10::TypeKind::ScalarTypeType:
        return ElementType(value.toScalarType());
      case c10::TypeKind::LayoutType:
        TORCH_CHECK(value.toLayout() == at::kStrided,
                    "heddle.capture: only strided tensors are captured");
        return "\"strided\"";
      case c10::TypeKind::MemoryFormatType:
        return Quote(MemoryFormatName(value.toMemoryFormat()));
      case c10::TypeKind::DeviceObjType:
        return "\"$dev\"";
      case c10::TypeKind::StringType:
        return Quote(value.toStringRef());
      case c10::TypeKind::ListType: {
        c10::ArrayRef<c10::IValue> list =
            value.isList() ? value.toListRef() : c10::ArrayRef<c10::IValue>();
        std::vector<c10::IValue> items(list.begin(), list.end());
        auto element = type->castRaw<c10::ListType>()->getElementType()->kind();
        if (value.isIntList())
          return DenseArray("i64", value.toIntVector(), Number);
        if (value.isDoubleList())
          return DenseArray("f64", value.toDoubleVector(), FormatDouble);
        if (value.isBoolList())
          return DenseArray("i1", items, [](const c10::IValue& v) {
            return Bool(v.toBool());
          });
        if (element == c10::TypeKind::IntType ||
            element == c10::TypeKind::SymIntType)
          return DenseArray("i64", items, [](const c10::IValue& v) {
            return Number(v.toInt());
          });
        TORCH_CHECK(items.empty() || items[0].isInt() || items[0].isDouble() ||
                        items[0].isBool(),
                    "heddle.capture: a list of ", items[0].tagKind(),
                    " cannot be written");
        return "[" +
               Join(items,
                    [](const c10::IValue& v) {
                      return ArrayElement(ScalarAttribute(v));
                    }) +
               "]";
      }
      default:
        return ScalarAttribute(value);
    }
  }

  void PrintOp(const OpRecord& op) {
    Attributes discardable{{"graph.phase", op.phase == Phase::kForward
                                               ? "#graph.phase<forward>"
                                               : "#graph.phase<backward>"}};
    if (op.node >= 0) discardable["graph.node"] = Number(op.node) + " : i64";
    if (op.recompute_of >= 0)
      discardable["graph.recompute_of"] = Number(op.recompute_of) + " : i64";
    if (op.rng_id >= 0)
      discardable["graph.rng_id"] = Number(op.rng_id) + " : i64";
    std::vector<ValueId> operands;
    for (const Argument& argument : op.arguments) {
      for (ValueId id : argument.values) {
        if (id >= 0) operands.push_back(id);
      }
    }
    Attributes inherent;
    std::string mnemonic;
    if (!op.guard_expected.empty()) {
      mnemonic = "graph.guard";
      inherent["expected"] = DenseArray("i64", op.guard_expected, Number);
    } else {
      std::string callee = op.name.overload_name.empty()
                               ? op.name.name
                               : op.name.name + "." + op.name.overload_name;
      const graph::OpRow* row =
          op.mutates.empty() ? graph::findOp(callee) : nullptr;
      if (row != nullptr) {
        mnemonic = row->mlirName;
        OdsAttributes(op, *row, inherent);
      } else {
        mnemonic = "graph.call";
        CallAttributes(op, callee, operands, inherent);
      }
    }

    out_ += "    ";
    if (!op.results.empty()) {
      std::string name = "%" + Number(next_value_++);
      out_ += name;
      if (op.results.size() > 1)
        out_ += ":" + Number(static_cast<int64_t>(op.results.size()));
      out_ += " = ";
      pending_.clear();
      for (size_t i = 0; i < op.results.size(); ++i) {
        if (op.results[i] >= 0)
          pending_.emplace_back(
              op.results[i],
              op.results.size() == 1
                  ? name
                  : name + "#" + Number(static_cast<int64_t>(i)));
      }
    }
    out_ += "\"" + mnemonic + "\"(" +
            Join(operands, [&](ValueId id) { return names_[id]; }) + ")";
    if (!inherent.empty()) out_ += " <" + Dictionary(inherent) + ">";
    out_ += " " + Dictionary(discardable) + " : (" +
            Join(operands, [&](ValueId id) { return Type(id); }) + ") -> ";
    std::string results = Join(op.results, [&](ValueId id) {
      return id < 0 ? std::string("none") : Type(id);
    });
    out_ += op.results.size() == 1 ? results : "(" + results + ")";
    out_ += " loc(" + locations_[LocationKey(op)] + ")\n";
    for (auto& [id, name] : pending_) names_[id] = std::move(name);
    pending_.clear();
  }

  static void OdsAttributes(const OpRecord& op, const graph::OpRow& row,
                            Attributes& inherent) {
    std::vector<int64_t> segments;
    TORCH_CHECK(row.numArgs == static_cast<int>(op.arguments.size()),
                "heddle.capture: ", row.atenName, " has ", op.arguments.size(),
                " arguments in this torch and ", row.numArgs,
                " in the operator table");
    for (int i = 0; i < row.numArgs; ++i) {
      const graph::ArgRow& arg = row.args[i];
      const Argument& value = op.arguments[i];
      switch (arg.kind) {
        case ArgKind::kTensor:
        case ArgKind::kTensorList:
          segments.push_back(std::count_if(value.values.begin(),
                                           value.values.end(),
                                           [](ValueId id) { return id >= 0; }));
          break;
        case ArgKind::kOptionalTensorList:
          segments.push_back(std::count_if(value.values.begin(),
                                           value.values.end(),
                                           [](ValueId id) { return id >= 0; }));
          inherent[std::string(arg.name) + "_present"] = DenseArray(
              "i1", value.values, [](ValueId id) { return Bool(id >= 0); });
          break;
        case ArgKind::kGenerator:
          break;
        default:
          if (!value.constant.isNone())
            inherent[arg.name] =
                Constant(value.constant, op.schema->arguments()[i].real_type());
      }
    }
    if (row.segmented)
      inherent["operandSegmentSizes"] = DenseArray("i32", segments, Number);
  }

  static void CallAttributes(const OpRecord& op, const std::string& callee,
                             const std::vector<ValueId>& operands,
                             Attributes& inherent) {
    auto entry = [](ValueId id) {
      return std::string(id >= 0 ? "#graph.operand" : "unit");
    };
    std::string args;
    for (size_t i = 0; i < op.arguments.size(); ++i) {
      const Argument& value = op.arguments[i];
      if (i != 0) args += ", ";
      if (value.kind == Argument::Kind::kTensor) {
        args += entry(value.values[0]);
      } else if (value.kind == Argument::Kind::kTensorList) {
        args += "[" + Join(value.values, entry) + "]";
      } else {
        args +=
            value.constant.isNone()
                ? "unit"
                : ArrayElement(Constant(value.constant,
                                        op.schema->arguments()[i].real_type()));
      }
    }
    inherent["args"] = "[" + args + "]";
    inherent["callee"] = Quote(callee);
    if (op.mutates.empty()) return;
    inherent["mutates"] = DenseArray("i64", op.mutates, Number);
    if (!op.results.empty() && !op.results_are_operands)
      inherent["fresh_results"] = "";
  }

  const Tape& tape_;
  std::vector<std::string> names_;
  std::vector<std::string> types_;
  std::vector<std::pair<ValueId, std::string>> pending_;
  std::unordered_map<uint64_t, std::string> locations_;
  std::string location_definitions_;
  std::string out_;
  int64_t next_value_ = 0;
};

}  // namespace

std::string PrintTape(const Tape& tape) { return Printer(tape).Print(); }

}  // namespace heddle::capture
