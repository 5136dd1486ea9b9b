// The Hopper instructions that newton_schulz.cu uses, one function each.

#ifndef HEDDLE_KERNELS_NEWTON_SCHULZ_PTX_CUH_
#define HEDDLE_KERNELS_NEWTON_SCHULZ_PTX_CUH_

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace heddle::kernels::ns {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ uint32_t ClusterRank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ void ClusterSync() {
  asm volatile("barrier.cluster.arrive.aligned;\n");
  asm volatile("barrier.cluster.wait.aligned;\n" ::: "memory");
}

// The same shared address in block `rank` of the cluster.
__device__ __forceinline__ uint32_t InBlock(uint32_t address, uint32_t rank) {
  uint32_t mapped;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(mapped)
      : "r"(address), "r"(rank));
  return mapped;
}

__device__ __forceinline__ void BarrierInit(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier),
               "r"(count));
}

__device__ __forceinline__ void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier)
               : "memory");
}

// What the barriers order across blocks is tile memory that only the tensor
// cores have read and that only the copy engine writes: an arrival with cluster
// scope would cost a fence of all memory for every tile.
__device__ __forceinline__ void BarrierArriveAt(uint32_t barrier_in_block) {
  asm volatile(
      "mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_in_block)
      : "memory");
}

__device__ __forceinline__ void BarrierExpect(uint32_t barrier,
                                              uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
      "r"(bytes)
      : "memory");
}

__device__ __forceinline__ void BarrierWait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni DONE;\n"
      "bra.uni WAIT;\n"
      "DONE:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// 16 bytes into shared memory of any block of the cluster, completing on a
// barrier of that block.
__device__ __forceinline__ void StoreAsync(uint32_t address, uint4 value,
                                           uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], "
      "{%1, %2, %3, %4}, [%5];" ::"r"(address),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void Load(uint32_t to, const CUtensorMap* map,
                                     uint32_t barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::"
      "bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Into both blocks of the cluster, at the same address, each block's barrier.
__device__ __forceinline__ void LoadBoth(uint32_t to, const CUtensorMap* map,
                                         uint32_t barrier, int x, int y,
                                         int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::"
      "bytes.multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(barrier), "h"(static_cast<uint16_t>(3)), "r"(x), "r"(y),
      "r"(z)
      : "memory");
}

__device__ __forceinline__ void StoreBox(const CUtensorMap* map, uint32_t from,
                                         int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, "
      "%4}], [%1];" ::"l"(map),
      "r"(from), "r"(x), "r"(y), "r"(z)
      : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// All but the newest `kPending` stores have read their shared memory.
template <int kPending>
__device__ __forceinline__ void WaitStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void WaitStoresDone() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

__device__ __forceinline__ void FenceAsyncShared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ __forceinline__ unsigned LoadAcquire(const unsigned* pointer) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(value)
               : "l"(pointer)
               : "memory");
  return value;
}

__device__ __forceinline__ void AddRelease(unsigned* pointer, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(pointer),
               "r"(value)
               : "memory");
}

// Past the L1 cache, which other blocks' stores do not reach.
__device__ __forceinline__ uint4 LoadGlobal(const void* pointer) {
  uint4 value;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(pointer)
               : "memory");
  return value;
}

__device__ __forceinline__ void StoreShared(uint32_t address, uint4 value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t& a,
                                             uint32_t& b, uint32_t& c,
                                             uint32_t& d) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
      : "r"(address)
      : "memory");
}

// Four 8x8 matrices of 16-bit numbers; kTranspose stores each transposed.
template <bool kTranspose>
__device__ __forceinline__ void StoreMatrices(uint32_t address, uint32_t a,
                                              uint32_t b, uint32_t c,
                                              uint32_t d) {
  if constexpr (kTranspose) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, "
        "%4};" ::"r"(address),
        "r"(a), "r"(b), "r"(c), "r"(d)
        : "memory");
  } else {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::
            "r"(address),
        "r"(a), "r"(b), "r"(c), "r"(d)
        : "memory");
  }
}

