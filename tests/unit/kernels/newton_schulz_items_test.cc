// The work items of the Newton-Schulz kernel, whose device code is compiled for
// the host here: every wanted block of every product once, and blocks that say
// that they share tiles do. It bites: with one pair too few in a strip, a block
// of each matrix of 640 rows and more is missing.

#include <gtest/gtest.h>

#define __device__
#define __host__
struct uint4 {
  unsigned x, y, z, w;
};
#include "kernels/newton_schulz_items.cuh"

namespace heddle::kernels::ns {
namespace {

// How often each 128 x 128 block of one matrix's op is computed.
std::vector<int> Covered(const Program& p, unsigned first, int items, int rows,
                         int columns) {
  std::vector<int> covered(static_cast<size_t>(rows * columns));
  for (int i = 0; i < items; ++i) {
    Item blocks[2] = {};
    Decode(p, first + static_cast<unsigned>(i), blocks);
    for (int r = 0; r < 2; ++r) {
      const Item item = Unpack(Pack(blocks[r]));
      EXPECT_TRUE(item.valid);
      EXPECT_EQ(item.op, blocks[0].op);
      EXPECT_EQ(item.matrix, blocks[0].matrix);
      EXPECT_EQ(item.need, blocks[0].need);
      EXPECT_EQ(item.both, blocks[0].both);
      if (item.both) {
        EXPECT_EQ(item.column, blocks[0].column);
        EXPECT_EQ(item.columns, blocks[0].columns);
      }
      if (item.a_is_b) {
        EXPECT_EQ(item.row, item.column);
      }
      if (item.row >= rows) continue;
      for (int c = 0; c < item.columns / 128; ++c)
        if (item.column + c < columns)
          ++covered[static_cast<size_t>(item.row * columns + item.column + c)];
    }
  }
  return covered;
}

TEST(NewtonSchulzItems, EveryWantedBlockOnce) {
  for (int n = 1; n <= 4400; n += n < 700 ? 43 : 128) {
    for (int m : {n, n + 100, n + 128, 2 * n + 300}) {
      Program p{};
      p.n = n;
      p.m = m;
      p.slots = 2;
      p.matrices = 3;
      p.op_count = 2;
      p.ops[0].symmetric = true;
      p.ops[0].b = 1;
      p.ops[0].items = SymmetricItems(n);
      p.ops[1].items = PlainItems(n, m);
      p.items_per_matrix = p.ops[0].items + p.ops[1].items;
      const int rows = (n + 127) / 128, columns = (m + 127) / 128;
      // Chunks of two matrices and of one; in a chunk op by op.
      unsigned first = 0;
      for (int chunk = 0; chunk < 2; ++chunk) {
        for (int op = 0; op < 2; ++op) {
          for (int matrix = 0; matrix < 2 - chunk; ++matrix) {
            Item blocks[2] = {};
            Decode(p, first, blocks);
            EXPECT_EQ(blocks[0].op, op);
            EXPECT_EQ(blocks[0].matrix, 2 * chunk + matrix);
            const int wide = op == 0 ? rows : columns;
            const std::vector<int> covered =
                Covered(p, first, p.ops[op].items, rows, wide);
            for (int row = 0; row < rows; ++row) {
              for (int column = 0; column < wide; ++column) {
                const int times =
                    covered[static_cast<size_t>(row * wide + column)];
                const bool wanted = op == 1 || column <= row;
                ASSERT_TRUE(wanted ? times == 1 : times <= 1)
                    << n << "x" << m << " op " << op << " block " << row << ", "
                    << column << ": " << times;
              }
            }
            first += static_cast<unsigned>(p.ops[op].items);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace heddle::kernels::ns
