// The schema decides how a plan argument is boxed; the plan's kinds only have
// to be able to mean it.

#include "runtime/torch/aten_args.h"

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heddle::torch_runtime {
namespace {

absl::StatusOr<c10::IValue> BoxList(const plan::Arg& arg,
                                    const c10::TypePtr& element,
                                    TensorTable& tensors) {
  switch (arg.kind) {
    case plan::ArgKind::kValueList: {
      if (element->kind() == c10::TypeKind::OptionalType) {
        c10::List<std::optional<at::Tensor>> list;
        for (int64_t v : arg.ints) {
          list.push_back(v < 0 ? std::optional<at::Tensor>()
                               : std::optional<at::Tensor>(
                                     tensors.at(static_cast<uint32_t>(v))));
        }
        return c10::IValue(std::move(list));
      }
      c10::List<at::Tensor> list;
      for (int64_t v : arg.ints) {
        if (v < 0)
          return absl::InvalidArgumentError(
              "the list has an absent tensor where the operator wants every "
              "one");
        list.push_back(tensors.at(static_cast<uint32_t>(v)));
      }
      return c10::IValue(std::move(list));
    }
    case plan::ArgKind::kIntList: {
      if (element->kind() == c10::TypeKind::FloatType) {
        c10::List<double> list;
        for (int64_t i : arg.ints) list.push_back(static_cast<double>(i));
        return c10::IValue(std::move(list));
      }
      if (element->kind() == c10::TypeKind::BoolType) {
        c10::List<bool> list;
        for (int64_t i : arg.ints) list.push_back(i != 0);
        return c10::IValue(std::move(list));
      }
      if (element->kind() == c10::TypeKind::TensorType ||
          element->kind() == c10::TypeKind::OptionalType) {
        if (!arg.ints.empty())
          return absl::InvalidArgumentError(
              "integers where the operator wants tensors");
        if (element->kind() == c10::TypeKind::OptionalType)
          return c10::IValue(c10::List<std::optional<at::Tensor>>());
        return c10::IValue(c10::List<at::Tensor>());
      }
      c10::List<int64_t> list;
      for (int64_t i : arg.ints) list.push_back(i);
      return c10::IValue(std::move(list));
    }
    case plan::ArgKind::kFloatList: {
      c10::List<double> list;
      for (double d : arg.floats) list.push_back(d);
      return c10::IValue(std::move(list));
    }
    case plan::ArgKind::kBoolList: {
      c10::List<bool> list;
      for (int64_t i : arg.ints) list.push_back(i != 0);
      return c10::IValue(std::move(list));
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("a plan argument of kind ", static_cast<int>(arg.kind),
                       " where the operator wants a list"));
  }
}

absl::StatusOr<c10::IValue> BoxMemoryFormat(const std::string& name) {
  if (name == "contiguous") return c10::IValue(c10::MemoryFormat::Contiguous);
  if (name == "preserve") return c10::IValue(c10::MemoryFormat::Preserve);
  if (name == "channels_last")
    return c10::IValue(c10::MemoryFormat::ChannelsLast);
  if (name == "channels_last_3d")
    return c10::IValue(c10::MemoryFormat::ChannelsLast3d);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown memory format '", name, "'"));
}

absl::StatusOr<c10::IValue> BoxScalar(const plan::Arg& arg, c10::TypeKind kind,
                                      TensorTable& tensors,
                                      c10::Device device) {
  switch (arg.kind) {
    case plan::ArgKind::kValue:
      if (kind != c10::TypeKind::TensorType)
        return absl::InvalidArgumentError(
            "a tensor where the operator wants something else");
      return c10::IValue(tensors.at(static_cast<uint32_t>(arg.i)));
    case plan::ArgKind::kInt:
      if (kind == c10::TypeKind::FloatType)
        return c10::IValue(static_cast<double>(arg.i));
      if (kind == c10::TypeKind::BoolType) return c10::IValue(arg.i != 0);
      if (kind == c10::TypeKind::TensorType)
        return absl::InvalidArgumentError(
            "an integer where the operator wants a tensor");
      return c10::IValue(arg.i);
    case plan::ArgKind::kFloat:
      if (kind == c10::TypeKind::IntType || kind == c10::TypeKind::SymIntType ||
          kind == c10::TypeKind::TensorType)
        return absl::InvalidArgumentError(
            "a float where the operator wants something else");
      return c10::IValue(arg.f);
    case plan::ArgKind::kBool:
      if (kind == c10::TypeKind::TensorType)
        return absl::InvalidArgumentError(
            "a bool where the operator wants a tensor");
      return c10::IValue(arg.i != 0);
    case plan::ArgKind::kString:
      return c10::IValue(arg.s);
    case plan::ArgKind::kDType:
      return c10::IValue(ToScalarType(static_cast<plan::DType>(arg.i)));
    case plan::ArgKind::kDevice:
      return c10::IValue(device);
    case plan::ArgKind::kLayout:
      if (arg.s != "strided")
        return absl::InvalidArgumentError(absl::StrCat(
            "layout '", arg.s, "'; only strided tensors are supported"));
      return c10::IValue(c10::Layout::Strided);
    case plan::ArgKind::kMemoryFormat:
      return BoxMemoryFormat(arg.s);
    case plan::ArgKind::kComplex:
      return c10::IValue(c10::complex<double>(arg.floats[0], arg.floats[1]));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("a plan argument of kind ", static_cast<int>(arg.kind),
                       " where the operator wants a single value"));
  }
}

}  // namespace

