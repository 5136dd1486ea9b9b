// Registers the device code of the fused kernels: checks a Call's operands and
// fills the plain structs of the launches. Refuses what the CUDA code would
// misread; every refusal names the kernel and what it needs.

#ifdef HEDDLE_HAVE_CUDA

#include "kernels/fused_cuda.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/call.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

int FusedElementOf(Element element) {
  switch (element) {
    case Element::kF16:
      return kFusedF16;
    case Element::kBF16:
      return kFusedBF16;
    case Element::kF32:
      return kFusedF32;
    default:
      return -1;
  }
}

// Fills structs from operands; the first thing that does not fit is the status.
class Filler {
 public:
  Filler(const char* kernel, const Call& call) : kernel_(kernel), call_(call) {}

  // The tensor whose shape and element type are the launch's.
  RowsOf First(const char* name, RowShape* shape) {
    const Operand* operand = FindTensor(call_, name);
    if (!Check(operand, name)) return {};
    element_ = FusedElementOf(operand->element);
    if (element_ < 0) Fail(absl::StrCat(name, " of bf16, f16 or f32"));
    if (status_.ok()) status_ = AsRows(kernel_, name, *operand, &rows_);
    if (rows_.rows() > std::numeric_limits<unsigned>::max() / 2 ||
        rows_.columns > std::numeric_limits<int>::max() / 2)
      Fail("fewer rows or columns");
    for (int d = 0; d < 3; ++d)
      shape->sizes[d] = static_cast<unsigned>(rows_.sizes[d]);
    shape->rows = static_cast<unsigned>(rows_.rows());
    shape->columns = static_cast<unsigned>(rows_.columns);
    return Placed(*operand, rows_);
  }
  RowsOf Like(const char* name) {
    return Shaped(FindTensor(call_, name), name);
  }
  RowsOf MaybeLike(const char* name) {
    return FindTensor(call_, name) == nullptr ? RowsOf{} : Like(name);
  }
  RowsOf Result(size_t index) {
    return Shaped(Output(index), absl::StrCat("result ", index).c_str());
  }
  void* Flat(const Operand* operand, const char* name, int64_t count,
             int element) {
    if (!Check(operand, name)) return nullptr;
    if (operand->count < count || FusedElementOf(operand->element) != element)
      Fail(absl::StrCat(name, " of ", count, " elements of the right type"));
    return operand->data;
  }
  const Operand* Input(const char* name) { return FindTensor(call_, name); }
  const Operand* Output(size_t index) {
    return index < call_.results.size() ? &call_.results[index] : nullptr;
  }
  void Fail(const std::string& what) {
    if (status_.ok()) status_ = Needs(kernel_, what);
  }
  int element() const { return element_; }
  bool ok() const { return status_.ok(); }

  absl::Status Launched(const char* error) const {
    return error == nullptr ? absl::OkStatus()
                            : absl::InternalError(absl::StrCat(
                                  "kernel ", kernel_, ": ", error));
  }
  const absl::Status& status() const { return status_; }

 private:
  bool Check(const Operand* operand, const char* name) {
    if (operand == nullptr || operand->data == nullptr) Fail(name);
    return status_.ok();
  }
  RowsOf Shaped(const Operand* operand, const char* name) {
    if (!Check(operand, name)) return {};
    Rows rows;
    status_ = AsRowsLike(kernel_, name, *operand, rows_, &rows);
    if (FusedElementOf(operand->element) != element_)
      Fail(absl::StrCat(name, " of its operand's type"));
    return Placed(*operand, rows);
  }
  static RowsOf Placed(const Operand& operand, const Rows& rows) {
    RowsOf result{operand.data, {}};
    for (int d = 0; d < 3; ++d) result.strides[d] = rows.strides[d];
    return result;
  }

  const char* kernel_;
  const Call& call_;
  Rows rows_;
  int element_ = -1;
  absl::Status status_;
};

