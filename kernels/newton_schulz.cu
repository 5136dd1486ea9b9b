// Newton-Schulz on Hopper tensor cores: one persistent kernel of clusters of
// two blocks. A work item gives each block of a cluster a tile of 128 x 256 (or
// 128 x 128) of a product; where both tiles lie in the same columns, each block
// loads half of B for both. In a block warp 0 loads, warp 1 (of the first
// block) claims items, two groups of four warps multiply 64 rows each, and
// warps 2 and 3 store what the groups left in shared memory. Bounds are the
// tensor maps': loads outside give 0, stores outside do nothing.
//
// Of a symmetric matrix only the 128 x 128 blocks on and below the diagonal are
// computed, stored and read: a block above is read as the transpose of its
// mirror image, by telling the tensor cores that its lines run the other way.
// Memory traffic limits these products, so not writing the mirror image counts
// as much as not computing it.
//
// Rounding: sums in fp32 in one fixed order, alpha sum + beta C + diagonal in
// fp32, one rounding to 16 bits. The two triangles of a block on the diagonal
// are computed separately and may differ by that rounding.

#include <cuda_runtime.h>

#include <climits>

#include "kernels/launch.cuh"
#include "kernels/newton_schulz_cuda.h"
#include "kernels/newton_schulz_items.cuh"
#include "kernels/newton_schulz_ptx.cuh"

namespace heddle::kernels::ns {
namespace {

constexpr int kStages = 4;
// Blocks of results a group has on their way out.
constexpr int kOut = 2;
constexpr int kTileK = 64;
constexpr int kBoxBytes = kBox * kBox * 2;
constexpr int kABytes = 2 * kBoxBytes;
constexpr int kStageBytes = kABytes + 4 * kBoxBytes;
constexpr int kThreads = 384;
// The first multiplying group runs this many tiles of the inner dimension ahead
// of the second, so that one multiplies while the other has its results to
// convert; in items that are long enough for it.
constexpr int kLead = 1;
constexpr int kLeadFrom = kStages + 1;
// Readers of an item: the loading warp, two storing, eight multiplying; twice.
constexpr int kItemReaders = 22;

struct Shared {
  alignas(1024) unsigned char stage[kStages][kStageBytes];
  // A group's blocks of 64 x 64 on their way out, in the layout of a 128-byte
  // swizzled box.
  unsigned char out[2][kOut][kBoxBytes];
  uint4 item;
  uint64_t item_full, item_empty;
  uint64_t full[kStages], empty[kStages];
  uint64_t out_full[2][kOut], out_empty[2][kOut];
  uint64_t lead;
};

// Reads items in order; every reader has its own. One lane or a whole warp
// reads, `leader` says for the warp that it has; `expect`: this reader
// announces the bytes (one per block does).
class ItemReader {
 public:
  __device__ explicit ItemReader(Shared& shared) : shared_(shared) {}
  __device__ Item Next(bool expect, bool leader) {
    const uint32_t full = SharedAddress(&shared_.item_full);
    if (expect) BarrierExpect(full, 16);
    BarrierWait(full, phase_);
    phase_ ^= 1;
    const volatile uint4& words = shared_.item;
    const Item item = Unpack({words.x, words.y, words.z, words.w});
    if (!expect) __syncwarp(__activemask());
    if (leader) BarrierArriveAt(InBlock(SharedAddress(&shared_.item_empty), 0));
    return item;
  }

