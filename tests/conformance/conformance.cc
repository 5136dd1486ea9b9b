#include "tests/conformance/conformance.h"

#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/device/cpu.h"

namespace heddle::comm::conformance {

using plan::DType;

std::unique_ptr<Communicator> Rank::Connect(const std::string& name) {
  std::vector<int> ranks;
  for (int i = 0; i < size; ++i) ranks.push_back(i);
  return Connect(name, ranks);
}

std::unique_ptr<Communicator> Rank::Connect(const std::string& name,
                                            std::vector<int> ranks) {
  absl::StatusOr<Group> group = MakeGroup(name, std::move(ranks), rank);
  EXPECT_TRUE(group.ok()) << group.status();
  if (!group.ok()) return nullptr;
  absl::StatusOr<std::unique_ptr<Communicator>> made = backend->Connect(*group);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

absl::Status Rank::Run(Communicator& communicator,
                       absl::Span<const Collective> collectives) {
  if (absl::Status s = communicator.Issue(collectives, stream); !s.ok())
    return s;
  if (stream == nullptr) return absl::OkStatus();
  if (absl::Status s = stream->Synchronize(); !s.ok()) return s;
  return communicator.status();
}

void Conformance::OnEveryRank(const std::function<void(Rank&)>& body) {
  const auto& [backend, size, streamed] = GetParam();
  std::unique_ptr<BackendWorld> world = backend.make(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r, size = size, streamed = streamed] {
      std::unique_ptr<device::Device> device = device::CreateCpuDevice();
      std::unique_ptr<device::Stream> stream;
      if (streamed) stream = *device->CreateStream("comm");
      Rank rank{r, size, &world->Rank(r), device.get(), stream.get()};
      body(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::string CaseName(
    const ::testing::TestParamInfo<Conformance::ParamType>& info) {
  const auto& [backend, size, streamed] = info.param;
  return absl::StrCat(backend.name, "_", size,
                      streamed ? "_stream" : "_direct");
}

namespace {

constexpr DType kAll[] = {
    DType::kBool, DType::kU8,   DType::kI8,       DType::kI16,   DType::kI32,
    DType::kI64,  DType::kF16,  DType::kBF16,     DType::kF32,   DType::kF64,
    DType::kC64,  DType::kC128, DType::kF8E4M3FN, DType::kF8E5M2};
constexpr DType kReducing[] = {DType::kU8,  DType::kI8,  DType::kI32,
                               DType::kI64, DType::kF16, DType::kBF16,
                               DType::kF32, DType::kF64};
// Nothing, one, odd, more than one block of the reduction and divisible by no
// world size above 1.
constexpr int64_t kCounts[] = {0, 1, 13, 4097};

// Memory with a guard on both sides, filled with 0xa5.
class Buffer {
 public:
  Buffer(int64_t elements, DType dtype)
      : bytes_(elements * plan::ElementSize(dtype)),
        memory_(bytes_ + 2 * kGuard, 0xa5) {}
  ~Buffer() {
    for (int64_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(memory_[i], 0xa5) << "written before the buffer";
      EXPECT_EQ(memory_[kGuard + bytes_ + i], 0xa5)
          << "written behind the buffer";
    }
  }
  unsigned char* data() { return memory_.data() + kGuard; }
  void* at(int64_t element, DType dtype) {
    return data() + element * plan::ElementSize(dtype);
  }

 private:
  static constexpr int64_t kGuard = 64;
  const int64_t bytes_;
  std::vector<unsigned char> memory_;
};

// Small integers: exact in every dtype, and their sums over 8 ranks too.
int Value(int rank, int64_t i) {
  return static_cast<int>((i * 7 + rank * 5) % 13) + rank % 3;
}

template <typename T>
void Put(void* address, T value) {
  std::memcpy(address, &value, sizeof value);
}

void Write(void* address, DType dtype, int value) {
  const float f = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  switch (dtype) {
    case DType::kU8:
    case DType::kI8:
    case DType::kBool:
    case DType::kF8E4M3FN:
    case DType::kF8E5M2:
      return Put(address, static_cast<uint8_t>(value));
    case DType::kI16:
      return Put(address, static_cast<int16_t>(value));
    case DType::kI32:
      return Put(address, static_cast<int32_t>(value));
    case DType::kI64:
    case DType::kC64:
      return Put(address, static_cast<int64_t>(value));
    case DType::kF16:
      return Put(address, static_cast<_Float16>(value));
    case DType::kBF16:
      return Put(address, static_cast<uint16_t>(bits >> 16));
    case DType::kF32:
      return Put(address, f);
    case DType::kF64:
      return Put(address, static_cast<double>(value));
    case DType::kC128:
      Put(address, static_cast<double>(value));
      return Put(static_cast<double*>(address) + 1, -1.0);
  }
}

using ValueOf = std::function<int(int64_t)>;

void Fill(void* data, DType dtype, int64_t count, const ValueOf& value) {
  for (int64_t i = 0; i < count; ++i)
    Write(static_cast<char*>(data) + i * plan::ElementSize(dtype), dtype,
          value(i));
}

void ExpectValues(const void* data, DType dtype, int64_t count,
                  const ValueOf& value) {
  std::vector<char> expected(count * plan::ElementSize(dtype));
  Fill(expected.data(), dtype, count, value);
  EXPECT_EQ(
      count == 0 || std::memcmp(expected.data(), data, expected.size()) == 0,
      true)
      << count << " elements of " << plan::DTypeName(dtype);
}

int Combined(Reduction reduction, int size, int64_t i) {
  int result = Value(0, i);
  for (int q = 1; q < size; ++q) {
    const int v = Value(q, i);
    if (reduction == Reduction::kSum) result += v;
    if (reduction == Reduction::kMax) result = std::max(result, v);
    if (reduction == Reduction::kMin) result = std::min(result, v);
  }
  return result;
}

constexpr Reduction kReductions[] = {Reduction::kSum, Reduction::kMax,
                                     Reduction::kMin};

#define EXPECT_OK(expression)                    \
  do {                                           \
    const absl::Status expect_ok = (expression); \
    EXPECT_TRUE(expect_ok.ok()) << expect_ok;    \
  } while (false)

TEST_P(Conformance, AllGather) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kAll) {
      for (int64_t count : kCounts) {
        const ValueOf whole = [&](int64_t i) {
          return Value(static_cast<int>(i / count), i % count);
        };
        const ValueOf own = [&](int64_t i) { return Value(rank.rank, i); };
        Buffer input(count, dtype), output(rank.size * count, dtype);
        Fill(input.data(), dtype, count, own);
        EXPECT_OK(rank.Run(
            *comm, AllGather(input.data(), output.data(), count, dtype)));
        ExpectValues(output.data(), dtype, rank.size * count, whole);
        Buffer both(rank.size * count, dtype);
        void* slot = both.at(rank.rank * count, dtype);
        Fill(slot, dtype, count, own);
        EXPECT_OK(rank.Run(*comm, AllGather(slot, both.data(), count, dtype)));
        ExpectValues(both.data(), dtype, rank.size * count, whole);
      }
    }
  });
}

// Position i holds i * 3 % 5 + 7 * (i == 1) elements: none at position 0.
std::vector<int64_t> UnevenCounts(int size) {
  std::vector<int64_t> counts;
  for (int i = 0; i < size; ++i) counts.push_back(i * 3 % 5 + 7 * (i == 1));
  return counts;
}

TEST_P(Conformance, UnevenSlots) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    const std::vector<int64_t> counts = UnevenCounts(rank.size);
    int64_t total = 0, before = 0;
    for (int i = 0; i < rank.size; ++i) {
      if (i == rank.rank) before = total;
      total += counts[i];
    }
    const int64_t mine = counts[rank.rank];
    for (DType dtype : kReducing) {
      for (bool in_place : {false, true}) {
        Buffer part(mine, dtype), whole(total, dtype);
        void* slot = in_place ? whole.at(before, dtype) : part.data();
        Fill(slot, dtype, mine,
             [&](int64_t i) { return Value(0, before + i); });
        Collective gather = AllGather(slot, whole.data(), 0, dtype);
        gather.counts = counts;
        EXPECT_OK(rank.Run(*comm, gather));
        ExpectValues(whole.data(), dtype, total,
                     [&](int64_t i) { return Value(0, i); });

        Fill(whole.data(), dtype, total,
             [&](int64_t i) { return Value(rank.rank, i); });
        Collective scatter = ReduceScatter(whole.data(), slot, 0, dtype);
        scatter.counts = counts;
        EXPECT_OK(rank.Run(*comm, scatter));
        ExpectValues(slot, dtype, mine, [&](int64_t i) {
          return Combined(Reduction::kSum, rank.size, before + i);
        });
      }
    }
  });
}

