// cuBLASLt through dlopen: a process that trains on a GPU has it (libtorch does
// its own products with it), one that does not must start without it. The
// library multiplies column-major matrices; a row-major result is the
// column-major result of the transposed product.

#include "runtime/exec/gemm_cuda.h"

#include "absl/strings/str_cat.h"

#ifdef HEDDLE_HAVE_CUDA

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <utility>

namespace heddle::exec {
namespace {

// What cuBLAS recommends for sm_90 and torch gives its own handles.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

// The entry points that are used, under their names.
struct Library {
#define HEDDLE_CUBLASLT(name) decltype(&::name) name = nullptr;
#define HEDDLE_CUBLASLT_ALL(F)            \
  F(cublasLtCreate)                       \
  F(cublasLtDestroy)                      \
  F(cublasLtMatmul)                       \
  F(cublasLtMatmulAlgoGetHeuristic)       \
  F(cublasLtMatmulDescCreate)             \
  F(cublasLtMatmulDescDestroy)            \
  F(cublasLtMatmulDescSetAttribute)       \
  F(cublasLtMatmulPreferenceCreate)       \
  F(cublasLtMatmulPreferenceDestroy)      \
  F(cublasLtMatmulPreferenceSetAttribute) \
  F(cublasLtMatrixLayoutCreate)           \
  F(cublasLtMatrixLayoutDestroy)
  HEDDLE_CUBLASLT_ALL(HEDDLE_CUBLASLT)
#undef HEDDLE_CUBLASLT
};

absl::StatusOr<Library> LoadLibrary() {
  const std::string name =
      absl::StrCat("libcublasLt.so.", CUBLAS_VERSION / 10000);
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    return absl::FailedPreconditionError(
        absl::StrCat("cannot load ", name, ": ", dlerror(),
                     "; install the CUDA version that this torch is for"));
  Library library;
#define HEDDLE_CUBLASLT(name)                                         \
  library.name =                                                      \
      reinterpret_cast<decltype(library.name)>(dlsym(handle, #name)); \
  if (library.name == nullptr)                                        \
    return absl::FailedPreconditionError(                             \
        absl::StrCat("libcublasLt has no ", #name));
  HEDDLE_CUBLASLT_ALL(HEDDLE_CUBLASLT)
#undef HEDDLE_CUBLASLT
  return library;
}

absl::Status FromCublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "cuBLASLt: ", what, " failed with status ", static_cast<int>(status)));
}

// The handle and the descriptors of one library, destroyed by it.
template <typename T>
using Owned = std::shared_ptr<std::remove_pointer_t<T>>;

cudaDataType TypeOf(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kBF16:
      return CUDA_R_16BF;
    case plan::DType::kF16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// The largest power of two, up to 256, that divides an address.
uint32_t AlignmentOf(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

class CudaGemm final : public PreparedGemm {
 public:
  absl::Status Run(device::Stream* stream) override {
    const float one = 1;
    const float beta = accumulate ? 1 : 0;
    return FromCublas(
        library->cublasLtMatmul(handle.get(), operation.get(), &one, x,
                                x_layout.get(), y, y_layout.get(), &beta, out,
                                out_layout.get(), out, out_layout.get(), &algo,
                                workspace, kWorkspaceBytes,
                                static_cast<cudaStream_t>(stream->native())),
        "a multiplication");
  }

  std::shared_ptr<const Library> library;
  Owned<cublasLtHandle_t> handle;
  Owned<cublasLtMatmulDesc_t> operation;
  Owned<cublasLtMatrixLayout_t> x_layout, y_layout, out_layout;
  cublasLtMatmulAlgo_t algo;
  const void* x = nullptr;
  const void* y = nullptr;
  void* out = nullptr;
  void* workspace = nullptr;
  bool accumulate = false;
};

class CudaGemmEngine final : public GemmEngine {
 public:
  CudaGemmEngine(device::Device& device, Library library,
                 cublasLtHandle_t handle)
      : device_(device),
        library_(std::make_shared<const Library>(library)),
        handle_(handle, library.cublasLtDestroy) {}

  absl::StatusOr<std::unique_ptr<PreparedGemm>> Prepare(
      const GemmProblem& problem, uint16_t stream) override {
    plan::Matrix x = problem.shape.a, y = problem.shape.b,
                 out = problem.shape.out;
    const char *x_data = problem.a, *y_data = problem.b;
    if (out.row_major) {
      std::swap(x, y);
      std::swap(x_data, y_data);
      for (plan::Matrix* matrix : {&x, &y, &out}) {
        std::swap(matrix->rows, matrix->columns);
        matrix->row_major = !matrix->row_major;
      }
    }
    auto gemm = std::make_unique<CudaGemm>();
    gemm->library = library_;
    gemm->handle = handle_;
    gemm->x = x_data;
    gemm->y = y_data;
    gemm->out = problem.out;
    gemm->accumulate = problem.shape.accumulate;
    absl::StatusOr<void*> workspace = Workspace(stream);
    if (!workspace.ok()) return workspace.status();
    gemm->workspace = *workspace;

    cublasLtMatmulDesc_t operation = nullptr;
    if (absl::Status status =
            FromCublas(library_->cublasLtMatmulDescCreate(
                           &operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                       "a descriptor");
        !status.ok())
      return status;
    gemm->operation = {operation, library_->cublasLtMatmulDescDestroy};
    for (const auto& [attribute, matrix] :
         {std::pair{CUBLASLT_MATMUL_DESC_TRANSA, &x},
          std::pair{CUBLASLT_MATMUL_DESC_TRANSB, &y}}) {
      const cublasOperation_t turned =
          matrix->row_major ? CUBLAS_OP_T : CUBLAS_OP_N;
      if (absl::Status status =
              FromCublas(library_->cublasLtMatmulDescSetAttribute(
                             operation, attribute, &turned, sizeof(turned)),
                         "a transposition");
          !status.ok())
        return status;
    }
    for (const auto& [layout, matrix, dtype] :
         {std::tuple{&gemm->x_layout, &x, problem.shape.input},
          std::tuple{&gemm->y_layout, &y, problem.shape.input},
          std::tuple{&gemm->out_layout, &out, problem.shape.output}}) {
      cublasLtMatrixLayout_t made = nullptr;
      const int64_t inner = matrix->row_major ? matrix->columns : matrix->rows;
      const int64_t outer = matrix->row_major ? matrix->rows : matrix->columns;
      if (absl::Status status =
              FromCublas(library_->cublasLtMatrixLayoutCreate(
                             &made, TypeOf(dtype), static_cast<uint64_t>(inner),
                             static_cast<uint64_t>(outer), matrix->leading),
                         "a layout");
          !status.ok())
        return status;
      *layout = {made, library_->cublasLtMatrixLayoutDestroy};
    }
    if (absl::Status status = Choose(*gemm); !status.ok()) return status;
    return std::unique_ptr<PreparedGemm>(std::move(gemm));
  }
  uint64_t reserved_bytes() const override {
    return workspaces_.size() * kWorkspaceBytes;
  }

 private:
  absl::StatusOr<void*> Workspace(uint16_t stream) {
    device::Allocation& workspace = workspaces_[stream];
    if (workspace.address() == nullptr) {
      absl::StatusOr<void*> address = device_.allocator().Allocate(
          kWorkspaceBytes, "workspace of matrix products");
      if (!address.ok()) return address.status();
      workspace = device::Allocation(&device_.allocator(), *address);
    }
    return workspace.address();
  }

  absl::Status Choose(CudaGemm& gemm) {
    cublasLtMatmulPreference_t made = nullptr;
    if (absl::Status status = FromCublas(
            library_->cublasLtMatmulPreferenceCreate(&made), "a preference");
        !status.ok())
      return status;
    const Owned<cublasLtMatmulPreference_t> preference{
        made, library_->cublasLtMatmulPreferenceDestroy};
    const size_t workspace = kWorkspaceBytes;
    absl::Status status =
        FromCublas(library_->cublasLtMatmulPreferenceSetAttribute(
                       made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                       &workspace, sizeof(workspace)),
                   "a preference");
    for (const auto& [attribute, address] :
         {std::pair{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, gemm.x},
          std::pair{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, gemm.y},
          std::pair{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                    static_cast<const void*>(gemm.out)},
          std::pair{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                    static_cast<const void*>(gemm.out)}}) {
      const uint32_t alignment = AlignmentOf(address);
      if (status.ok())
        status = FromCublas(library_->cublasLtMatmulPreferenceSetAttribute(
                                made, attribute, &alignment, sizeof(alignment)),
                            "a preference");
    }
    if (!status.ok()) return status;
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    status =
        FromCublas(library_->cublasLtMatmulAlgoGetHeuristic(
                       handle_.get(), gemm.operation.get(), gemm.x_layout.get(),
                       gemm.y_layout.get(), gemm.out_layout.get(),
                       gemm.out_layout.get(), made, 1, &result, &found),
                   "the choice of an algorithm");
    if (!status.ok()) return status;
    if (found == 0)
      return absl::UnimplementedError(
          "cuBLASLt has no algorithm for this multiplication");
    gemm.algo = result.algo;
    return absl::OkStatus();
  }

  device::Device& device_;
  std::shared_ptr<const Library> library_;
  Owned<cublasLtHandle_t> handle_;
  std::map<uint16_t, device::Allocation> workspaces_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GemmEngine>> CreateCudaGemmEngine(
    device::Device& device) {
  absl::StatusOr<Library> library = LoadLibrary();
  if (!library.ok()) return library.status();
  cublasLtHandle_t handle = nullptr;
  if (absl::Status status =
          FromCublas(library->cublasLtCreate(&handle), "a handle");
      !status.ok())
    return status;
  return std::unique_ptr<GemmEngine>(
      new CudaGemmEngine(device, *library, handle));
}

}  // namespace heddle::exec

#else

namespace heddle::exec {

absl::StatusOr<std::unique_ptr<GemmEngine>> CreateCudaGemmEngine(
    device::Device&) {
  return absl::FailedPreconditionError(
      "the plan multiplies by cuBLASLt and this Heddle was built without the "
      "CUDA toolkit; build it where there is one");
}

}  // namespace heddle::exec

#endif
