// The work items of newton_schulz.cu: number -> which tiles of which product a
// cluster's two blocks compute. Invariant: every wanted 128 x 128 block of
// every product is computed once, and both blocks of a cluster run over the
// same inner dimension.

#ifndef HEDDLE_KERNELS_NEWTON_SCHULZ_ITEMS_CUH_
#define HEDDLE_KERNELS_NEWTON_SCHULZ_ITEMS_CUH_

#include "kernels/newton_schulz_cuda.h"

namespace heddle::kernels::ns {

// What one block does: 128 rows from 128 * row, `columns` columns from
// 128 * column, of `op` for `matrix`, once the slot's counter reached `need`.
struct Item {
  int op, matrix, row, column, columns;
  unsigned need;
  bool both;    // the cluster's blocks share B
  bool a_is_b;  // the block's tiles of A are its tiles of B
  bool valid;
};

__device__ inline uint4 Pack(const Item& item) {
  return {static_cast<unsigned>(item.op) |
              (item.columns == 256 ? 1u << 16 : 0) |
              (item.both ? 1u << 17 : 0) | (item.valid ? 1u << 18 : 0) |
              (item.a_is_b ? 1u << 19 : 0),
          static_cast<unsigned>(item.matrix),
          static_cast<unsigned>(item.row) | static_cast<unsigned>(item.column)
                                                << 16,
          item.need};
}

__device__ inline Item Unpack(uint4 words) {
  Item item;
  item.op = static_cast<int>(words.x & 0xffff);
  item.columns = words.x & 1u << 16 ? 256 : 128;
  item.both = words.x & 1u << 17;
  item.valid = words.x & 1u << 18;
  item.a_is_b = words.x & 1u << 19;
  item.matrix = static_cast<int>(words.y);
  item.row = static_cast<int>(words.z & 0xffff);
  item.column = static_cast<int>(words.z >> 16);
  item.need = words.w;
  return item;
}

// Tile `index` of a symmetric product of `blocks` x `blocks` blocks of 128: the
// full tiles below the diagonal in pairs of rows, then the halves around it.
// Row `blocks` lies outside: a block without work.
__device__ inline void SymmetricTile(int index, int blocks, Item (&pair)[2]) {
  const int half = blocks / 2;
  const bool odd = blocks % 2 != 0;
  int pairs = odd ? half : half - 1;
  const int full = pairs * (pairs + 1) / 2;
  pair[0].columns = pair[1].columns = 128;
  if (index < full) {
    int j = 0;
    for (; index >= pairs; ++j) index -= pairs--;
    pair[0].columns = pair[1].columns = 256;
    pair[0].both = true;
    pair[0].column = pair[1].column = 2 * j;
    pair[0].row = 2 * j + (odd ? 1 : 2) + 2 * index;
    pair[1].row = pair[0].row + 1;
    return;
  }
  index -= full;
  if (!odd && index < half) {
    pair[0].both = true;
    pair[0].column = pair[1].column = 2 * index;
    pair[0].row = 2 * index;
    pair[1].row = 2 * index + 1;
    return;
  }
  // Blocks on the diagonal that are left, two at a time.
  if (!odd) index -= half;
  const int shift = odd ? 0 : 1, count = odd ? half + 1 : half;
  pair[0].both = false;
  pair[0].row = pair[0].column = 4 * index + shift;
  const bool second = 2 * index + 1 < count;
  pair[1].column = second ? 4 * index + 2 + shift : 0;
  pair[1].row = second ? pair[1].column : blocks;
}

__device__ inline void PlainTile(int index, int blocks, int m,
                                 Item (&pair)[2]) {
  const int narrow = (m + 127) / 128, wide = (narrow + 1) / 2;
  const int pairs = blocks / 2;
  const auto width = [&](int column) {
    return 2 * column + 1 < narrow ? 256 : 128;
  };
  if (index < pairs * wide) {
    const int column = index / pairs;
    pair[0].both = true;
    pair[0].columns = pair[1].columns = width(column);
    pair[0].column = pair[1].column = 2 * column;
    pair[0].row = 2 * (index % pairs);
    pair[1].row = pair[0].row + 1;
    return;
  }
  index -= pairs * wide;
  pair[0].both = false;
  for (int r = 0; r < 2; ++r) {
    const int column = 2 * index + r;
    const bool inside = column < wide;
    pair[r].columns = inside ? width(column) : 128;
    pair[r].column = inside ? 2 * column : 0;
    pair[r].row = inside ? blocks - 1 : blocks;
  }
}

__device__ inline void Decode(const Program& p, unsigned claimed,
                              Item (&pair)[2]) {
  const int chunk_items = p.slots * p.items_per_matrix;
  const int chunk = static_cast<int>(claimed) / chunk_items;
  int index = static_cast<int>(claimed) % chunk_items;
  const int first = chunk * p.slots;
  const int matrices =
      p.matrices - first < p.slots ? p.matrices - first : p.slots;
  int op = 0, before = 0;
  while (index >= matrices * p.ops[op].items) {
    index -= matrices * p.ops[op].items;
    before += p.ops[op].items;
    ++op;
  }
  const int items = p.ops[op].items;
  const int blocks = (p.n + 127) / 128;
  if (p.ops[op].symmetric) {
    SymmetricTile(index % items, blocks, pair);
  } else {
    PlainTile(index % items, blocks, p.m, pair);
  }
  for (int r = 0; r < 2; ++r) {
    pair[r].op = op;
    pair[r].matrix = first + index / items;
    // Both storing warps of both blocks count each item.
    pair[r].need =
        4u * static_cast<unsigned>(chunk * p.items_per_matrix + before);
    pair[r].both = pair[0].both;
    pair[r].valid = true;
    // Of a product of a matrix with itself (or its transpose), on the diagonal.
    pair[r].a_is_b = p.ops[op].symmetric && p.ops[op].a == p.ops[op].b &&
                     pair[r].columns == 128 && pair[r].row == pair[r].column;
  }
}

}  // namespace heddle::kernels::ns

#endif  // HEDDLE_KERNELS_NEWTON_SCHULZ_ITEMS_CUH_
