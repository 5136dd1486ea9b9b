// Options and a matrix shape -> the products to run. The Gram form moves the
// iteration from X [n, m] to R = X X^T [n, n]: every factor is a polynomial in
// R, hence symmetric. Its weak spot is rounding in R, which acts like small
// negative eigenvalues that the iteration blows up; forming R anew from X
// ("restart") before that happens is what keeps it stable.

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/newton_schulz.h"

namespace heddle::kernels {
namespace {

constexpr int kMaxSteps = 32;

std::vector<Quintic> Scaled(std::vector<Quintic> quintics, double s) {
  for (Quintic& q : quintics)
    q = {q.a / s, q.b / std::pow(s, 3), q.c / std::pow(s, 5)};
  return quintics;
}

// Sources: Keller Jordan's Muon; Jiacheng You's tuned five; Polar Express
// (Amsel, Persson, Musco, Gower) for singular values in [1e-3, 1], its argument
// divided by 1.05 against rounding past 1.
const std::vector<Quintic>* FindSet(const std::string& name) {
  static const std::vector<Quintic>& keller_jordan =
      *new std::vector<Quintic>{{3.4445, -4.7750, 2.0315}};
  static const std::vector<Quintic>& you =
      *new std::vector<Quintic>{{4.0848, -6.8946, 2.9270},
                                {3.9505, -6.3029, 2.6377},
                                {3.7418, -5.5913, 2.3037},
                                {2.8769, -3.1427, 1.2046},
                                {2.8366, -3.0525, 1.2012}};
  static const std::vector<Quintic>& polar_express =
      *new std::vector<Quintic>(Scaled({{8.28721, -23.59589, 17.30039},
                                        {4.10706, -2.94785, 0.54484},
                                        {3.94869, -2.90890, 0.55182},
                                        {3.31842, -2.48849, 0.51005},
                                        {2.30065, -1.66890, 0.41881}},
                                       1.05));
  if (name == "keller_jordan") return &keller_jordan;
  if (name == "you") return &you;
  if (name == "polar_express") return &polar_express;
  return nullptr;
}

std::vector<Quintic> Extended(std::vector<Quintic> quintics, int steps) {
  const Quintic last = quintics.back();
  quintics.resize(static_cast<size_t>(steps), last);
  return quintics;
}

absl::Status Wrong(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("kernel newton_schulz: ", what));
}

std::string Text(const Call& call, const char* name, const char* otherwise) {
  const auto it = call.strings.find(name);
  return it == call.strings.end() ? otherwise : it->second;
}

double Number(const Call& call, const char* name, double otherwise) {
  const auto it = call.scalars.find(name);
  return it == call.scalars.end() ? otherwise : it->second;
}

// Hands out buffer numbers and takes them back.
class Buffers {
 public:
  explicit Buffers(std::vector<bool>& square) : square_(square) {}
  int Take(bool square) {
    for (size_t i = 0; i < free_.size(); ++i) {
      if (square_[static_cast<size_t>(free_[i])] != square) continue;
      const int buffer = free_[i];
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
      return buffer;
    }
    square_.push_back(square);
    return static_cast<int>(square_.size()) - 1;
  }
  void Give(int buffer) { free_.push_back(buffer); }

 private:
  std::vector<bool>& square_;
  std::vector<int> free_;
};

class Builder {
 public:
  // fold: the factor a I + Z is stored, and the products with it read no C. A
  // bf16 diagonal rounds a + z by up to 0.4 %, all of it the same way, so the
  // standard form in bf16 keeps the identity in the epilogue (a X + Z X).
  explicit Builder(bool fold) : fold_(fold), buffers_(program_.square) {
    x_ = buffers_.Take(false);
  }

  void FormGram() {
    r_ = Product(x_, x_, /*square=*/true);
    program_.ops.back().transpose_b = true;
  }
  // Z = c R^2 + b R, or a I + Z.
  int Factor(const Quintic& q) {
    const int w = Product(r_, r_, /*square=*/true);
    NewtonSchulzOp& op = program_.ops.back();
    op.alpha = q.c;
    op.c = r_;
    op.beta = q.b;
    if (fold_) op.diagonal = q.a;
    return w;
  }
  // (a I + Z) Y, Y symmetric or X.
  int Apply(int w, int y, const Quintic& q) {
    const int out = Product(w, y, program_.square[static_cast<size_t>(y)]);
    if (!fold_) {
      program_.ops.back().c = y;
      program_.ops.back().beta = q.a;
    }
    return out;
  }
  void Standard(const Quintic& q) {
    FormGram();
    const int w = Factor(q);
    const int next = Apply(w, x_, q);
    Drop({r_, w, x_});
    x_ = next;
  }
  // One step of a segment: Q <- (a I + Z) Q, and R likewise from both sides
  // unless the segment ends here.
  void Gram(const Quintic& q, bool last) {
    const int w = Factor(q);
    if (q_ < 0) {
      q_ = w;
    } else {
      const int next = Apply(w, q_, q);
      Drop({q_});
      q_ = next;
    }
    if (!last) {
      const int half = Apply(w, r_, q);
      const int next = Apply(w, half, q);
      Drop({half, r_});
      r_ = next;
    }
    if (q_ != w) Drop({w});
  }
  void EndSegment() {
    const int next = Product(q_, x_, /*square=*/false);
    Drop({q_, r_, x_});
    x_ = next;
    q_ = -1;
  }
  NewtonSchulzProgram Finish() {
    // The result gets a buffer of its own: it lies in the caller's memory.
    program_.square.push_back(false);
    program_.output = static_cast<int>(program_.square.size()) - 1;
    program_.ops.back().out = program_.output;
    return std::move(program_);
  }