 private:
  Shared& shared_;
  uint32_t phase_ = 0;
};

// An item is claimed when all have read the one before: claimed earlier, it
// would wait behind a long one while other clusters are idle.
__device__ void ClaimItems(const Program& p, Shared& shared) {
  const unsigned total = static_cast<unsigned>(p.matrices) *
                         static_cast<unsigned>(p.items_per_matrix);
  for (uint32_t phase = 1;; phase ^= 1) {
    BarrierWait(SharedAddress(&shared.item_empty), phase);
    Item pair[2] = {};
    const unsigned claimed = atomicAdd(p.counters, 1u);
    if (claimed < total) Decode(p, claimed, pair);
    for (uint32_t r = 0; r < 2; ++r)
      StoreAsync(InBlock(SharedAddress(&shared.item), r), Pack(pair[r]),
                 InBlock(SharedAddress(&shared.item_full), r));
    if (claimed >= total) return;
  }
}

// Matrix index in a buffer: the input holds all matrices, others one a slot.
__device__ int IndexIn(const Program& p, int buffer, int matrix) {
  return buffer == 0 ? matrix : matrix % p.slots;
}

// From which tile of the inner dimension the lines of A, of B run across it in
// memory: of a symmetric matrix where the tile lies above the diagonal, of a B
// that is not to be transposed always. B turns before A does, as no item lies
// above the diagonal.
__device__ __forceinline__ int ATurnsAt(const Op& op, const Item& item) {
  return op.a_square ? 2 * item.row + 2 : INT_MAX;
}
__device__ __forceinline__ int BTurnsAt(const Op& op, const Item& item) {
  if (op.b_square) return 2 * item.column + 2;
  return op.transpose_b ? INT_MAX : 0;
}

__device__ void LoadTiles(const Program& p, Shared& shared, uint32_t rank) {
  ItemReader items(shared);
  uint32_t stage = 0, phase = 1;
  for (;;) {
    const Item item = items.Next(true, true);
    if (!item.valid) return;
    const Op& op = p.ops[item.op];
    const unsigned* counter = p.counters + 1 + item.matrix % p.slots;
    while (LoadAcquire(counter) < item.need) {
    }
    FenceAsyncProxy();
    const CUtensorMap* a = &p.buffers[op.a].map;
    const CUtensorMap* b = &p.buffers[op.b].map;
    const int a_index = IndexIn(p, op.a, item.matrix),
              b_index = IndexIn(p, op.b, item.matrix);
    const int boxes = item.columns / kBox;
    const int first_box = item.both ? static_cast<int>(rank) * boxes / 2 : 0;
    const int last_box = item.both ? first_box + boxes / 2 : boxes;
    const int a_turns = ATurnsAt(op, item), b_turns = BTurnsAt(op, item);
    const int a_boxes = item.a_is_b ? 0 : 2;
    const auto bytes = static_cast<uint32_t>((a_boxes + boxes) * kBoxBytes);
    for (int k = 0; k < op.k_blocks; ++k) {
      const uint32_t full = SharedAddress(&shared.full[stage]);
      BarrierWait(SharedAddress(&shared.empty[stage]), phase);
      BarrierExpect(full, bytes);
      const uint32_t base = SharedAddress(shared.stage[stage]);
      const bool a_turned = k >= a_turns, b_turned = k >= b_turns;
      for (int box = 0; box < a_boxes; ++box) {
        const int row = item.row * 128 + box * kBox;
        Load(base + static_cast<uint32_t>(box * kBoxBytes), a, full,
             a_turned ? row : k * kTileK, a_turned ? k * kTileK : row, a_index);
      }
      for (int box = first_box; box < last_box; ++box) {
        const uint32_t to =
            base + static_cast<uint32_t>(kABytes + box * kBoxBytes);
        const int column = item.column * 128 + box * kBox;
        const int x = b_turned ? column : k * kTileK,
                  y = b_turned ? k * kTileK : column;
        if (item.both) {
          LoadBoth(to, b, full, x, y, b_index);
        } else {
          Load(to, b, full, x, y, b_index);
        }
      }
      if (++stage == kStages) {
        stage = 0;
        phase ^= 1;
      }
    }
  }
}

// Whether a 64 x 64 block of an op's result is wanted.
__device__ __forceinline__ bool Wanted(const Op& op, int row_block,
                                       int column_block) {
  return !op.symmetric || column_block / 2 <= row_block / 2;
}

__device__ void StoreTiles(const Program& p, Shared& shared, int group) {
  ItemReader items(shared);
  uint32_t count = 0;  // of blocks
  for (;;) {
    const Item item = items.Next(false, true);
    if (!item.valid) return;
    const Op& op = p.ops[item.op];
    const CUtensorMap* map;
    int index;
    if (op.out >= 0) {
      map = &p.buffers[op.out].map;
      index = IndexIn(p, op.out, item.matrix);
    } else {
      int tensor = 0;
      while (item.matrix >= p.first[tensor + 1]) ++tensor;
      map = &p.results[tensor];
      index = item.matrix - p.first[tensor];
    }
    const int row_block = 2 * item.row + group;
    for (int box = 0; box < item.columns / kBox; ++box) {
      const int column_block = 2 * item.column + box;
      if (!Wanted(op, row_block, column_block)) continue;
      const uint32_t buffer = count % kOut;
      BarrierWait(SharedAddress(&shared.out_full[group][buffer]),
                  count / kOut & 1);
      StoreBox(map, SharedAddress(shared.out[group][buffer]),
               kBox * (op.store_transposed ? row_block : column_block),
               kBox * (op.store_transposed ? column_block : row_block), index);
      WaitStoresRead<0>();
      BarrierArrive(SharedAddress(&shared.out_empty[group][buffer]));
      ++count;
    }
    WaitStoresDone();
    FenceAsyncProxy();
    __threadfence();
    AddRelease(p.counters + 1 + item.matrix % p.slots, 1);
  }
}

// 32 values of a thread as 16 pairs.
template <typename T>
__device__ __forceinline__ void PackPairs(uint32_t (&pairs)[16],
                                          const float (&values)[32]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float low = values[2 * i], high = values[2 * i + 1];
    if constexpr (__is_same(T, __nv_bfloat16)) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      pairs[i] = *reinterpret_cast<const uint32_t*>(&pair);
    } else {
      const __half2 pair = __floats2half2_rn(low, high);
      pairs[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
}

template <typename T>
__device__ __forceinline__ float2 UnpackPair(uint32_t bits) {
  if constexpr (__is_same(T, __nv_bfloat16)) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&bits));
  } else {
    return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  }
}