absl::Status RmsNorm(const Call& call) {
  Filler filler("rms_norm", call);
  RmsNormDevice a{};
  a.x = filler.First("x", &a.shape);
  a.addend = filler.MaybeLike("addend");
  a.y = filler.Result(0);
  if (a.addend.data != nullptr) a.sum = filler.Result(2);
  a.weight = filler.Flat(filler.Input("weight"), "weight", a.shape.columns,
                         filler.element());
  a.rstd = static_cast<float*>(
      filler.Flat(filler.Output(1), "rstd", a.shape.rows, kFusedF32));
  a.eps = static_cast<float>(FindScalar(call, "eps", 0));
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchRmsNorm(a, filler.element(), call.stream));
}

absl::Status RmsNormBackward(const Call& call) {
  Filler filler("rms_norm_backward", call);
  RmsNormBackwardDevice a{};
  a.x = filler.First("x", &a.shape);
  a.dy[0] = filler.Like("dy");
  a.dy[1] = filler.MaybeLike("dy1");
  a.dy[2] = filler.MaybeLike("dy2");
  a.residual = filler.MaybeLike("residual");
  a.dx = filler.Result(0);
  a.weight = filler.Flat(filler.Input("weight"), "weight", a.shape.columns,
                         filler.element());
  a.rstd = static_cast<const float*>(
      filler.Flat(filler.Input("rstd"), "rstd", a.shape.rows, kFusedF32));
  a.dw = filler.Flat(filler.Output(1), "a result for the weight",
                     a.shape.columns, filler.element());
  a.partials = static_cast<float*>(filler.Flat(filler.Output(2), "partial sums",
                                               a.shape.columns, kFusedF32));
  if (a.shape.columns > 50000) filler.Fail("rows of at most 50000 elements");
  if (!filler.ok()) return filler.status();
  a.parts = static_cast<unsigned>(call.results[2].count / a.shape.columns);
  return filler.Launched(
      LaunchRmsNormBackward(a, filler.element(), call.stream));
}

absl::Status SwiGlu(const Call& call, const char* kernel, bool back) {
  Filler filler(kernel, call);
  RowShape shape{};
  SwiGluDevice a{};
  a.gate = filler.First("gate", &shape).data;
  if (!filler.ok()) return filler.status();
  a.count = filler.Input("gate")->count;
  auto dense = [&](const Operand* operand, const char* name) {
    void* data = filler.Flat(operand, name, a.count, filler.element());
    if (operand != nullptr && !operand->sizes.empty()) {
      int64_t expected = 1;
      for (size_t d = operand->sizes.size(); d-- > 0;) {
        if (operand->sizes[d] != 1 && operand->strides[d] != expected)
          filler.Fail(absl::StrCat(name, " row-major"));
        expected *= operand->sizes[d];
      }
    }
    return data;
  };
  dense(filler.Input("gate"), "gate");
  a.up = dense(filler.Input("up"), "up");
  if (back) a.dy = dense(filler.Input("dy"), "dy");
  a.first = dense(filler.Output(0), "a result");
  if (back) a.second = dense(filler.Output(1), "a second result");
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchSwiGlu(a, filler.element(), call.stream));
}
absl::Status SwiGluForward(const Call& call) {
  return SwiGlu(call, "swiglu", false);
}
absl::Status SwiGluBackward(const Call& call) {
  return SwiGlu(call, "swiglu_backward", true);
}

absl::Status Rotary(const Call& call, const char* kernel, const char* name,
                    bool back) {
  Filler filler(kernel, call);
  RotaryDevice a{};
  a.x = filler.First(name, &a.shape);
  a.cosine = filler.Like("cos");
  a.sine = filler.Like("sin");
  a.y = filler.Result(0);
  a.back = back;
  if (a.shape.columns % 2 != 0) filler.Fail("an even last dimension");
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchRotary(a, filler.element(), call.stream));
}
absl::Status RotaryForward(const Call& call) {
  return Rotary(call, "rotary", "x", false);
}
absl::Status RotaryBackward(const Call& call) {
  return Rotary(call, "rotary_backward", "dy", true);
}

// What forward and backward share.
CrossEntropyDevice ReadClasses(Filler& filler, const Call& call) {
  CrossEntropyDevice a{};
  RowShape shape{};
  a.logits = filler.First("logits", &shape).data;
  const Operand* labels = filler.Input("labels");
  if (labels == nullptr || labels->element != Element::kI64 ||
      labels->count != shape.rows) {
    filler.Fail("one i64 label per row of logits");
    return a;
  }
  a.labels = static_cast<const long long*>(labels->data);
  a.label_stride = labels->strides.empty() ? 1 : labels->strides.back();
  a.ignore = static_cast<long long>(FindScalar(call, "ignore_index", -100));
  a.rows = shape.rows;
  a.classes = shape.columns;
  a.mean = FindScalar(call, "mean", 0) != 0;
  return a;
}