 private:
  int Product(int a, int b, bool square) {
    NewtonSchulzOp op;
    op.a = a;
    op.b = b;
    op.symmetric = square;
    op.out = buffers_.Take(square);
    program_.ops.push_back(op);
    return op.out;
  }
  void Drop(std::initializer_list<int> buffers) {
    // Buffer 0 is the input, which callers may keep apart from the others.
    for (int buffer : buffers)
      if (buffer != 0) buffers_.Give(buffer);
  }

  const bool fold_;
  NewtonSchulzProgram program_;
  Buffers buffers_;
  int x_ = -1, r_ = -1, q_ = -1;
};

}  // namespace

absl::StatusOr<std::vector<Quintic>> NamedQuintics(const std::string& name,
                                                   int steps) {
  const std::vector<Quintic>* set = FindSet(name);
  if (set == nullptr)
    return Wrong(absl::StrCat("coefficients '", name,
                              "' are not known; there are keller_jordan, you "
                              "and polar_express, or give triples"));
  return Extended(*set, steps);
}

absl::StatusOr<NewtonSchulzOptions> ReadNewtonSchulzOptions(const Call& call) {
  NewtonSchulzOptions options;
  const std::string form = Text(call, "ns", "gram");
  if (form != "gram" && form != "standard")
    return Wrong(
        absl::StrCat("ns is '", form, "'; it is 'gram' or 'standard'"));
  options.gram = form == "gram";
  const double steps = Number(call, "steps", 5);
  if (!(steps >= 1 && steps <= kMaxSteps) || steps != std::floor(steps))
    return Wrong(
        absl::StrCat("steps is ", steps, "; it is an integer from 1 to 32"));
  if (const auto it = call.lists.find("coefficients"); it != call.lists.end()) {
    if (it->second.empty() || it->second.size() % 3 != 0)
      return Wrong(absl::StrCat("coefficients are ", it->second.size(),
                                " numbers; they come in triples (a, b, c)"));
    for (size_t i = 0; i < it->second.size(); i += 3)
      options.quintics.push_back(
          {it->second[i], it->second[i + 1], it->second[i + 2]});
    for (double number : it->second)
      if (!std::isfinite(number)) return Wrong("a coefficient is not finite");
    options.quintics =
        Extended(std::move(options.quintics), static_cast<int>(steps));
  } else {
    absl::StatusOr<std::vector<Quintic>> named = NamedQuintics(
        Text(call, "coefficients", "keller_jordan"), static_cast<int>(steps));
    if (!named.ok()) return named.status();
    options.quintics = *std::move(named);
  }
  const std::string dtype = Text(call, "dtype", options.gram ? "fp16" : "bf16");
  if (dtype == "fp64") {
    options.dtype = Element::kF64;
  } else if (dtype == "fp32") {
    options.dtype = Element::kF32;
  } else if (dtype == "bf16") {
    options.dtype = Element::kBF16;
  } else if (dtype == "fp16") {
    options.dtype = Element::kF16;
  } else {
    return Wrong(
        absl::StrCat("dtype is '", dtype, "'; it is fp64, fp32, bf16 or fp16"));
  }
  options.eps = Number(call, "eps", 1e-7);
  if (!(options.eps >= 0) || std::isinf(options.eps))
    return Wrong(absl::StrCat("eps is ", options.eps,
                              "; it is finite and not negative"));
  const std::string norm_eps = Text(call, "norm_eps", "add");
  if (norm_eps != "add" && norm_eps != "clamp")
    return Wrong(
        absl::StrCat("norm_eps is '", norm_eps, "'; it is 'add' or 'clamp'"));
  options.clamp = norm_eps == "clamp";
  return options;
}

double GramGrowth(const std::vector<Quintic>& quintics,
                  const std::vector<int>& restarts, double noise) {
  double growth = 1, segment = 1, eigenvalue = -noise;
  for (size_t i = 0; i < quintics.size(); ++i) {
    if (std::find(restarts.begin(), restarts.end(), static_cast<int>(i)) !=
        restarts.end()) {
      growth *= segment;
      segment = 1;
      eigenvalue = -noise;
    }
    const Quintic& q = quintics[i];
    const double factor =
        q.a + q.b * eigenvalue + q.c * eigenvalue * eigenvalue;
    segment *= factor;
    eigenvalue *= factor * factor;
  }
  return std::fabs(growth * segment);
}