TEST_P(Conformance, ReduceScatter) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kReducing) {
      for (int64_t count : kCounts) {
        for (Reduction reduction : kReductions) {
          for (bool in_place : {false, true}) {
            if (in_place && reduction != Reduction::kSum) continue;
            Buffer input(rank.size * count, dtype), apart(count, dtype);
            Fill(input.data(), dtype, rank.size * count,
                 [&](int64_t i) { return Value(rank.rank, i); });
            void* output =
                in_place ? input.at(rank.rank * count, dtype) : apart.data();
            EXPECT_OK(rank.Run(*comm, ReduceScatter(input.data(), output, count,
                                                    dtype, reduction)));
            ExpectValues(output, dtype, count, [&](int64_t i) {
              return Combined(reduction, rank.size, rank.rank * count + i);
            });
          }
        }
      }
    }
  });
}

TEST_P(Conformance, AllReduceAndReduce) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kReducing) {
      for (int64_t count : kCounts) {
        for (Reduction reduction : kReductions) {
          const ValueOf expected = [&](int64_t i) {
            return Combined(reduction, rank.size, i);
          };
          const ValueOf own = [&](int64_t i) { return Value(rank.rank, i); };
          for (bool in_place : {false, true}) {
            if (in_place && reduction != Reduction::kSum) continue;
            Buffer input(count, dtype), apart(count, dtype);
            void* output = in_place ? input.data() : apart.data();
            Fill(input.data(), dtype, count, own);
            EXPECT_OK(rank.Run(*comm, AllReduce(input.data(), output, count,
                                                dtype, reduction)));
            ExpectValues(output, dtype, count, expected);

            const int root = static_cast<int>(count) % rank.size;
            Fill(input.data(), dtype, count, own);
            if (rank.rank != root) output = nullptr;
            EXPECT_OK(rank.Run(*comm, Reduce(input.data(), output, count, dtype,
                                             root, reduction)));
            ExpectValues(rank.rank == root ? output : input.data(), dtype,
                         count, rank.rank == root ? expected : own);
          }
        }
      }
    }
  });
}

