// Newton-Schulz on a GPU: lays out the workspace, describes buffers and results
// to the copy engine, and enqueues. No host synchronisation, nothing allocated;
// the same call can be captured into a CUDA graph. fp16 and bf16 iterates run
// on tensor cores in one kernel, fp32 and fp64 product by product.
//
// A call is cut into parts of at most kMaxTensors tensors and about
// kPartBytes of input copies; workspace is one part's.

#ifdef HEDDLE_HAVE_CUDA

#include "kernels/newton_schulz_cuda.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "kernels/newton_schulz.h"

namespace heddle::kernels {
namespace {

constexpr int64_t kPartBytes = int64_t{1} << 30;
constexpr int64_t kMaxMatrices = 32768;

absl::Status Failed(const char* error) {
  return absl::InternalError(absl::StrCat("kernel newton_schulz: ", error));
}

ns::DeviceType TypeOf(Element element) {
  switch (element) {
    case Element::kF16:
      return ns::kHalf;
    case Element::kBF16:
      return ns::kBFloat16;
    case Element::kF64:
      return ns::kDouble;
    default:
      return ns::kFloat;
  }
}

int64_t SizeOf(ns::DeviceType type) {
  return type == ns::kDouble ? 8 : type == ns::kFloat ? 4 : 2;
}

// Where everything of one part lies in the workspace.
struct Layout {
  int64_t n = 0, m = 0;
  ns::DeviceType type = ns::kHalf;
  bool tensor_cores = true;
  bool direct_results = false;
  // Of square and of wide buffers: elements between rows.
  int64_t square_pitch = 0, wide_pitch = 0;
  int64_t part = 0, slots = 0;  // matrices
  int64_t counters = 0, partials = 0;
  std::vector<int64_t> buffers;
  int64_t bytes = 0;