absl::Status CrossEntropy(const Call& call) {
  Filler filler("cross_entropy", call);
  CrossEntropyDevice a = ReadClasses(filler, call);
  if (call.results.size() != 4) filler.Fail("four results");
  if (!filler.ok()) return filler.status();
  a.scalar_element = FusedElementOf(call.results[0].element);
  a.loss = filler.Flat(filler.Output(0), "loss", 1, a.scalar_element);
  a.total_weight =
      filler.Flat(filler.Output(1), "total_weight", 1, a.scalar_element);
  a.lse = static_cast<float*>(
      filler.Flat(filler.Output(2), "lse", a.rows, kFusedF32));
  a.row_loss = static_cast<float*>(
      filler.Flat(filler.Output(3), "row losses", a.rows, kFusedF32));
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchCrossEntropy(a, filler.element(), call.stream));
}

absl::Status CrossEntropyBackward(const Call& call) {
  Filler filler("cross_entropy_backward", call);
  CrossEntropyDevice a = ReadClasses(filler, call);
  const Operand* dloss = filler.Input("dloss");
  if (dloss == nullptr || call.results.size() != 1)
    filler.Fail("dloss and one result");
  if (!filler.ok()) return filler.status();
  a.scalar_element = FusedElementOf(dloss->element);
  a.dloss = filler.Flat(dloss, "dloss", 1, a.scalar_element);
  a.total_weight = filler.Flat(filler.Input("total_weight"), "total_weight", 1,
                               a.scalar_element);
  a.lse = static_cast<float*>(
      filler.Flat(filler.Input("lse"), "lse", a.rows, kFusedF32));
  a.dlogits =
      filler.Flat(filler.Output(0), "a result like the logits",
                  static_cast<int64_t>(a.rows) * a.classes, filler.element());
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchCrossEntropy(a, filler.element(), call.stream));
}

absl::Status EmbeddingAdd(const Call& call) {
  Filler filler("embedding_backward_add", call);
  EmbeddingAddDevice a{};
  a.dy = filler.First("dy", &a.shape);
  const Operand* base = filler.Input("base");
  const Operand* indices = filler.Input("indices");
  if (base == nullptr || base->sizes.size() != 2 || indices == nullptr ||
      indices->element != Element::kI64 ||
      base->sizes[1] != static_cast<int64_t>(a.shape.columns) ||
      indices->count != a.shape.rows)
    filler.Fail("base, an i64 index per row of dy, and rows of one length");
  if (!filler.ok()) return filler.status();
  a.weights = base->sizes[0];
  a.base = filler.Flat(base, "base", base->count, filler.element());
  a.out = filler.Flat(filler.Output(0), "a result like base", base->count,
                      filler.element());
  a.indices = static_cast<const long long*>(indices->data);
  a.padding = static_cast<long long>(FindScalar(call, "padding_idx", -1));
  if (!filler.ok()) return filler.status();
  return filler.Launched(LaunchEmbeddingAdd(a, filler.element(), call.stream));
}

const DeviceRegistration kEmbeddingAdd("embedding_backward_add", &EmbeddingAdd);
const DeviceRegistration kRmsNorm("rms_norm", &RmsNorm);
const DeviceRegistration kRmsNormBackward("rms_norm_backward",
                                          &RmsNormBackward);
const DeviceRegistration kSwiGlu("swiglu", &SwiGluForward);
const DeviceRegistration kSwiGluBackward("swiglu_backward", &SwiGluBackward);
const DeviceRegistration kRotary("rotary", &RotaryForward);
const DeviceRegistration kRotaryBackward("rotary_backward", &RotaryBackward);
const DeviceRegistration kCrossEntropy("cross_entropy", &CrossEntropy);
const DeviceRegistration kCrossEntropyBackward("cross_entropy_backward",
                                               &CrossEntropyBackward);

}  // namespace
}  // namespace heddle::kernels

#endif