TEST_P(Conformance, BoolIsOrAndAnd) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    bool own[3] = {true, rank.rank == 0, false};
    bool any[3], all[3];
    EXPECT_OK(
        rank.Run(*comm, AllReduce(own, any, 3, DType::kBool, Reduction::kMax)));
    EXPECT_OK(
        rank.Run(*comm, AllReduce(own, all, 3, DType::kBool, Reduction::kMin)));
    EXPECT_EQ(any[1], true);
    EXPECT_EQ(all[1], rank.size == 1);
    EXPECT_EQ(any[2], false);
    EXPECT_EQ(all[0], true);
  });
}

TEST_P(Conformance, Broadcast) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kAll) {
      for (int64_t count : kCounts) {
        for (int root : std::set<int>{0, rank.size - 1}) {
          const bool has = rank.rank == root;
          const ValueOf sent = [&](int64_t i) { return Value(root, i); };
          Buffer input(has ? count : 0, dtype), output(count, dtype);
          if (has) Fill(input.data(), dtype, count, sent);
          EXPECT_OK(
              rank.Run(*comm, Broadcast(has ? input.data() : nullptr,
                                        output.data(), count, dtype, root)));
          ExpectValues(output.data(), dtype, count, sent);
          Buffer both(count, dtype);
          if (has) Fill(both.data(), dtype, count, sent);
          EXPECT_OK(rank.Run(
              *comm, Broadcast(both.data(), both.data(), count, dtype, root)));
          ExpectValues(both.data(), dtype, count, sent);
        }
      }
    }
  });
}

