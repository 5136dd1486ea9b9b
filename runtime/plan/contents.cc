// Disjoint pieces in a map: a Set splits what it meets.

#include "runtime/plan/contents.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace heddle::plan {

void Contents::Set(Piece piece) {
  if (piece.begin >= piece.end) return;
  auto it = pieces_.upper_bound(piece.begin);
  if (it != pieces_.begin()) --it;
  while (it != pieces_.end() && it->second.begin < piece.end) {
    const Piece old = it->second;
    if (old.end <= piece.begin) {
      ++it;
      continue;
    }
    it = pieces_.erase(it);
    if (old.begin < piece.begin)
      pieces_[old.begin] = {old.begin, piece.begin, old.content};
    if (old.end > piece.end) {
      pieces_[piece.end] = {piece.end, old.end, old.content};
      break;
    }
  }
  pieces_[piece.begin] = std::move(piece);
}

std::vector<Piece> Contents::Get(int64_t begin, int64_t end) const {
  std::vector<Piece> found;
  auto it = pieces_.upper_bound(begin);
  if (it != pieces_.begin()) --it;
  for (; it != pieces_.end() && it->second.begin < end; ++it) {
    Piece piece = it->second;
    piece.begin = std::max(piece.begin, begin);
    piece.end = std::min(piece.end, end);
    if (piece.begin < piece.end) found.push_back(piece);
  }
  return found;
}

std::vector<Piece> Moved(std::vector<Piece> pieces, int64_t bytes) {
  for (Piece& piece : pieces) {
    piece.begin += bytes;
    piece.end += bytes;
    piece.content.origin += bytes;
  }
  return pieces;
}

}  // namespace heddle::plan