// State of one multiplying group of four warps.
struct Group {
  int index;       // 0 or 1: rows 64 * index of a tile
  uint32_t tiles;  // of the inner dimension begun
  uint32_t count;  // of blocks stored
  uint32_t lead_phase;
  // Of stage 0, in the block that this thread tells that tiles are free; each
  // group's first two threads do.
  uint32_t empty;
};
__device__ __forceinline__ uint32_t StageOf(uint32_t tile) {
  return tile % kStages;
}
__device__ __forceinline__ uint32_t PhaseOf(uint32_t tile) {
  return tile / kStages % 2;
}
__device__ __forceinline__ void Release(const Group& group, uint32_t tile) {
  if (threadIdx.x % 128 < 2) BarrierArriveAt(group.empty + 8 * StageOf(tile));
}

// 16 bytes of a line of a block in its layout.
__device__ __forceinline__ uint32_t ChunkAt(uint32_t base, uint32_t line,
                                            uint32_t chunk) {
  return base + line * 128 + ((chunk ^ (line & 7)) << 4);
}

// The buffer of the next block, once it is free.
__device__ __forceinline__ uint32_t NextBlock(Shared& shared,
                                              const Group& group) {
  const uint32_t buffer = group.count % kOut;
  BarrierWait(SharedAddress(&shared.out_empty[group.index][buffer]),
              (group.count / kOut & 1) ^ 1);
  return SharedAddress(shared.out[group.index][buffer]);
}

// A group's 64 x 64 results to shared memory, as they are or transposed.
template <bool kTranspose>
__device__ __forceinline__ void Stage(Shared& shared, Group& group,
                                      const uint32_t (&pairs)[16]) {
  const uint32_t base = NextBlock(shared, group);
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const uint32_t matrix = lane / 8, r = lane % 8;
#pragma unroll
  for (uint32_t q = 0; q < 4; ++q)
    // Matrices: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
    StoreMatrices<kTranspose>(
        kTranspose ? ChunkAt(base, q * 16 + (matrix >> 1) * 8 + r,
                             warp * 2 + (matrix & 1))
                   : ChunkAt(base, warp * 16 + (matrix & 1) * 8 + r,
                             q * 2 + (matrix >> 1)),
        pairs[4 * q], pairs[4 * q + 1], pairs[4 * q + 2], pairs[4 * q + 3]);
  FenceAsyncShared();
  __syncwarp();
  if (lane == 0)
    BarrierArrive(
        SharedAddress(&shared.out_full[group.index][group.count % kOut]));
  ++group.count;
}