TEST_P(Conformance, AllToAllEven) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kAll) {
      for (int64_t count : kCounts) {
        const int64_t whole = rank.size * count;
        Buffer input(whole, dtype), output(whole, dtype);
        Fill(input.data(), dtype, whole,
             [&](int64_t i) { return Value(rank.rank, i); });
        EXPECT_OK(rank.Run(
            *comm, AllToAll(input.data(), output.data(), count, dtype)));
        ExpectValues(output.data(), dtype, whole, [&](int64_t i) {
          return Value(static_cast<int>(i / count),
                       rank.rank * count + i % count);
        });
      }
    }
  });
}

// Elements that rank q sends to rank r: none on the diagonal of even ranks.
int64_t Sent(int q, int r) { return q == r && q % 2 == 0 ? 0 : q + 2 * r + 1; }

TEST_P(Conformance, AllToAllUneven) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    for (DType dtype : kAll) {
      Collective c = AllToAll(nullptr, nullptr, 0, dtype);
      int64_t sent = 0, received = 0;
      for (int q = 0; q < rank.size; ++q) {
        c.send_counts.push_back(Sent(rank.rank, q));
        c.recv_counts.push_back(Sent(q, rank.rank));
        sent += c.send_counts.back();
        received += c.recv_counts.back();
      }
      Buffer input(sent, dtype), output(received, dtype);
      int64_t at = 0;
      for (int q = 0; q < rank.size; ++q) {
        Fill(input.at(at, dtype), dtype, c.send_counts[q],
             [&](int64_t i) { return Value(rank.rank, 100 * q + i); });
        at += c.send_counts[q];
      }
      c.input = input.data();
      c.output = output.data();
      EXPECT_OK(rank.Run(*comm, c));
      at = 0;
      for (int q = 0; q < rank.size; ++q) {
        ExpectValues(output.at(at, dtype), dtype, c.recv_counts[q],
                     [&](int64_t i) { return Value(q, 100 * rank.rank + i); });
        at += c.recv_counts[q];
      }
    }
  });
}

// The counts are written by the work before the collective, as a router does.
TEST_P(Conformance, AllToAllWithDeviceCounts) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    const int64_t capacity = 3 * rank.size;
    for (DType dtype : kAll) {
      std::vector<int64_t> send(rank.size, -1), received(rank.size, -1);
      Buffer input(rank.size * capacity, dtype),
          output(rank.size * capacity, dtype);
      for (int q = 0; q < rank.size; ++q)
        Fill(input.at(q * capacity, dtype), dtype, capacity,
             [&](int64_t i) { return Value(rank.rank, 100 * q + i); });
      const auto route = [&] {
        for (int q = 0; q < rank.size; ++q) send[q] = Sent(rank.rank, q);
      };
      if (rank.stream != nullptr)
        rank.stream->Enqueue(route);
      else
        route();
      Collective c = AllToAll(input.data(), output.data(), capacity, dtype);
      c.device_send_counts = send.data();
      c.device_recv_counts = received.data();
      EXPECT_OK(rank.Run(*comm, c));
      for (int q = 0; q < rank.size; ++q) {
        EXPECT_EQ(received[q], Sent(q, rank.rank));
        ExpectValues(output.at(q * capacity, dtype), dtype, received[q],
                     [&](int64_t i) { return Value(q, 100 * rank.rank + i); });
      }
    }
  });
}