absl::StatusOr<BoxedArgs> BoxArgs(const c10::FunctionSchema& schema,
                                  const plan::Step& step, TensorTable& tensors,
                                  c10::Device device) {
  const auto& arguments = schema.arguments();
  if (arguments.size() != step.args.size())
    return absl::InvalidArgumentError(
        absl::StrCat("the plan gives ", step.args.size(),
                     " arguments and the operator takes ", arguments.size(),
                     "; was the plan made for another torch?"));
  BoxedArgs boxed;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const plan::Arg& arg = step.args[i];
    c10::TypePtr type = arguments[i].real_type();
    const auto fail = [&](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat("argument ", i, " '", arguments[i].name(), "' of type ",
                       type->str(), ": ", why));
    };
    if (!arg.name.empty() && arg.name != arguments[i].name())
      return fail(absl::StrCat("the plan calls it '", arg.name,
                               "'; was the plan made for another torch?"));
    if (type->kind() == c10::TypeKind::OptionalType) {
      if (arg.kind == plan::ArgKind::kNone) {
        boxed.stack.emplace_back();
        continue;
      }
      type = type->expectRef<c10::OptionalType>().getElementType();
    }
    // Some operators take an undefined tensor where the schema says Tensor
    // (cum_seq_q of attention's backward).
    if (arg.kind == plan::ArgKind::kNone &&
        type->kind() == c10::TypeKind::TensorType) {
      boxed.stack.emplace_back(at::Tensor());
      continue;
    }
    if (arg.kind == plan::ArgKind::kNone)
      return fail("the plan gives nothing for a required argument");
    if (arg.kind == plan::ArgKind::kRuntime) {
      boxed.runtime.push_back({i, arg.s,
                               type->kind() == c10::TypeKind::IntType ||
                                   type->kind() == c10::TypeKind::SymIntType});
      boxed.stack.emplace_back();
      continue;
    }
    absl::StatusOr<c10::IValue> value;
    if (type->kind() == c10::TypeKind::ListType) {
      value = BoxList(arg, type->expectRef<c10::ListType>().getElementType(),
                      tensors);
    } else {
      value = BoxScalar(arg, type->kind(), tensors, device);
    }
    if (!value.ok()) return fail(value.status().message());
    boxed.stack.push_back(*std::move(value));
  }
  return boxed;
}

}  // namespace heddle::torch_runtime
