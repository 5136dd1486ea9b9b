// Host references of the fused kernels: rms_norm, swiglu, rotary, cross_entropy
// and their gradients, in double, one rounding per result. What each computes
// is written in kernels/README.md.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/call.h"
#include "kernels/elements.h"
#include "kernels/registry.h"

namespace heddle::kernels {
namespace {

// A tensor by name and where its rows are.
struct View {
  const Operand* operand = nullptr;
  Rows rows;
  double At(int64_t row, int64_t column) const {
    return Load(*operand, rows.Offset(row) + column);
  }
  void Put(int64_t row, int64_t column, double value) const {
    Store(*operand, rows.Offset(row) + column, value);
  }
};

// Looks operands up until one is missing or of another shape.
class Reader {
 public:
  Reader(const char* kernel, const Call& call) : kernel_(kernel), call_(call) {}

  View First(const char* name) {
    View view = Find(FindTensor(call_, name), name);
    if (status_.ok())
      status_ = AsRows(kernel_, name, *view.operand, &view.rows);
    shape_ = view.rows;
    return view;
  }
  View Like(const char* name) { return Shaped(FindTensor(call_, name), name); }
  View Result(size_t index) {
    return Shaped(
        index < call_.results.size() ? &call_.results[index] : nullptr,
        "every result");
  }
  // Any operand of `count` elements.
  View Flat(const Operand* operand, const char* name, int64_t count) {
    View view = Find(operand, name);
    if (status_.ok() && operand->count < count)
      status_ = Needs(kernel_, absl::StrCat(name, " of ", count, " elements"));
    view.rows.columns = count;
    return view;
  }
  const absl::Status& status() const { return status_; }

 private:
  View Find(const Operand* operand, const char* name) {
    if (operand == nullptr && status_.ok()) status_ = Needs(kernel_, name);
    View view;
    view.operand = operand;
    return view;
  }
  View Shaped(const Operand* operand, const char* name) {
    View view = Find(operand, name);
    if (status_.ok())
      status_ = AsRowsLike(kernel_, name, *operand, shape_, &view.rows);
    return view;
  }