TEST_P(Conformance, GroupedCall) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    const DType dtype = DType::kF32;
    const ValueOf own = [&](int64_t i) { return Value(rank.rank, i); };
    Buffer input(rank.size * 13, dtype), gathered(rank.size * 13, dtype),
        reduced(13, dtype), summed(5, dtype), told(7, dtype),
        swapped(rank.size * 13, dtype);
    Fill(input.data(), dtype, rank.size * 13, own);
    const int root = rank.size - 1;
    EXPECT_OK(
        rank.Run(*comm, {AllGather(input.data(), gathered.data(), 13, dtype),
                         ReduceScatter(input.data(), reduced.data(), 13, dtype),
                         AllReduce(input.data(), summed.data(), 5, dtype),
                         Broadcast(input.data(), told.data(), 7, dtype, root),
                         AllToAll(input.data(), swapped.data(), 13, dtype)}));
    ExpectValues(gathered.data(), dtype, rank.size * 13, [&](int64_t i) {
      return Value(static_cast<int>(i / 13), i % 13);
    });
    ExpectValues(reduced.data(), dtype, 13, [&](int64_t i) {
      return Combined(Reduction::kSum, rank.size, rank.rank * 13 + i);
    });
    ExpectValues(summed.data(), dtype, 5, [&](int64_t i) {
      return Combined(Reduction::kSum, rank.size, i);
    });
    ExpectValues(told.data(), dtype, 7,
                 [&](int64_t i) { return Value(root, i); });
    ExpectValues(swapped.data(), dtype, rank.size * 13, [&](int64_t i) {
      return Value(static_cast<int>(i / 13), rank.rank * 13 + i % 13);
    });
  });
}

// Parts of different sizes for their owners, dtypes side by side, in place, and
// a member without elements: what a bucket of whole matrices is sent by.
TEST_P(Conformance, GroupedCallOfOwnersAndDtypes) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    const ValueOf own = [&](int64_t i) { return Value(rank.rank, i); };
    const int64_t longest = 5 + 2 * rank.size;
    Buffer counts(longest, DType::kI64), owned(longest, DType::kI64),
        parts(rank.size * 3, DType::kBF16), nothing(0, DType::kF64);
    Fill(counts.data(), DType::kI64, longest, own);
    Fill(parts.at(rank.rank * 3, DType::kBF16), DType::kBF16, 3, own);
    Collective uneven = AllToAll(nullptr, nullptr, 0, DType::kF32);
    int64_t sent = 0, received = 0;
    for (int q = 0; q < rank.size; ++q) {
      uneven.send_counts.push_back(Sent(rank.rank, q));
      uneven.recv_counts.push_back(Sent(q, rank.rank));
      sent += uneven.send_counts.back();
      received += uneven.recv_counts.back();
    }
    Buffer input(sent, DType::kF32), output(received, DType::kF32);
    Fill(input.data(), DType::kF32, sent, own);
    uneven.input = input.data();
    uneven.output = output.data();
    std::vector<Collective> group = {
        uneven,
        AllGather(parts.at(rank.rank * 3, DType::kBF16), parts.data(), 3,
                  DType::kBF16),
        Broadcast(nothing.data(), nothing.data(), 0, DType::kF64, 0)};
    for (int root = 0; root < rank.size; ++root)
      group.push_back(Reduce(counts.data(),
                             root == rank.rank ? owned.data() : nullptr,
                             5 + 2 * root, DType::kI64, root));
    EXPECT_OK(rank.Run(*comm, group));
    ExpectValues(parts.data(), DType::kBF16, rank.size * 3, [&](int64_t i) {
      return Value(static_cast<int>(i / 3), i % 3);
    });
    ExpectValues(owned.data(), DType::kI64, 5 + 2 * rank.rank, [&](int64_t i) {
      return Combined(Reduction::kSum, rank.size, i);
    });
    int64_t at = 0;
    for (int q = 0; q < rank.size; ++q) {
      int64_t before = 0;
      for (int r = 0; r < rank.rank; ++r) before += Sent(q, r);
      ExpectValues(output.at(at, DType::kF32), DType::kF32, Sent(q, rank.rank),
                   [&](int64_t i) { return Value(q, before + i); });
      at += Sent(q, rank.rank);
    }
  });
}