  int64_t Pitch(const NewtonSchulzProgram& program, int buffer) const {
    return program.square[static_cast<size_t>(buffer)] ? square_pitch
                                                       : wide_pitch;
  }
  // Matrices that a buffer holds. The result's is the caller's memory where
  // that can be.
  int64_t Copies(int buffer, int output) const {
    if (buffer == output) return direct_results ? 0 : part;
    return buffer == 0 ? part : slots;
  }
};

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Whether the kernel stores results where the caller wants them, which takes
// 16-bit rows of a multiple of 16 bytes.
bool DirectResults(const Call& call, const MatrixList& list) {
  const Element element = call.results[0].element;
  return (element == Element::kBF16 || element == Element::kF16) &&
         list.columns % 8 == 0;
}

Layout LayOut(const NewtonSchulzOptions& options,
              const NewtonSchulzProgram& program, const MatrixList& list,
              bool direct_results) {
  Layout layout;
  layout.n = std::min(list.rows, list.columns);
  layout.m = std::max(list.rows, list.columns);
  layout.type = TypeOf(options.dtype);
  layout.tensor_cores =
      layout.type == ns::kHalf || layout.type == ns::kBFloat16;
  layout.direct_results = layout.tensor_cores && direct_results;
  // An odd number of lines of 128 bytes: rows that are a power of two apart
  // would crowd into few banks of the memory.
  const auto pitch = [&](int64_t columns) {
    return layout.tensor_cores ? ((columns + 63) / 64 | 1) * 64 : columns;
  };
  layout.square_pitch = pitch(layout.n);
  layout.wide_pitch = pitch(layout.m);
  const int64_t one = layout.n * layout.wide_pitch * SizeOf(layout.type);
  layout.part = std::min(
      {list.total, kMaxMatrices, std::max<int64_t>(1, kPartBytes / one)});
  layout.slots = layout.part;
  if (layout.tensor_cores) {
    // Enough matrices in flight that the op before is done when a matrix's
    // next op is claimed: two rounds of the chip. More would only leave the L2
    // cache. Chunks of equal size, since a small one would wait for itself.
    const int64_t items = ns::SymmetricItems(static_cast<int>(layout.n));
    const int64_t least = std::max<int64_t>(2, (139 + items) / items);
    const int64_t chunks = std::max<int64_t>(1, layout.part / least);
    layout.slots = (layout.part + chunks - 1) / chunks;
  }
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t offset = at;
    at += Aligned(bytes);
    return offset;
  };
  layout.counters = take(4 * (1 + layout.slots));
  layout.partials = take(8 * ns::kPartials * layout.part);
  for (int i = 0; i < static_cast<int>(program.square.size()); ++i)
    layout.buffers.push_back(take(layout.Copies(i, program.output) * layout.n *
                                  layout.Pitch(program, i) *
                                  SizeOf(layout.type)));
  layout.bytes = at;
  return layout;
}

struct Prepared {
  NewtonSchulzOptions options;
  MatrixList list;
  NewtonSchulzProgram program;
  Layout layout;
};

absl::StatusOr<Prepared> Prepare(const Call& call) {
  absl::StatusOr<NewtonSchulzOptions> options = ReadNewtonSchulzOptions(call);
  if (!options.ok()) return options.status();
  absl::StatusOr<MatrixList> list = ReadMatrices(call);
  if (!list.ok()) return list.status();
  Prepared prepared{*std::move(options), *std::move(list), {}, {}};
  const MatrixList& matrices = prepared.list;
  if (matrices.total == 0 || matrices.rows == 0 || matrices.columns == 0)
    return prepared;
  if (std::max(matrices.rows, matrices.columns) > (1 << 20) ||
      std::min(matrices.rows, matrices.columns) > (1 << 16))
    return absl::UnimplementedError(
        absl::StrCat("kernel newton_schulz: a matrix of ", matrices.rows, "x",
                     matrices.columns, "; at most 65536 by 1048576"));
  prepared.program = BuildNewtonSchulzProgram(
      prepared.options, std::min(matrices.rows, matrices.columns),
      std::max(matrices.rows, matrices.columns));
  if (prepared.program.ops.size() > ns::kMaxOps ||
      prepared.program.square.size() > ns::kMaxBuffers)
    return absl::InternalError(
        "kernel newton_schulz: a program larger than its launch");
  prepared.layout = LayOut(prepared.options, prepared.program, matrices,
                           DirectResults(call, matrices));
  return prepared;
}

absl::StatusOr<int64_t> Workspace(const Call& call) {
  absl::StatusOr<Prepared> prepared = Prepare(call);
  if (!prepared.ok()) return prepared.status();
  return prepared->layout.bytes;
}

// One part: some matrices of consecutive tensors.
class Part {
 public:
  Part(const Call& call, const Prepared& prepared)
      : call_(call),
        program_(prepared.program),
        options_(prepared.options),
        list_(prepared.list),
        layout_(prepared.layout) {
    x_.count = results_.count = 0;
    x_.first[0] = results_.first[0] = 0;
    x_.type = TypeOf(call.tensors.at("x")[0].element);
    results_.type = TypeOf(call.results[0].element);
  }

  bool Full() const {
    return x_.count == ns::kMaxTensors || Matrices() == layout_.part;
  }
  // Adds matrices of tensor `t` from `from`; returns how many.
  int64_t Add(size_t t, int64_t from) {
    const Operand& x = call_.tensors.at("x")[t];
    const Operand& result = call_.results[t];
    const int64_t count =
        std::min(list_.count[t] - from, layout_.part - Matrices());
    const int64_t offset = from * list_.rows * list_.columns;
    x_.data[x_.count] =
        static_cast<char*>(x.data) + offset * SizeOf(TypeOf(x.element));
    results_.data[x_.count] = static_cast<char*>(result.data) +
                              offset * SizeOf(TypeOf(result.element));
    ++x_.count;
    ++results_.count;
    x_.first[x_.count] = results_.first[x_.count] =
        static_cast<int>(Matrices(x_.count - 1) + count);
    return count;
  }
  int64_t Matrices() const { return Matrices(x_.count); }