// A warp's 16 rows of C for a block of 64 columns: 4 rows of 128 bytes a time.
struct Addend {
  const unsigned char* data;
  int pitch, rows, columns;
};
__device__ __forceinline__ void LoadC(uint4 (&words)[4], const Addend& from,
                                      int row, int column) {
  const uint32_t lane = threadIdx.x % 32;
  row += static_cast<int>(lane / 8);
  column += static_cast<int>(lane % 8 * 8);
  const unsigned char* data =
      from.data + 2 * (static_cast<int64_t>(row) * from.pitch + column);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = row + 4 * i < from.rows && column < from.columns
                   ? LoadGlobal(data)
                   : uint4{0, 0, 0, 0};
    data += 8 * static_cast<int64_t>(from.pitch);
  }
}

// From the order of memory to that of a thread's sums, through the warp's lines
// of the buffer that the block will leave in.
__device__ __forceinline__ void Spread(uint32_t base, const uint4 (&words)[4],
                                       uint32_t (&pairs)[16]) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const uint32_t matrix = lane / 8, r = lane % 8;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i)
    StoreShared(ChunkAt(base, warp * 16 + i * 4 + lane / 8, lane % 8),
                words[i]);
  __syncwarp();
#pragma unroll
  for (uint32_t q = 0; q < 4; ++q)
    LoadMatrices(
        ChunkAt(base, warp * 16 + (matrix & 1) * 8 + r, q * 2 + (matrix >> 1)),
        pairs[4 * q], pairs[4 * q + 1], pairs[4 * q + 2], pairs[4 * q + 3]);
  __syncwarp();
}

// Tiles [from, to) of the inner dimension, 64 deep each: 64 rows of A times kN
// columns of B onto `sums`. One tile's instructions stay in flight; the tile
// before it is released. Few instructions, as they cost the power that limits
// the clock: `a` and `b` describe the operands in stage 0. At tile `leads_at`
// the thread lets the other group follow.
template <typename T, int kN, bool kATurned, bool kBTurned>
__device__ __forceinline__ void MultiplyRange(Shared& shared, Group& group,
                                              float (&sums)[128], uint32_t a,
                                              uint32_t b, int leads_at,
                                              int from, int to) {
  constexpr uint32_t kAStep = (kATurned ? 16 * 128 : 32) >> 4,
                     kBStep = (kBTurned ? 16 * 128 : 32) >> 4;
  const uint32_t full = SharedAddress(&shared.full[0]);
#pragma unroll 1
  for (int k = from; k < to; ++k) {
    const uint32_t stage = StageOf(group.tiles);
    BarrierWait(full + 8 * stage, PhaseOf(group.tiles));
    // Broadcast, so that the compiler knows them to be the warp's.
    const uint32_t at_a = __shfl_sync(~0u, a + stage * (kStageBytes >> 4), 0);
    const uint32_t at_b = __shfl_sync(~0u, b + stage * (kStageBytes >> 4), 0);
    Keep(sums);
    MmaFence();
#pragma unroll
    for (uint32_t step = 0; step < kTileK / 16; ++step)
      Mma<T, kN, kATurned, kBTurned>(sums, at_a + step * kAStep,
                                     at_b + step * kBStep, k > 0 || step > 0);
    MmaCommit();
    Keep(sums);
    if (k > 0) {
      MmaWait<1>();
      Release(group, group.tiles - 1);
    }
    if (k == leads_at) BarrierArrive(SharedAddress(&shared.lead));
    ++group.tiles;
  }
}