std::vector<int> ChooseRestarts(const std::vector<Quintic>& quintics,
                                Element dtype) {
  double noise = std::ldexp(1, -10), allowed = 2;
  if (dtype == Element::kBF16) noise = std::ldexp(1, -7);
  // Wider iterates are there for accuracy, not for a band.
  if (dtype == Element::kF32 || dtype == Element::kF64) {
    noise = std::ldexp(1, dtype == Element::kF32 ? -23 : -52);
    allowed = 1 + std::ldexp(1, -10);
  }
  const int steps = static_cast<int>(quintics.size());
  const double wanted = allowed * GramGrowth(quintics, {}, 0);
  std::vector<int> chosen;
  for (int restarts = 0; restarts < steps; ++restarts) {
    // All placements of `restarts` among iterations 1 .. steps - 1 where that
    // is few; else evenly spread.
    double least = std::numeric_limits<double>::infinity();
    std::vector<int> places(static_cast<size_t>(restarts));
    for (int i = 0; i < restarts; ++i) places[static_cast<size_t>(i)] = i + 1;
    const auto consider = [&] {
      const double growth = GramGrowth(quintics, places, noise);
      if (!(growth < least)) return;
      least = growth;
      chosen = places;
    };
    if (steps <= 10) {
      for (bool more = true; more;) {
        consider();
        more = false;
        for (int i = restarts - 1; i >= 0 && !more; --i) {
          if (places[static_cast<size_t>(i)] >= steps - restarts + i) continue;
          int next = ++places[static_cast<size_t>(i)];
          for (int j = i + 1; j < restarts; ++j)
            places[static_cast<size_t>(j)] = ++next;
          more = true;
        }
      }
    } else {
      for (int i = 0; i < restarts; ++i)
        places[static_cast<size_t>(i)] = (i + 1) * steps / (restarts + 1);
      consider();
    }
    if (least <= wanted) return chosen;
  }
  chosen.clear();
  for (int i = 1; i < steps; ++i) chosen.push_back(i);
  return chosen;
}

NewtonSchulzProgram BuildNewtonSchulzProgram(const NewtonSchulzOptions& options,
                                             int64_t n, int64_t m) {
  const int steps = static_cast<int>(options.quintics.size());
  const bool gram = options.gram && n != m;
  Builder builder(gram || options.dtype != Element::kBF16);
  if (!gram) {
    for (const Quintic& q : options.quintics) builder.Standard(q);
    return builder.Finish();
  }
  std::vector<int> ends = ChooseRestarts(options.quintics, options.dtype);
  ends.push_back(steps);
  int i = 0;
  for (int end : ends) {
    builder.FormGram();
    for (; i < end; ++i)
      builder.Gram(options.quintics[static_cast<size_t>(i)], i + 1 == end);
    builder.EndSegment();
  }
  return builder.Finish();
}

double NewtonSchulzFlops(const NewtonSchulzProgram& program, int64_t n,
                         int64_t m) {
  const double rows = static_cast<double>(n), columns = static_cast<double>(m);
  double flops = 0;
  for (const NewtonSchulzOp& op : program.ops) {
    const double inner =
        program.square[static_cast<size_t>(op.a)] ? rows : columns;
    flops += op.symmetric ? rows * rows * inner : 2 * rows * columns * inner;
  }
  return flops;
}

absl::StatusOr<MatrixList> ReadMatrices(const Call& call) {
  const auto x = call.tensors.find("x");
  if (x == call.tensors.end() || x->second.empty()) return Wrong("needs x");
  if (x->second.size() != call.results.size())
    return Wrong(absl::StrCat("has ", x->second.size(), " tensors x and ",
                              call.results.size(), " results"));
  MatrixList list;
  for (size_t i = 0; i < x->second.size(); ++i) {
    for (const Operand* operand : {&x->second[i], &call.results[i]}) {
      const std::vector<int64_t>& sizes = operand->sizes;
      if (sizes.size() < 2)
        return Wrong("needs tensors of two or more dimensions");
      if (operand->element == Element::kBool ||
          operand->element == Element::kI64)
        return Wrong("needs floating tensors");
      int64_t count = 1;
      for (size_t d = 0; d + 2 < sizes.size(); ++d) count *= sizes[d];
      const int64_t rows = sizes[sizes.size() - 2], columns = sizes.back();
      if (count * rows * columns != operand->count)
        return Wrong("has sizes that do not make its element count");
      if (i == 0 && operand == &x->second[0]) {
        list.rows = rows;
        list.columns = columns;
      }
      if (rows != list.rows || columns != list.columns)
        return Wrong(absl::StrCat("has matrices of ", list.rows, "x",
                                  list.columns, " and of ", rows, "x", columns,
                                  " in one call"));
      if (operand == &x->second[i]) {
        list.count.push_back(count);
        list.total += count;
      } else if (count != list.count.back()) {
        return Wrong("has a result of another size than its x");
      }
    }
  }
  return list;
}

}  // namespace heddle::kernels