// Describes an operand in 128-byte swizzled shared memory: the lower word of
// the description, of which 1 is 16 bytes; the upper one is kDescriptor. Lines
// along K: `leading` unused. Lines across it: bytes between groups of 64.
constexpr uint32_t kDescriptor = 1u << 30 | 1024 >> 4;
__device__ __forceinline__ uint32_t Descriptor(uint32_t address,
                                               uint32_t leading) {
  // An address also names the block in the cluster, above these bits.
  return (address & 0x3ffff) >> 4 | leading >> 4 << 16;
}

// Waits for the 128 threads of one of the multiplying groups.
__device__ __forceinline__ void GroupBarrier(int group) {
  asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

__device__ __forceinline__ void MmaFence() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void MmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void MmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending)
               : "memory");
}

#define HEDDLE_R8(i)                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
      "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define HEDDLE_R32(i) \
  HEDDLE_R8(i), HEDDLE_R8(i + 8), HEDDLE_R8(i + 16), HEDDLE_R8(i + 24)
#define HEDDLE_P64                                                         \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19," \
  "%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,"   \
  "%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,"   \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define HEDDLE_P128                                                        \
  HEDDLE_P64                                                               \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,"  \
  "%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,"   \
  "%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"   \
  "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125," \
  "%126,%127"

#define HEDDLE_MMA256(type, turned)                                   \
  asm volatile(                                                       \
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %130, 0;\n"  \
      "mov.b64 a, {%128, %131};\nmov.b64 b, {%129, %131};\n"          \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type    \
      " {" HEDDLE_P128 "}, a, b, p, 1, 1, " turned ";\n}\n"           \
      : HEDDLE_R32(0), HEDDLE_R32(32), HEDDLE_R32(64), HEDDLE_R32(96) \
      : "r"(a), "r"(b), "r"(keep), "n"(kDescriptor))
#define HEDDLE_MMA128(type, turned)                                 \
  asm volatile(                                                     \
      "{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %66, 0;\n" \
      "mov.b64 a, {%64, %67};\nmov.b64 b, {%65, %67};\n"            \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type  \
      " {" HEDDLE_P64 "}, a, b, p, 1, 1, " turned ";\n}\n"          \
      : HEDDLE_R32(0), HEDDLE_R32(32)                               \
      : "r"(a), "r"(b), "r"(keep), "n"(kDescriptor))

#define HEDDLE_MMA(type, turned) \
  if constexpr (kN == 256) {     \
    HEDDLE_MMA256(type, turned); \
  } else {                       \
    HEDDLE_MMA128(type, turned); \
  }
#define HEDDLE_MMA_OF(turned)                  \
  if constexpr (__is_same(T, __nv_bfloat16)) { \
    HEDDLE_MMA("bf16", turned)                 \
  } else {                                     \
    HEDDLE_MMA("f16", turned)                  \
  }

// d = A B (+ d where `keep`): 64 x kN x 16, of d the first kN / 2. Turned:
// lines run across K.
template <typename T, int kN, bool kATurned, bool kBTurned>
__device__ __forceinline__ void Mma(float (&d)[128], uint32_t a, uint32_t b,
                                    int keep) {
  if constexpr (!kATurned && !kBTurned) {
    HEDDLE_MMA_OF("0, 0")
  } else if constexpr (!kATurned) {
    HEDDLE_MMA_OF("0, 1")
  } else if constexpr (!kBTurned) {
    HEDDLE_MMA_OF("1, 0")
  } else {
    HEDDLE_MMA_OF("1, 1")
  }
}

template <int kCount>
__device__ __forceinline__ void Keep(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

}  // namespace heddle::kernels::ns

#endif  // HEDDLE_KERNELS_NEWTON_SCHULZ_PTX_CUH_