  absl::Status Enqueue() const {
    ns::Normalise normalise{};
    normalise.x = x_;
    normalise.rows = static_cast<int>(list_.rows);
    normalise.columns = static_cast<int>(list_.columns);
    normalise.partials = At(layout_.partials);
    normalise.eps = options_.eps;
    normalise.clamp = options_.clamp;
    normalise.to = Buffer(0);
    normalise.to_type = layout_.type;
    normalise.stride = layout_.n * layout_.wide_pitch;
    normalise.pitch = static_cast<int>(layout_.wide_pitch);
    if (const char* error = ns::LaunchNormalise(normalise, call_.stream))
      return Failed(error);
    const bool direct = layout_.direct_results;
    absl::Status status =
        layout_.tensor_cores ? EnqueueTensorCores(direct) : EnqueueSimple();
    if (!status.ok() || direct) return status;
    if (const char* error = ns::LaunchWriteResults(
            results_, static_cast<int>(list_.rows),
            static_cast<int>(list_.columns), Buffer(program_.output),
            layout_.type, layout_.n * layout_.wide_pitch,
            static_cast<int>(layout_.wide_pitch), call_.stream))
      return Failed(error);
    return absl::OkStatus();
  }

 private:
  int64_t Matrices(int tensors) const { return x_.first[tensors]; }
  void* At(int64_t offset) const {
    return static_cast<char*>(call_.workspace) + offset;
  }
  void* Buffer(int buffer) const {
    return At(layout_.buffers[static_cast<size_t>(buffer)]);
  }

  absl::Status EnqueueTensorCores(bool direct) const {
    const auto p = std::make_unique<ns::Program>();
    const bool bfloat16 = layout_.type == ns::kBFloat16;
    for (int i = 0; i < static_cast<int>(program_.square.size()); ++i) {
      if (layout_.Copies(i, program_.output) == 0) continue;
      ns::Buffer& buffer = p->buffers[i];
      const int64_t pitch = layout_.Pitch(program_, i);
      buffer.data = Buffer(i);
      buffer.pitch = static_cast<int>(pitch);
      buffer.stride = layout_.n * pitch;
      if (const char* error = ns::EncodeMap(
              &buffer.map, bfloat16, Buffer(i),
              program_.square[static_cast<size_t>(i)] ? layout_.n : layout_.m,
              layout_.n, layout_.Copies(i, program_.output), pitch,
              buffer.stride))
        return Failed(error);
    }
    if (direct) {
      p->results_bfloat16 = results_.type == ns::kBFloat16;
      for (int t = 0; t < results_.count; ++t) {
        p->first[t + 1] = results_.first[t + 1];
        if (const char* error =
                ns::EncodeMap(&p->results[t], p->results_bfloat16,
                              results_.data[t], list_.columns, list_.rows,
                              results_.first[t + 1] - results_.first[t],
                              list_.columns, list_.rows * list_.columns))
          return Failed(error);
      }
    } else {
      // The result's buffer, as if it were the caller's.
      p->results[0] = p->buffers[program_.output].map;
      p->results_bfloat16 = bfloat16;
      p->first[1] = static_cast<int>(Matrices());
    }
    p->n = static_cast<int>(layout_.n);
    p->m = static_cast<int>(layout_.m);
    p->matrices = static_cast<int>(Matrices());
    p->slots = static_cast<int>(layout_.slots);
    p->counters = static_cast<unsigned*>(At(layout_.counters));
    p->op_count = static_cast<int>(program_.ops.size());
    for (int i = 0; i < p->op_count; ++i) {
      const NewtonSchulzOp& from = program_.ops[static_cast<size_t>(i)];
      ns::Op& op = p->ops[i];
      const bool last = from.out == program_.output;
      const int64_t inner =
          program_.square[static_cast<size_t>(from.a)] ? layout_.n : layout_.m;
      op.a = from.a;
      op.b = from.b;
      op.c = from.c;
      op.out = last ? -1 : from.out;
      op.symmetric = from.symmetric;
      op.transpose_b = from.transpose_b;
      op.a_square = program_.square[static_cast<size_t>(from.a)];
      op.b_square = program_.square[static_cast<size_t>(from.b)];
      op.store_transposed = last && direct && list_.rows > list_.columns;
      op.items = from.symmetric ? ns::SymmetricItems(p->n)
                                : ns::PlainItems(p->n, p->m);
      op.k_blocks = static_cast<int>((inner + 63) / 64);
      op.alpha = static_cast<float>(from.alpha);
      op.beta = static_cast<float>(from.beta);
      op.diagonal = static_cast<float>(from.diagonal);
      p->items_per_matrix += op.items;
    }
    if (const char* error =
            ns::LaunchTensorCores(*p, layout_.type, call_.stream))
      return Failed(error);
    return absl::OkStatus();
  }

