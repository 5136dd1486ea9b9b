// The plain-data border between Newton-Schulz's launches and its CUDA code.
//
// Tensor cores (newton_schulz.cu): one persistent kernel runs the whole list of
// products for a batch of matrices. Work items are claimed in one global order
// (chunk of `slots` matrices, op, matrix, tile), and an item waits until its
// matrix has finished the op before: an item depends only on items claimed
// before it, so the kernel makes progress however few of its blocks are
// resident. Buffers but the input and the results are reused by the matrices of
// one slot.

#ifndef HEDDLE_KERNELS_NEWTON_SCHULZ_CUDA_H_
#define HEDDLE_KERNELS_NEWTON_SCHULZ_CUDA_H_

#include <cuda.h>

#include <cstdint>

namespace heddle::kernels::ns {

// Tensors of one launch, and ops of a program (32 steps at most).
constexpr int kMaxTensors = 64;
constexpr int kMaxOps = 200;
constexpr int kMaxBuffers = 12;
// Partial sums of one matrix's squares.
constexpr int kPartials = 32;
// Rows and columns of a loaded box, and of the blocks that results come in.
constexpr int kBox = 64;

enum DeviceType { kHalf, kBFloat16, kFloat, kDouble };

// Matrices of a call: those of tensor t are [first[t], first[t + 1]), dense.
struct Tensors {
  int count;
  DeviceType type;
  void* data[kMaxTensors];
  int first[kMaxTensors + 1];
};

struct Op {
  int a, b, c, out;  // buffers; c -1: none; out -1: the results
  int items;         // work items of one matrix
  int k_blocks;      // of 64
  bool symmetric, transpose_b;
  bool a_square, b_square;  // symmetric: the upper blocks are not there
  bool store_transposed;    // of the last op: results are tall
  float alpha, beta, diagonal;
};

struct Buffer {
  CUtensorMap map;
  const void* data;  // for C
  int64_t stride;    // elements between matrices
  int pitch;         // elements between rows
};

struct Program {
  Buffer buffers[kMaxBuffers];
  CUtensorMap results[kMaxTensors];
  int first[kMaxTensors + 1];
  bool results_bfloat16;
  Op ops[kMaxOps];
  int op_count;
  int n, m;
  int matrices, slots;
  int items_per_matrix;  // of all ops
  // [0]: the next item; [1 + s]: stored quarters of items of slot s. Zeroed
  // before a launch.
  unsigned* counters;
};

// Items of one matrix: a symmetric product [n, n], or [n, m]; what they are
// says newton_schulz_items.cuh.
inline int SymmetricItems(int n) {
  const int blocks = (n + 127) / 128, half = blocks / 2;
  if (blocks % 2 != 0) return half * (half + 1) / 2 + (half + 2) / 2;
  return half * (half - 1) / 2 + half + (half + 1) / 2;
}

inline int PlainItems(int n, int m) {
  const int blocks = (n + 127) / 128, wide = (m + 255) / 256;
  return blocks / 2 * wide + (blocks % 2 != 0 ? (wide + 1) / 2 : 0);
}

// Squares of every matrix, kPartials sums each, in float (double for kDouble).
struct Normalise {
  Tensors x;
  int rows, columns;
  void* partials;
  double eps;
  bool clamp;
  // Where the short-and-wide matrices go.
  void* to;
  DeviceType to_type;
  int64_t stride;
  int pitch;
};

// Every function returns nullptr, or why it failed.
const char* LaunchNormalise(const Normalise& arguments, void* stream);
// Short-and-wide [n, m] matrices to results of any type and orientation.
const char* LaunchWriteResults(const Tensors& results, int rows, int columns,
                               const void* from, DeviceType from_type,
                               int64_t stride, int pitch, void* stream);
const char* LaunchTensorCores(const Program& program, DeviceType iterates,
                              void* stream);
// One product for all matrices in fp32 or fp64, buffers dense; sizes are of the
// result [rows, columns] and the inner dimension.
struct Simple {
  const void *a, *b, *c;
  void* out;
  int64_t a_stride, b_stride, out_stride;
  int rows, columns, inner, matrices;
  bool transpose_b, symmetric;
  double alpha, beta, diagonal;
};
const char* LaunchSimple(const Simple& arguments, bool f64, void* stream);

const char* MultiprocessorCount(int* count);
// cuTensorMapEncodeTiled of the driver.
const char* EncodeMap(CUtensorMap* map, bool bfloat16, void* data,
                      int64_t columns, int64_t rows, int64_t matrices,
                      int64_t pitch, int64_t stride);

}  // namespace heddle::kernels::ns

#endif  // HEDDLE_KERNELS_NEWTON_SCHULZ_CUDA_H_