  const char* kernel_;
  const Call& call_;
  Rows shape_;
  absl::Status status_;
};

// A double as the element type of `like` holds it.
double Rounded(const Operand& like, double value) {
  char bytes[8];
  const Operand one{bytes, like.element, 1};
  Store(one, 0, value);
  return Load(one, 0);
}

absl::Status RmsNorm(const Call& call) {
  Reader reader("rms_norm", call);
  const View x = reader.First("x");
  const bool sums = FindTensor(call, "addend") != nullptr;
  const View addend = sums ? reader.Like("addend") : x;
  const View y = reader.Result(0), sum = sums ? reader.Result(2) : y;
  const int64_t hidden = x.rows.columns, rows = x.rows.rows();
  const View weight = reader.Flat(FindTensor(call, "weight"), "weight", hidden);
  const View rstd =
      reader.Flat(call.results.size() < 2 ? nullptr : &call.results[1],
                  "a result for rstd", rows);
  if (!reader.status().ok()) return reader.status();
  const double eps = FindScalar(call, "eps", 0);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> row(hidden);
    double squares = 0;
    for (int64_t c = 0; c < hidden; ++c) {
      row[c] = x.At(r, c);
      if (sums) {
        row[c] = Rounded(*x.operand, row[c] + addend.At(r, c));
        sum.Put(r, c, row[c]);
      }
      squares += row[c] * row[c];
    }
    const double root = 1 / std::sqrt(squares / hidden + eps);
    rstd.Put(0, r, root);
    for (int64_t c = 0; c < hidden; ++c)
      y.Put(r, c, row[c] * root * weight.At(0, c));
  }
  return absl::OkStatus();
}

absl::Status RmsNormBackward(const Call& call) {
  Reader reader("rms_norm_backward", call);
  const View x = reader.First("x");
  std::vector<View> parts = {reader.Like("dy")};
  for (const char* name : {"dy1", "dy2"})
    if (FindTensor(call, name) != nullptr) parts.push_back(reader.Like(name));
  const bool adds = FindTensor(call, "residual") != nullptr;
  const View residual = adds ? reader.Like("residual") : x;
  const View dx = reader.Result(0);
  const int64_t hidden = x.rows.columns, rows = x.rows.rows();
  const View weight = reader.Flat(FindTensor(call, "weight"), "weight", hidden);
  const View rstd = reader.Flat(FindTensor(call, "rstd"), "rstd", rows);
  const View dw =
      reader.Flat(call.results.size() < 2 ? nullptr : &call.results[1],
                  "a result for the weight", hidden);
  if (!reader.status().ok()) return reader.status();
  std::vector<double> of_weight(hidden), dy(hidden), value(hidden);
  for (int64_t r = 0; r < rows; ++r) {
    const double root = rstd.At(0, r);
    double through = 0;
    for (int64_t c = 0; c < hidden; ++c) {
      dy[c] = 0;
      for (const View& part : parts) dy[c] += part.At(r, c);
      value[c] = x.At(r, c);
      through += dy[c] * weight.At(0, c) * value[c];
      of_weight[c] += dy[c] * value[c] * root;
    }
    for (int64_t c = 0; c < hidden; ++c) {
      const double gradient =
          root *
          (dy[c] * weight.At(0, c) - value[c] * root * root * through / hidden);
      dx.Put(r, c, gradient + (adds ? residual.At(r, c) : 0));
    }
  }
  for (int64_t c = 0; c < hidden; ++c) dw.Put(0, c, of_weight[c]);
  return absl::OkStatus();
}

double Sigmoid(double value) { return 1 / (1 + std::exp(-value)); }

absl::Status SwiGlu(const Call& call) {
  Reader reader("swiglu", call);
  const View gate = reader.First("gate"), up = reader.Like("up");
  const View y = reader.Result(0);
  if (!reader.status().ok()) return reader.status();
  for (int64_t r = 0; r < gate.rows.rows(); ++r) {
    for (int64_t c = 0; c < gate.rows.columns; ++c) {
      const double g = gate.At(r, c);
      y.Put(r, c, g * Sigmoid(g) * up.At(r, c));
    }
  }
  return absl::OkStatus();
}

absl::Status SwiGluBackward(const Call& call) {
  Reader reader("swiglu_backward", call);
  const View gate = reader.First("gate"), up = reader.Like("up"),
             dy = reader.Like("dy");
  const View dgate = reader.Result(0), dup = reader.Result(1);
  if (!reader.status().ok()) return reader.status();
  for (int64_t r = 0; r < gate.rows.rows(); ++r) {
    for (int64_t c = 0; c < gate.rows.columns; ++c) {
      const double g = gate.At(r, c), u = up.At(r, c), d = dy.At(r, c);
      const double s = Sigmoid(g);
      dgate.Put(r, c, d * u * s * (1 + g * (1 - s)));
      dup.Put(r, c, d * g * s);
    }
  }
  return absl::OkStatus();
}

// y = x * cos + rotate_half(x) * sin; `back` true: the transposed rotation.
absl::Status Rotate(const Call& call, const char* kernel, const char* name,
                    bool back) {
  Reader reader(kernel, call);
  const View x = reader.First(name), cosine = reader.Like("cos"),
             sine = reader.Like("sin");
  const View y = reader.Result(0);
  if (!reader.status().ok()) return reader.status();
  if (x.rows.columns % 2 != 0) return Needs(kernel, "an even last dimension");
  const int64_t half = x.rows.columns / 2;
  for (int64_t r = 0; r < x.rows.rows(); ++r) {
    for (int64_t c = 0; c < half; ++c) {
      const double low = x.At(r, c), high = x.At(r, c + half);
      if (back) {
        y.Put(r, c, low * cosine.At(r, c) + high * sine.At(r, c + half));
        y.Put(r, c + half, high * cosine.At(r, c + half) - low * sine.At(r, c));
      } else {
        y.Put(r, c, low * cosine.At(r, c) - high * sine.At(r, c));
        y.Put(r, c + half,
              high * cosine.At(r, c + half) + low * sine.At(r, c + half));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Rotary(const Call& call) {
  return Rotate(call, "rotary", "x", false);
}
absl::Status RotaryBackward(const Call& call) {
  return Rotate(call, "rotary_backward", "dy", true);
}

// The logits as rows of classes, whatever the shape before the last dimension.
struct Classes {
  int64_t rows = 0, classes = 0, label_stride = 1;
  const Operand* logits = nullptr;
  const Operand* labels = nullptr;
  int64_t ignore = 0;
  bool mean = false;
  double At(int64_t row, int64_t column) const {
    return Load(*logits, row * classes + column);
  }
  int64_t Label(int64_t row) const {
    return static_cast<int64_t>(Load(*labels, row * label_stride));
  }
};

absl::Status ReadClasses(const char* kernel, const Call& call, Classes* c) {
  c->logits = FindTensor(call, "logits");
  c->labels = FindTensor(call, "labels");
  if (c->logits == nullptr || c->labels == nullptr ||
      c->labels->element != Element::kI64 || c->logits->sizes.empty())
    return Needs(kernel, "logits and i64 labels");
  c->classes = c->logits->sizes.back();
  c->rows = c->classes == 0 ? 0 : c->logits->count / c->classes;
  if (c->rows == 0 || c->labels->count != c->rows)
    return Needs(kernel, "one label per row of logits");
  if (!c->labels->strides.empty()) c->label_stride = c->labels->strides.back();
  c->ignore = static_cast<int64_t>(FindScalar(call, "ignore_index", -100));
  c->mean = FindScalar(call, "mean", 0) != 0;
  return absl::OkStatus();
}

absl::Status CrossEntropy(const Call& call) {
  Classes c;
  if (absl::Status status = ReadClasses("cross_entropy", call, &c);
      !status.ok())
    return status;
  if (call.results.size() != 4 || call.results[2].count != c.rows ||
      call.results[3].count != c.rows)
    return Needs("cross_entropy", "loss, total_weight, lse and row losses");
  double sum = 0;
  int64_t valid = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t k = 0; k < c.classes; ++k) top = std::max(top, c.At(r, k));
    for (int64_t k = 0; k < c.classes; ++k) total += std::exp(c.At(r, k) - top);
    const double lse = top + std::log(total);
    const int64_t label = c.Label(r);
    double loss = 0;
    if (label != c.ignore) {
      valid += 1;
      loss = label < 0 || label >= c.classes
                 ? std::numeric_limits<double>::quiet_NaN()
                 : lse - c.At(r, label);
    }
    sum += loss;
    Store(call.results[2], r, lse);
    Store(call.results[3], r, loss);
  }
  Store(call.results[0], 0, c.mean ? sum / static_cast<double>(valid) : sum);
  Store(call.results[1], 0, static_cast<double>(valid));
  return absl::OkStatus();
}

absl::Status CrossEntropyBackward(const Call& call) {
  Classes c;
  if (absl::Status status = ReadClasses("cross_entropy_backward", call, &c);
      !status.ok())
    return status;
  const Operand* dloss = FindTensor(call, "dloss");
  const Operand* lse = FindTensor(call, "lse");
  const Operand* total = FindTensor(call, "total_weight");
  if (dloss == nullptr || lse == nullptr || total == nullptr ||
      lse->count != c.rows || call.results.size() != 1 ||
      call.results[0].count != c.logits->count)
    return Needs("cross_entropy_backward",
                 "dloss, lse, total_weight and one result like the logits");
  const double scale = Load(*dloss, 0) / (c.mean ? Load(*total, 0) : 1.0);
  for (int64_t r = 0; r < c.rows; ++r) {
    const int64_t label = c.Label(r);
    for (int64_t k = 0; k < c.classes; ++k) {
      const double p = std::exp(c.At(r, k) - Load(*lse, r));
      Store(call.results[0], r * c.classes + k,
            label == c.ignore ? 0 : (p - (k == label)) * scale);
    }
  }
  return absl::OkStatus();
}

absl::Status EmbeddingAdd(const Call& call) {
  Reader reader("embedding_backward_add", call);
  const View dy = reader.First("dy");
  const Operand* base = FindTensor(call, "base");
  const Operand* indices = FindTensor(call, "indices");
  if (!reader.status().ok()) return reader.status();
  const int64_t columns = dy.rows.columns, tokens = dy.rows.rows();
  if (base == nullptr || indices == nullptr || base->count % columns != 0 ||
      indices->element != Element::kI64 || indices->count != tokens ||
      call.results.size() != 1 || call.results[0].count != base->count)
    return Needs("embedding_backward_add",
                 "base, an i64 index per row of dy, and one result like base");
  const int64_t weights = base->count / columns;
  const int64_t padding =
      static_cast<int64_t>(FindScalar(call, "padding_idx", -1));
  std::vector<double> sum(columns);
  for (int64_t id = 0; id < weights; ++id) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t t = 0; t < tokens; ++t) {
      if (id == padding || static_cast<int64_t>(Load(*indices, t)) != id)
        continue;
      for (int64_t c = 0; c < columns; ++c) sum[c] += dy.At(t, c);
    }
    for (int64_t c = 0; c < columns; ++c)
      Store(call.results[0], id * columns + c,
            Load(*base, id * columns + c) + sum[c]);
  }
  return absl::OkStatus();
}

const Registration kEmbeddingAdd("embedding_backward_add", &EmbeddingAdd,
                                 nullptr);
const Registration kRmsNorm("rms_norm", &RmsNorm, nullptr);
const Registration kRmsNormBackward("rms_norm_backward", &RmsNormBackward,
                                    nullptr);
const Registration kSwiGlu("swiglu", &SwiGlu, nullptr);
const Registration kSwiGluBackward("swiglu_backward", &SwiGluBackward, nullptr);
const Registration kRotary("rotary", &Rotary, nullptr);
const Registration kRotaryBackward("rotary_backward", &RotaryBackward, nullptr);
const Registration kCrossEntropy("cross_entropy", &CrossEntropy, nullptr);
const Registration kCrossEntropyBackward("cross_entropy_backward",
                                         &CrossEntropyBackward, nullptr);

}  // namespace
}  // namespace heddle::kernels