// Even and odd ranks apart, and the whole world in reverse order.
TEST_P(Conformance, SubgroupsAndPositions) {
  OnEveryRank([](Rank& rank) {
    std::vector<int> alike, reverse;
    for (int q = rank.rank % 2; q < rank.size; q += 2) alike.push_back(q);
    for (int q = rank.size; q-- > 0;) reverse.push_back(q);
    auto half = rank.Connect(rank.rank % 2 ? "odd" : "even", alike);
    auto turned = rank.Connect("turned", reverse);
    const int64_t own = 10 + rank.rank;
    std::vector<int64_t> seen(alike.size()), all(rank.size);
    EXPECT_OK(rank.Run(*half, AllGather(&own, seen.data(), 1, DType::kI64)));
    EXPECT_OK(rank.Run(*turned, AllGather(&own, all.data(), 1, DType::kI64)));
    for (size_t i = 0; i < alike.size(); ++i) EXPECT_EQ(seen[i], 10 + alike[i]);
    for (int i = 0; i < rank.size; ++i)
      EXPECT_EQ(all[i], 10 + rank.size - 1 - i);
  });
}

// Two communicators in the order of a step with overlap, ranks arriving in
// every order, buffers used again at once.
TEST_P(Conformance, ManyRoundsInAnyArrivalOrder) {
  OnEveryRank([](Rank& rank) {
    auto gather = rank.Connect("gather");
    auto reduce = rank.Connect("reduce");
    std::mt19937 random(1234 + rank.rank);
    std::vector<int64_t> whole(rank.size);
    int64_t sum = 0;
    for (int64_t round = 0; round < 40; ++round) {
      if (random() % 4 == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      int64_t own = round * 100 + rank.rank;
      EXPECT_OK(
          rank.Run(*gather, AllGather(&own, whole.data(), 1, DType::kI64)));
      EXPECT_OK(rank.Run(*reduce, AllReduce(&own, &sum, 1, DType::kI64)));
      own = -1;
      int64_t expected = 0;
      for (int q = 0; q < rank.size; ++q) {
        EXPECT_EQ(whole[q], round * 100 + q);
        expected += whole[q];
      }
      EXPECT_EQ(sum, expected);
    }
  });
}

// A statement that cannot be is refused before anybody waits for it, and the
// communicator is as good as before.
TEST_P(Conformance, RefusesWhatCannotBe) {
  OnEveryRank([](Rank& rank) {
    auto comm = rank.Connect("world");
    float a[16] = {}, b[16] = {};
    const auto refused = [&](const Collective& c, const std::string& why) {
      const absl::Status status = rank.Run(*comm, c);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_NE(std::string(status.message()).find(why), std::string::npos)
          << status;
    };
    refused(AllReduce(a, b, -1, DType::kF32), "impossible count of -1");
    refused(AllReduce(a, nullptr, 4, DType::kF32), "no address for its output");
    refused(AllReduce(a, a + 1, 4, DType::kF32), "overlap");
    refused(AllToAll(a, a, 1, DType::kF32), "never in place");
    refused(AllReduce(a, b, 4, DType::kBool), "sum of bool");
    refused(AllReduce(a, b, 2, DType::kF8E5M2), "cannot take the sum");
    refused(Broadcast(a, b, 1, DType::kF32, rank.size), "has root");
    Collective c = AllGather(a, b, 0, DType::kF32);
    c.counts.assign(rank.size + 1, 0);
    refused(c, "counts for a group of");
    c = AllToAll(a, b, 0, DType::kF32);
    c.send_counts.assign(rank.size, 0);
    refused(c, "receive counts");
    c.recv_counts.assign(rank.size, -2);
    refused(c, "impossible receive counts");
    float one = 1, sum = 0;
    EXPECT_OK(rank.Run(*comm, AllReduce(&one, &sum, 1, DType::kF32)));
    EXPECT_EQ(sum, rank.size);
  });
}

}  // namespace
}  // namespace heddle::comm::conformance