template <typename T, int kN>
__device__ __forceinline__ void MultiplyTile(const Op& op, const Item& item,
                                             Shared& shared, Group& group,
                                             float (&sums)[128]) {
  // A tile of A that B is too was loaded once, as B.
  const uint32_t base = SharedAddress(shared.stage[0]), to_b = base + kABytes;
  const uint32_t a = Descriptor((item.a_is_b ? to_b : base) +
                                    static_cast<uint32_t>(group.index) *
                                        static_cast<uint32_t>(kBoxBytes),
                                16),
                 b = Descriptor(to_b, 16),
                 b_turned = Descriptor(to_b, kBoxBytes);
  const int b_turns = min(op.k_blocks, BTurnsAt(op, item)),
            a_turns = min(op.k_blocks, ATurnsAt(op, item));
  const int leads_at =
      group.index == 0 && op.k_blocks >= kLeadFrom && threadIdx.x % 128 == 0
          ? kLead - 1
          : -1;
  MultiplyRange<T, kN, false, false>(shared, group, sums, a, b, leads_at, 0,
                                     b_turns);
  MultiplyRange<T, kN, false, true>(shared, group, sums, a, b_turned, leads_at,
                                    b_turns, a_turns);
  MultiplyRange<T, kN, true, true>(shared, group, sums, a, b_turned, leads_at,
                                   a_turns, op.k_blocks);
  MmaWait<0>();
  Keep(sums);
  Release(group, group.tiles - 1);
}

// One item's sums, and what becomes of them. One copy of this code serves all
// widths: sums of their own would take registers from each other.
template <typename T>
__device__ __forceinline__ void Multiply(const Program& p, Shared& shared,
                                         Group& group, const Item& item) {
  const Op& op = p.ops[item.op];
  const uint32_t warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  // The warp's first row and the tile's first column.
  const int row =
      item.row * 128 + group.index * kBox + static_cast<int>(warp * 16);
  const int column = item.column * 128;
  const bool has_c = op.c >= 0;
  float sums[128];
  Addend c{};
  uint4 c_words[4];
  if (has_c) {
    // The first tile's arrival says that the slot's counter was seen; seeing it
    // here orders these loads too.
    BarrierWait(SharedAddress(&shared.full[StageOf(group.tiles)]),
                PhaseOf(group.tiles));
    const unsigned* counter = p.counters + 1 + item.matrix % p.slots;
    while (LoadAcquire(counter) < item.need) {
    }
    const Buffer& buffer = p.buffers[op.c];
    c = {static_cast<const unsigned char*>(buffer.data) +
             2 * IndexIn(p, op.c, item.matrix) * buffer.stride,
         buffer.pitch, p.n, op.symmetric ? p.n : p.m};
    LoadC(c_words, c, row, column);
  }
  if (op.k_blocks >= kLeadFrom && group.index == 1) {
    BarrierWait(SharedAddress(&shared.lead), group.lead_phase);
    group.lead_phase ^= 1;
  }
  if (item.columns == 256) {
    MultiplyTile<T, 256>(op, item, shared, group, sums);
  } else {
    MultiplyTile<T, 128>(op, item, shared, group, sums);
  }

  const bool to_bfloat16 = op.out < 0 && p.results_bfloat16;
  const float alpha = op.alpha, beta = op.beta, diagonal = op.diagonal;
  const int row_block = 2 * item.row + group.index;
#pragma unroll
  for (int box = 0; box < 4; ++box) {
    const int column_block = 2 * item.column + box;
    if (box * kBox >= item.columns || !Wanted(op, row_block, column_block))
      continue;
    float values[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) values[i] = alpha * sums[32 * box + i];
    if (has_c) {
      uint32_t addends[16];
      Spread(NextBlock(shared, group), c_words, addends);
      // Transposed results go to lines that other warps spread C through.
      if (op.store_transposed) GroupBarrier(group.index);
      // One block ahead of its use; a block that is not wanted ends the tile.
      if ((box + 1) * kBox < item.columns)
        LoadC(c_words, c, row, column + (box + 1) * kBox);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float2 addend = UnpackPair<T>(addends[i]);
        values[2 * i] += beta * addend.x;
        values[2 * i + 1] += beta * addend.y;
      }
    }
    if (diagonal != 0 && row_block == column_block) {
      // Rows minus columns of the thread's first sum.
      const int away = static_cast<int>(warp * 16 + lane / 4 - lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        // Entry i of a thread: rows 8 (i % 2) further, columns 8 (i / 2).
        const int right = 8 * (i / 2) - 8 * (i % 2);
        if (away == right) values[2 * i] += diagonal;
        if (away == right + 1) values[2 * i + 1] += diagonal;
      }
    }
    uint32_t pairs[16];
    if (to_bfloat16) {
      PackPairs<__nv_bfloat16>(pairs, values);
    } else if (op.out < 0) {
      PackPairs<__half>(pairs, values);
    } else {
      PackPairs<T>(pairs, values);
    }
    if (op.store_transposed) {
      Stage<true>(shared, group, pairs);
    } else {
      Stage<false>(shared, group, pairs);
    }
  }
}

