// Votes of noisy draws: the class of each row of logits, and how many rows of each image are for which class.
//
//   prediction[r] = the class of the largest logits[r, c], the lowest among equals; -1 where a logit is NaN
//   counts[i, c] += how many of the rows first[i] .. first[i + 1] are for class c
//
//   logits (rows, k) float32 or bf16, counts (images, k)
//
// Integers only: nothing is rounded, each count has one writer, no atomics. A row that is NaN is counted for no class.
#include "block.cuh"

namespace vote {

template <class T> DEVICE void predict(const Block& block, const VoteArgs& a) {
  const int64_t r = block.index.x;
  const T* z = static_cast<const T*>(a.logits) + r * a.k;  // (k)
  const block::Ranked top = block::argmax(block, a.k, [&](int c) { return to_float(z[c]); });
  block::for_each(block, 1, 1, [&](int, int) { a.prediction[r] = top.value == top.value ? top.index : -1; });
}

DEVICE void count(const Block& block, const VoteCountArgs& a) {
  const int64_t i = block.index.x;
  const int first = a.first[i], last = a.first[i + 1];
  block::for_each(block, 1, a.k, [&](int, int c) {
    int votes = 0;
    for (int r = first; r < last; ++r) votes += a.prediction[r] == c;
    a.counts[i * a.k + c] += votes;
  });
}

}  // namespace vote

// grid (rows)
KERNEL(vote_f32, VoteArgs, 128, 1024) { vote::predict<float>(block, a); }
KERNEL(vote_bf16, VoteArgs, 128, 1024) { vote::predict<bf16>(block, a); }
// grid (images)
KERNEL(vote_count, VoteCountArgs, 128, 1024) { vote::count(block, a); }
