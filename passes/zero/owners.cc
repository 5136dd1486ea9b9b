// Matrices -> owning ranks. Longest processing time first: the costliest matrix
// goes to the rank with the least work so far, which is never more than 4/3 of
// the best (Graham, 1969). Invariant: a rank's matrices of one bucket lie
// together, in rank order. A parameter of many matrices (an expert stack, heads
// of a projection) keeps their order, so it is cut, not sorted, and has a
// bucket of its own.
#include <algorithm>
#include <map>
#include <numeric>

#include "llvm/Support/raw_ostream.h"
#include "passes/zero/buckets.h"

namespace heddle::zero {

namespace {

// Multiplications of one Newton-Schulz iteration, up to a factor that all
// matrices share.
double costOf(const optim::MuonOp::Matrix& matrix) {
  double shorter = std::min(matrix.rows, matrix.columns),
         longer = std::max(matrix.rows, matrix.columns);
  return shorter * shorter * longer;
}

llvm::SmallVector<optim::MuonOp::Matrix> matricesOf(const Member& member) {
  optim::MuonOp muon = member.muon;
  return muon.getMatrixRows();
}

int64_t leastLoaded(const std::vector<double>& load) {
  return std::min_element(load.begin(), load.end()) - load.begin();
}

// Members of one matrix each: sorted by owner, cut where the owner changes.
void cutBetweenMembers(Bucket& bucket, const std::vector<int64_t>& owners,
                       int64_t ranks) {
  std::vector<size_t> order(bucket.members.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return owners[a] < owners[b]; });
  std::vector<Member> sorted;
  int64_t end = 0, rank = 0;
  bucket.bounds = {0};
  for (size_t i : order) {
    for (; rank < owners[i]; ++rank) bucket.bounds.push_back(end);
    Member& member = sorted.emplace_back(bucket.members[i]);
    member.offset = end;
    end = alignUp(end + member.elements, dist::kSlotAlignment);
  }
  for (; rank < ranks; ++rank) bucket.bounds.push_back(end);
  bucket.members = std::move(sorted);
  bucket.elements = end;
}

// One member of many matrices: rank after rank takes its share in order.
void cutInside(Bucket& bucket, std::vector<double>& load, int64_t ranks) {
  llvm::SmallVector<optim::MuonOp::Matrix> matrices =
      matricesOf(bucket.members.front());
  std::vector<int64_t> count(ranks, 0);
  for (const optim::MuonOp::Matrix& matrix : matrices) {
    int64_t owner = leastLoaded(load);
    load[owner] += costOf(matrix);
    ++count[owner];
  }
  int64_t each = matrices.front().rows * matrices.front().columns, end = 0;
  bucket.bounds = {0};
  for (int64_t r = 0; r < ranks; ++r)
    bucket.bounds.push_back(end += count[r] * each);
  bucket.elements = end;
}

}  // namespace

void assignOwners(std::vector<Bucket>& buckets, int64_t ranks) {
  std::vector<double> load(ranks, 0);
  struct Unit {
    size_t bucket, member;
    double cost;
  };
  std::vector<Unit> units;
  std::vector<std::vector<int64_t>> owners(buckets.size());
  auto isWhole = [](const Bucket& bucket) {
    return matricesOf(bucket.members.front()).size() == 1;
  };
  for (size_t b = 0; b < buckets.size(); ++b) {
    if (!buckets[b].isMuon() || !isWhole(buckets[b])) continue;
    owners[b].resize(buckets[b].members.size());
    for (size_t m = 0; m < buckets[b].members.size(); ++m)
      units.push_back({b, m, costOf(matricesOf(buckets[b].members[m])[0])});
  }
  std::stable_sort(
      units.begin(), units.end(),
      [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
  for (const Unit& unit : units) {
    int64_t owner = leastLoaded(load);
    load[owner] += unit.cost;
    owners[unit.bucket][unit.member] = owner;
  }
  for (size_t b = 0; b < buckets.size(); ++b) {
    if (!buckets[b].isMuon()) continue;
    buckets[b].even = false;
    if (isWhole(buckets[b])) {
      cutBetweenMembers(buckets[b], owners[b], ranks);
    } else {
      cutInside(buckets[b], load, ranks);
    }
  }
  // Buckets of one update lie one behind the other, whole and in parts.
  struct End {
    int64_t whole = 0;
    llvm::SmallVector<int64_t> shards;
  };
  std::map<std::string, End> ends;
  for (Bucket& bucket : buckets) {
    if (!bucket.isMuon()) continue;
    std::string key;
    llvm::raw_string_ostream stream(key);
    optim::MuonOp muon = bucket.members.front().muon;
    stream << "muon" << muon.getGroup() << '.' << bucket.element();
    End& end = ends[key];
    end.shards.resize(ranks, 0);
    bucket.place.arena = key;
    bucket.place.whole = end.whole;
    end.whole += alignUp(bucket.elements, dist::kSlotAlignment);
    for (int64_t r = 0; r < ranks; ++r) {
      bucket.place.shards.push_back(end.shards[r]);
      end.shards[r] += alignUp(bucket.bounds[r + 1] - bucket.bounds[r],
                               dist::kSlotAlignment);
    }
  }
}

}  // namespace heddle::zero