template <typename T>
__device__ void MultiplyTiles(const Program& p, Shared& shared, int index) {
  ItemReader items(shared);
  Group group{index, 0, 0, 0,
              InBlock(SharedAddress(&shared.empty[0]), threadIdx.x % 2)};
  for (;;) {
    const Item item = items.Next(false, threadIdx.x % 32 == 0);
    if (!item.valid) return;
    Multiply<T>(p, shared, group, item);
  }
}

template <typename T>
__global__ __cluster_dims__(2, 1, 1)
    __launch_bounds__(kThreads,
                      1) void Kernel(const __grid_constant__ Program p) {
  extern __shared__ unsigned char raw[];
  Shared& shared = *reinterpret_cast<Shared*>(
      (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const uint32_t rank = ClusterRank();
  if (threadIdx.x == 0) {
    BarrierInit(SharedAddress(&shared.item_full), 1);
    BarrierInit(SharedAddress(&shared.item_empty), kItemReaders);
    BarrierInit(SharedAddress(&shared.lead), 1);
    for (int i = 0; i < 2 * kOut; ++i) {
      BarrierInit(SharedAddress(&shared.out_full[0][0] + i), 4);
      BarrierInit(SharedAddress(&shared.out_empty[0][0] + i), 1);
    }
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), 1);
      BarrierInit(SharedAddress(&shared.empty[i]), 4);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    FenceAsyncProxy();
  }
  ClusterSync();
  const int warp = static_cast<int>(threadIdx.x / 32);
  if (warp < 4) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x % 32 == 0) {
      if (warp == 0) LoadTiles(p, shared, rank);
      if (warp == 1 && rank == 0) ClaimItems(p, shared);
      if (warp >= 2) StoreTiles(p, shared, warp - 2);
    }
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    MultiplyTiles<T>(p, shared, warp / 4 - 1);
  }
  // A block's barriers and memory are its neighbour's targets until both end.
  ClusterSync();
}

}  // namespace

const char* LaunchTensorCores(const Program& program, DeviceType iterates,
                              void* stream) {
  int multiprocessors;
  if (const char* error = MultiprocessorCount(&multiprocessors)) return error;
  void (*const kernel)(Program) =
      iterates == kBFloat16 ? Kernel<__nv_bfloat16> : Kernel<__half>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared)) + 1024;
  static_assert(kBytes <= 232448, "a block's shared memory");
  cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error == cudaSuccess)
    error = cudaMemsetAsync(
        program.counters, 0,
        sizeof(unsigned) * static_cast<size_t>(1 + program.slots),
        static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) return TextOf(error);
  const long long items =
      static_cast<long long>(program.matrices) * program.items_per_matrix;
  const int clusters = static_cast<int>(
      items < multiprocessors / 2 ? items : multiprocessors / 2);
  kernel<<<2 * clusters, kThreads, kBytes, static_cast<cudaStream_t>(stream)>>>(
      program);
  return LastError();
}

}  // namespace heddle::kernels::ns