  absl::Status EnqueueSimple() const {
    for (const NewtonSchulzOp& op : program_.ops) {
      const auto columns = [&](int buffer) {
        return program_.square[static_cast<size_t>(buffer)] ? layout_.n
                                                            : layout_.m;
      };
      ns::Simple simple{};
      simple.a = Buffer(op.a);
      simple.b = Buffer(op.b);
      simple.c = op.c < 0 ? nullptr : Buffer(op.c);
      simple.out = Buffer(op.out);
      simple.a_stride = layout_.n * columns(op.a);
      simple.b_stride = layout_.n * columns(op.b);
      simple.rows = static_cast<int>(layout_.n);
      simple.columns =
          static_cast<int>(op.transpose_b ? layout_.n : columns(op.b));
      simple.out_stride = layout_.n * simple.columns;
      simple.inner = static_cast<int>(columns(op.a));
      simple.matrices = static_cast<int>(Matrices());
      simple.transpose_b = op.transpose_b;
      simple.symmetric = op.symmetric;
      simple.alpha = op.alpha;
      simple.beta = op.beta;
      simple.diagonal = op.diagonal;
      if (const char* error = ns::LaunchSimple(
              simple, layout_.type == ns::kDouble, call_.stream))
        return Failed(error);
    }
    return absl::OkStatus();
  }

  const Call& call_;
  const NewtonSchulzProgram& program_;
  const NewtonSchulzOptions& options_;
  const MatrixList& list_;
  const Layout& layout_;
  ns::Tensors x_, results_;
};

absl::Status NewtonSchulz(const Call& call) {
  absl::StatusOr<Prepared> prepared = Prepare(call);
  if (!prepared.ok()) return prepared.status();
  if (prepared->layout.bytes == 0) return absl::OkStatus();
  if (call.workspace_bytes < prepared->layout.bytes)
    return absl::InvalidArgumentError(absl::StrCat(
        "kernel newton_schulz: a workspace of ", call.workspace_bytes,
        " bytes where ", prepared->layout.bytes, " are needed"));
  for (const std::vector<Operand>* operands :
       {&call.tensors.at("x"), &call.results})
    for (const Operand& operand : *operands)
      if (operand.element != (*operands)[0].element)
        return absl::UnimplementedError(
            "kernel newton_schulz: tensors of several types in one call; call "
            "it once a type");
  for (const Operand& result : call.results)
    if (prepared->layout.direct_results &&
        reinterpret_cast<uintptr_t>(result.data) % 16 != 0)
      return absl::UnimplementedError(
          "kernel newton_schulz: a result that does not start at a multiple "
          "of 16 bytes");
  auto part = std::make_unique<Part>(call, *prepared);
  for (size_t t = 0; t < prepared->list.count.size(); ++t) {
    for (int64_t done = 0; done < prepared->list.count[t];) {
      if (part->Full()) {
        if (absl::Status status = part->Enqueue(); !status.ok()) return status;
        part = std::make_unique<Part>(call, *prepared);
      }
      done += part->Add(t, done);
    }
  }
  return part->Matrices() == 0 ? absl::OkStatus() : part->Enqueue();
}

const DeviceRegistration kNewtonSchulz("newton_schulz", &NewtonSchulz,
                                       &Workspace);

}  // namespace
}  // namespace heddle::kernels

#endif
