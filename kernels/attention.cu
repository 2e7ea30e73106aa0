// Scaled dot-product attention with an additive bias, forward and the gradients of q, k and v. The matrix of scores exists only a
// square at a time.
//
//   s = scale * q k^T + bias + table[place of k - place of q]      p = softmax(s) over the keys      y = p v
//   dv = p^T dy      ds = p * (dy v^T - delta),  delta = sum(y * dy) per query      dq = scale * ds k      dk = scale * ds^T q
//
// Forward, for each square of keys and from m = -inf, l = 0, y = 0 (names as in FlashAttention):
//
//   m' = max(m, max_j s)     alpha = exp(m - m')     p = exp(s - m')     l = l * alpha + sum_j p     y = y * alpha + p v     m = m'
//
// and in the end y = y / l. On CUDA a warp has whole rows of the square, so that s and p never leave its registers, as in
// FlashAttention-2; keys are copied while the values are multiplied, and the other way round:
//
//   copies        k0 | v0        | k1            | v1        | k2            | ...
//   computes         | s = q k0^T| p, y += p v0  | s = q k1^T| p, y += p v1  | ...         |: arrive()
//
// Where FlashAttention keeps lse = m + log l of every query, this keeps both numbers, m and 1/l, for the
// sum would lose digits where scores are large. The gradients rebuild p = exp(s - m) / l; dq walks over keys, dk and dv over queries,
// so that every output has one writer and nothing is added atomically.
//
// q, k, v and their gradients are views (TokensView), so that they may be parts of one tensor (N, T, 3 C). Head sizes up to 128.
// float32 or bf16; s, p, m, l and all sums in float32, p and ds rounded to the precision of v and k where these are multiplied.
// bf16: exp(x) is 2^(x log2 e), and where nothing is added to the product the scale is a factor of that exponent too.
// Sources: Milakov & Gimelshein 2018; Dao et al. 2022; Dao 2023.
#include "activation.cuh"
#include "matrix.cuh"

namespace attention {

DEVICE int padded(int v) { return (v + 15) / 16 * 16; }

// What is added to a score for the places of its two tokens on a map of h x w, row by row.
struct Places {
  const float* table;  // of one head: (2 h - 1, 2 w - 1), by the place of the second token less that of the first; may be null
  Divisor w;
  int h;

  // A token's number on a map that is padded to rows of 2 w - 1: the table is indexed by differences of such numbers.
  DEVICE int number(int token) const { return token + int(divide(token, w)) * (int(w.value) - 1); }

  // Where the table has a first token; the number of the second is added.
  DEVICE const float* origin(int token) const { return table + (h - 1) * (2 * int(w.value) - 1) + int(w.value) - 1 - number(token); }

  // For `count` second tokens from `other` on. Where these go on in the next row of the map, they go on in the next row of the table,
  // which for the same place is w - 1 further from the start of the run.
  DEVICE Lanes run(const float* origin, int other, int count) const {
    const int width = w.value, other_x = other - int(divide(other, w)) * width;
    const float* at = origin + number(other);
    Lanes v = lanes::load(at, count);
    for (int done = width - other_x; done < count; done += width) {
      at += width - 1;
      v = lanes::select(~0u << done, lanes::load(at, count), v);
    }
    return v;
  }
};

// The head of one image that a block works on. The rows of its scores are queries and their columns keys; TURNED, the other way round.
template <class T, class Args, bool TURNED = false> struct Head {
  const Args& a;
  int batch, head, d;  // d padded
  const float* bias;   // (queries, keys), or null
  Places places;

  DEVICE Head(const Block& block, const Args& a_, const float* table)
      : a(a_), batch(block.index.z), head(block.index.y), d(padded(a_.d)),
        bias(a_.bias ? a_.bias + batch * a_.bias_batch + int64_t(head) * a_.queries * a_.keys : nullptr),
        places{table ? table + int64_t(head) * (2 * a_.map_h - 1) * (2 * int(a_.map_w.value) - 1) : nullptr, a_.map_w, a_.map_h} {}

  template <class V = const T> DEVICE V* at(const TokensView& v, int token) const {
    return reinterpret_cast<V*>(v.at) + batch * v.batch + head * v.head + token * v.token;
  }

  // Where lse and delta have a query.
  DEVICE int64_t row(int query) const { return (int64_t(batch) * a.heads + head) * a.queries + query; }

  // Tokens [first, first + count) of a view; zeros up to `rows`.
  DEVICE void load(const Block& block, const matrix::Small<T>& to, const TokensView& from, int first, int count, int rows) const {
    matrix::load(block, to, at(from, first), from.token, count, a.d, rows, d);
  }

  // The same, square by square.
  template <int ROWS, int D> DEVICE matrix::Source<ROWS, D, T> source(const Block& block, const TokensView& from, int first) const {
    return {block, at(from, first), from.token};
  }

  // s from q k^T, for `count` columns of a row of the gradients' squares.
  DEVICE Lanes scores(Lanes product, int row, int column, int count) const {
    const int rows = TURNED ? a.keys : a.queries, left = (TURNED ? a.queries : a.keys) - column;
    const int inside = row < rows ? at_most(count, left) : 0;
    Lanes added = lanes::fill(0.f);
    if constexpr (TURNED) {
      if (bias)
        for (int l = 0; l < inside; ++l) added = added + lanes::one_hot(l, bias[int64_t(column + l) * a.keys + row]);
    } else {
      if (bias && inside > 0) added = lanes::load(bias + int64_t(row) * a.keys + column, inside);
    }
    if (places.table && inside > 0) added = places.run(places.origin(row), column, inside);
    return lanes::fma(product, lanes::fill(a.scale), added);
  }

  // s from q k^T, for the square of the forward pass whose first row and column are query `query` and key `key`, of `keys` keys that
  // lie `offsets` bytes from the origins of the rows in the table. Rows behind the last query repeat it.
  template <class Product, class Origins>
  DEVICE void add_bias(const Block& block, Product& s, int query, int key, int keys, Origins& origins, const int* offsets) const {
    const Lanes scale = lanes::fill(a.scale);
    if (bias) {
      s.rows(block, padded(keys), [&](int, int i, const auto& part) {
        const float* row = bias + int64_t(at_most(a.queries - 1, query + i)) * a.keys + key;
        part.each([&](Lanes& v, const auto& run) { v = lanes::fma(v, scale, run.load(row, keys)); });
      });
    } else if (places.table) {
      s.rows(block, padded(keys), [&](int r, int, const auto& part) {
        const auto neighbours = [&](int j, int count) { return places.run(origins[r], key + j, at_most(count, keys - j)); };
        part.each([&](Lanes& v, const auto& run) { v = lanes::fma(v, scale, run.look_up(origins[r], offsets, neighbours)); });
      });
    } else {
      s.rows(block, padded(keys), [&](int, int, const auto& part) { part.each([&](Lanes& v, const auto&) { v = v * scale; }); });
    }
  }
};

// to = x y^T, for rows of x and y that lie in shared memory.
template <class Product, class T>
DEVICE void multiply(const Block& block, const matrix::Small<T>& x, const matrix::Small<T>& y, int depth, int columns,
                     const matrix::Small<float>& to) {
  Product product;
  product.clear();
  product.template add<T, matrix::ROWS>(block, x, y, depth, columns);
  product.store(block, to.at, to.row, columns);
}

// Tokens [first, first + count) of a view become f(i, row i of the product), by way of shared memory that is free now.
template <class T, class H, class Product, class F>
DEVICE void write(const Block& block, const H& head, const Product& product, const matrix::Small<float>& staged, const TokensView& to,
                  int first, int count, F f) {
  product.store(block, staged.at, staged.row, head.d);
  block::for_each_run(block, count, head.a.d, [&](int i, int c, int columns) {
    lanes::store(head.template at<T>(to, first + i) + c, f(i, lanes::load(staged.at + i * staged.row + c, columns)), columns);
  });
}

template <class T, int D> struct Forward {
  static constexpr bool FLOAT = sizeof(T) == 4;
  static constexpr int QUERIES = FLOAT || D == 128 ? 64 : 128, KEYS = FLOAT && D == 128 ? 32 : 64;
  using Tokens = matrix::Small<T>;
  static constexpr int Q = REDUCE_BYTES, K = Q + Tokens::bytes(QUERIES, D), V = K + Tokens::bytes(KEYS, D),
                       OFFSETS = V + Tokens::bytes(KEYS, D), BYTES = OFFSETS + KEYS * 4;
  static_assert(matrix::Small<float>::bytes(QUERIES, D) <= OFFSETS - Q, "the result passes through the memory of q, k and v");
};

template <class T> DEVICE Lanes exponential(Lanes x) {
  if constexpr (sizeof(T) == 4) return activation::exp(x);
  else return activation::exp2(x * lanes::fill(activation::LOG2_E));
}

// exp(unit * (s - top)); the unit of float32 is 1. The difference first: masks may be as large as float32 goes.
template <class T> DEVICE Lanes power(Lanes s, float top, float unit) {
  const Lanes below = s - lanes::fill(top);
  if constexpr (sizeof(T) == 4) return exponential<T>(below);
  else return activation::exp2(below * lanes::fill(unit * activation::LOG2_E));
}

// As long as a bias of -infinity hides every key there is nothing to scale down.
DEVICE float finite(float top) { return top == -INFINITY ? 0.f : top; }

template <class T, int D> DEVICE void forward(const Block& block, const AttentionArgs& a) {
  using L = Forward<T, D>;
  constexpr int QUERIES = L::QUERIES, KEYS = L::KEYS;
  const Head<T, AttentionArgs> head(block, a, a.table);
  const auto own = block::share(block.index.x, QUERIES, a.queries);
  const int depth = matrix::depth<T, D>(head.d);
  const typename L::Tokens q(block.shared + L::Q, D), k(block.shared + L::K, D), v(block.shared + L::V, D);
  const matrix::Small<float> staged(block.shared + L::Q, D);
  int* offsets = reinterpret_cast<int*>(block.shared + L::OFFSETS);
  // Products stay what they are, and scores are `unit` times as much; with a negative scale the largest product is no largest score.
  const bool plain = !L::FLOAT && !head.bias && !head.places.table && a.scale > 0;
  const float unit = plain ? a.scale : 1.f;

  auto all_k = head.template source<KEYS, D>(block, a.k, 0), all_v = head.template source<KEYS, D>(block, a.v, 0);
  head.template source<QUERIES, D>(block, a.q, own.first).fetch(block, q, own.count, a.d, QUERIES, depth);
  all_k.fetch(block, k, at_most(KEYS, a.keys), a.d, padded(at_most(KEYS, a.keys)), depth);
  matrix::PerRow<QUERIES> m, alpha;
  matrix::PerRow<QUERIES, matrix::Partial> l;  // of what this thread has of the row
  matrix::PerRow<QUERIES, const float*> origins;  // in the table of positions
  matrix::Product<QUERIES, D, 4> y;
  y.clear(own.count);
  y.rows(block, 0, [&](int r, int i, const auto&) {
    m[r] = -INFINITY, l[r] = matrix::partial(lanes::fill(0.f));
    origins[r] = head.places.table ? head.places.origin(at_most(a.queries - 1, own.first + i)) : nullptr;
  });
  for (int j0 = 0; j0 < a.keys; j0 += KEYS) {
    const int keys = at_most(KEYS, a.keys - j0), columns = padded(keys), next = at_most(KEYS, a.keys - j0 - KEYS);
    matrix::arrive(block);  // k is there, and nobody reads v any more
    all_v.fetch(block, v, keys, a.d, columns, depth);
    if (head.places.table)
      block::for_each(block, 1, KEYS, [&](int, int j) { offsets[j] = 4 * head.places.number(j0 + at_most(keys - 1, j)); });
    matrix::Product<QUERIES, KEYS, 4> s;
    s.clear(own.count);
    s.template multiply<T, matrix::ROWS>(block, q, k, depth, columns);
    matrix::arrive(block);  // v is there, and nobody reads k any more
    if (next > 0) all_k.fetch(block, k, next, a.d, padded(next), depth);

    if (!plain) head.add_bias(block, s, own.first, j0, keys, origins, offsets);
    if (keys < KEYS)
      s.rows(block, columns, [&](int, int, const auto& part) {
        part.each([&](Lanes& v, const auto& run) { v = lanes::select(run.below(keys), v, lanes::fill(-INFINITY)); });
      });
    s.rows(block, columns, [&](int r, int, const auto& part) {
      const Lanes tops = matrix::fold(part, [](Lanes&) {}, [](Lanes x, Lanes y) { return lanes::larger(x, y); });
      const float top = lanes::larger(m[r], matrix::larger(lanes::larger(tops)));
      alpha[r] = j0 ? lanes::first(power<T>(lanes::fill(m[r]), finite(top), unit)) : 0.f;
      m[r] = top;
    });
    // Of each row on its own: where rows are walked over, the next one's exponentials do not wait for this one's maximum.
    s.rows(block, columns, [&](int r, int, const auto& part) {
      const float from = finite(m[r]);
      const Lanes sum = matrix::fold(part, [&](Lanes& v) { v = power<T>(v, from, unit); }, [](Lanes x, Lanes y) { return x + y; });
      l[r] = matrix::partial(sum, l[r], alpha[r]);
    });
    if (j0)
      y.rows(block, depth, [&](int r, int, const auto& part) {
        part.each([&](Lanes& v, const auto&) { v = v * lanes::fill(alpha[r]); });
      });
    y.template add_product<T>(block, s, v, columns, depth);
  }
  float* lse = a.lse + 2 * head.row(own.first);
  y.rows(block, depth, [&](int r, int i, const auto& part) {
    const float inverse = 1.f / matrix::total(l[r]);
    part.each([&](Lanes& v, const auto&) { v = v * lanes::fill(inverse); });
    if (matrix::is_first(block) && i < own.count) lse[2 * i] = m[r] * unit, lse[2 * i + 1] = inverse;
  });
  matrix::arrive(block);  // nobody reads v any more
  write<T>(block, head, y, staged, a.y, own.first, own.count, [](int, Lanes v) { return v; });
}

// Both gradients hold a square of B queries and B keys.
template <class T, int D> struct Backward {
  static constexpr int B = sizeof(T) == 2 && D == 64 ? 64 : 32, WARPS_M = B / 16 < 4 ? 2 : 4;
  using Tokens = matrix::Small<T>;
  using Scores = matrix::Small<float>;
  using Square = matrix::Product<B, B, WARPS_M>;
  static constexpr bool IN_PLACE = sizeof(typename Tokens::Element) == 4;  // p lies where s lay, ds where dp lay
  static constexpr int SQUARE = Scores::bytes(B, B), ROUNDED = IN_PLACE ? 0 : Tokens::bytes(B, B);
  static constexpr int FIRST = REDUCE_BYTES, TOKENS = Tokens::bytes(B, D), S = FIRST + 4 * TOKENS, DP = S + SQUARE, P = DP + SQUARE,
                       DS = P + ROUNDED, ROWS = DS + ROUNDED, BYTES = ROWS + 3 * B * 4;
  static_assert(Scores::bytes(B, D) <= 2 * TOKENS, "a result passes through the memory of two operands");
};

template <class T, int D> DEVICE void query_gradient(const Block& block, const AttentionGradArgs& a) {
  using L = Backward<T, D>;
  const Head<T, AttentionGradArgs> head(block, a, a.table);
  const auto own = block::share(block.index.x, L::B, a.queries);
  unsigned char* memory = block.shared + L::FIRST;
  const typename L::Tokens k(memory, D), v(memory + L::TOKENS, D), q(memory + 2 * L::TOKENS, D), dy(memory + 3 * L::TOKENS, D);
  const typename L::Tokens ds(block.shared + (L::IN_PLACE ? L::DP : L::DS), L::B);
  const typename L::Scores s(block.shared + L::S, L::B), dp(block.shared + L::DP, L::B), staged(memory, D);
  float *m = reinterpret_cast<float*>(block.shared + L::ROWS), *inv_l = m + L::B, *delta = inv_l + L::B;
  const int64_t row0 = head.row(own.first);

  head.load(block, q, a.q, own.first, own.count, L::B);
  head.load(block, dy, a.dy, own.first, own.count, L::B);
  block::for_each(block, 1, L::B, [&](int, int i) {
    m[i] = i < own.count ? a.lse[2 * (row0 + i)] : 0.f;
    inv_l[i] = i < own.count ? a.lse[2 * (row0 + i) + 1] : 0.f;
    delta[i] = 0;
  });
  block::fold_rows(
      block, own.count, a.d,
      fold::Rows{
          fold::Start{lanes::fill(0.f)},
          fold::Step{[&](Lanes& sum, int i, int c, int count) {
            const Lanes y = lanes::load(head.at(a.y, own.first + i) + c, count);
            sum = lanes::fma(y, lanes::load(head.at(a.dy, own.first + i) + c, count), sum);
          }},
          fold::Collapse{[](const Lanes& sum) { return lanes::sum(sum); }},
          fold::Merge{[](float& x, float other) { x += other; }},
          fold::Finish{[&](int i, float sum) { delta[i] = a.delta[row0 + i] = sum; }},
      });
  matrix::Product<L::B, D, L::WARPS_M> dq;
  dq.clear();
  for (int j0 = 0; j0 < a.keys; j0 += L::B) {
    const int keys = at_most(L::B, a.keys - j0), columns = padded(keys);
    head.load(block, k, a.k, j0, keys, columns);
    head.load(block, v, a.v, j0, keys, columns);
    multiply<typename L::Square>(block, q, k, head.d, columns, s);
    multiply<typename L::Square>(block, dy, v, head.d, columns, dp);
    block::for_each_run(block, L::B, columns, [&](int i, int j, int count) {
      const Lanes score = head.scores(lanes::load(s.at + i * s.row + j, count), own.first + i, j0 + j, count);
      const Lanes p = exponential<T>(score - lanes::fill(m[i])) * lanes::fill(inv_l[i]);
      const Lanes v = p * (lanes::load(dp.at + i * dp.row + j, count) - lanes::fill(delta[i]));
      lanes::store(ds.at + i * ds.row + j, lanes::head(v, keys - j), count);
    });
    dq.template add<T, matrix::COLUMNS>(block, ds, k, columns, head.d);
  }
  write<T>(block, head, dq, staged, a.dq, own.first, own.count, [&](int, Lanes v) { return v * lanes::fill(a.scale); });
}

template <class T, int D> DEVICE void key_gradient(const Block& block, const AttentionGradArgs& a) {
  using L = Backward<T, D>;
  const Head<T, AttentionGradArgs, true> head(block, a, a.turned);
  const auto own = block::share(block.index.x, L::B, a.keys);
  unsigned char* memory = block.shared + L::FIRST;
  const typename L::Tokens q(memory, D), dy(memory + L::TOKENS, D), k(memory + 2 * L::TOKENS, D), v(memory + 3 * L::TOKENS, D);
  const typename L::Tokens p(block.shared + (L::IN_PLACE ? L::S : L::P), L::B), ds(block.shared + (L::IN_PLACE ? L::DP : L::DS), L::B);
  const typename L::Scores s(block.shared + L::S, L::B), dp(block.shared + L::DP, L::B), staged(memory, D);
  float *m = reinterpret_cast<float*>(block.shared + L::ROWS), *inv_l = m + L::B, *delta = inv_l + L::B;

  head.load(block, k, a.k, own.first, own.count, L::B);
  head.load(block, v, a.v, own.first, own.count, L::B);
  matrix::Product<L::B, D, L::WARPS_M> dk, dv;
  dk.clear();
  dv.clear();
  for (int i0 = 0; i0 < a.queries; i0 += L::B) {
    const int queries = at_most(L::B, a.queries - i0), columns = padded(queries);
    head.load(block, q, a.q, i0, queries, columns);
    head.load(block, dy, a.dy, i0, queries, columns);
    block::for_each(block, 1, L::B, [&](int, int i) {
      m[i] = i < queries ? a.lse[2 * head.row(i0 + i)] : 0.f;
      inv_l[i] = i < queries ? a.lse[2 * head.row(i0 + i) + 1] : 0.f;
      delta[i] = i < queries ? a.delta[head.row(i0 + i)] : 0.f;
    });
    multiply<typename L::Square>(block, k, q, head.d, columns, s);
    multiply<typename L::Square>(block, v, dy, head.d, columns, dp);
    // Row j is a key, column i a query. Columns behind the last query multiply rows of zeros.
    block::for_each_run(block, L::B, columns, [&](int j, int i, int count) {
      const Lanes score = head.scores(lanes::load(s.at + j * s.row + i, count), own.first + j, i0 + i, count);
      const Lanes p_ij = exponential<T>(score - lanes::load(m + i, count)) * lanes::load(inv_l + i, count);
      const Lanes v = p_ij * (lanes::load(dp.at + j * dp.row + i, count) - lanes::load(delta + i, count));
      lanes::store(p.at + j * p.row + i, p_ij, count);
      lanes::store(ds.at + j * ds.row + i, v, count);
    });
    dv.template add<T, matrix::COLUMNS>(block, p, dy, columns, head.d);
    dk.template add<T, matrix::COLUMNS>(block, ds, q, columns, head.d);
  }
  write<T>(block, head, dv, staged, a.dv, own.first, own.count, [](int, Lanes v) { return v; });
  write<T>(block, head, dk, staged, a.dk, own.first, own.count, [&](int, Lanes v) { return v * lanes::fill(a.scale); });
}

}  // namespace attention

// grid (ceil(queries / Q), heads, batch); Q is 128 for bf16_32 and bf16_64, else 64
KERNEL(attention_f32_64, AttentionArgs, 128, 52736) { attention::forward<float, 64>(block, a); }
KERNEL(attention_f32_128, AttentionArgs, 128, 67968) { attention::forward<float, 128>(block, a); }
KERNEL(attention_bf16_32, AttentionArgs, 128, 20992) { attention::forward<bf16, 32>(block, a); }
KERNEL(attention_bf16_64, AttentionArgs, 128, 37376) { attention::forward<bf16, 64>(block, a); }
KERNEL(attention_bf16_128, AttentionArgs, 128, 52736) { attention::forward<bf16, 128>(block, a); }

// grid (ceil(queries / B), heads, batch); B is 64 for bf16_64, else 32
KERNEL(attention_query_grad_f32_64, AttentionGradArgs, 128, 44672) { attention::query_gradient<float, 64>(block, a); }
KERNEL(attention_query_grad_f32_128, AttentionGradArgs, 128, 77440) { attention::query_gradient<float, 128>(block, a); }
KERNEL(attention_query_grad_bf16_64, AttentionGradArgs, 128, 91136) { attention::query_gradient<bf16, 64>(block, a); }
KERNEL(attention_query_grad_bf16_128, AttentionGradArgs, 128, 49792) { attention::query_gradient<bf16, 128>(block, a); }

// grid (ceil(keys / B), heads, batch), after the gradient of the queries, which leaves delta
KERNEL(attention_key_grad_f32_64, AttentionGradArgs, 128, 44672) { attention::key_gradient<float, 64>(block, a); }
KERNEL(attention_key_grad_f32_128, AttentionGradArgs, 128, 77440) { attention::key_gradient<float, 128>(block, a); }
KERNEL(attention_key_grad_bf16_64, AttentionGradArgs, 128, 91136) { attention::key_gradient<bf16, 64>(block, a); }
KERNEL(attention_key_grad_bf16_128, AttentionGradArgs, 128, 49792) { attention::key_gradient<bf16, 128>(block, a); }

namespace attention {
static_assert(matrix::fits(Forward<float, 64>::BYTES, 52736) && matrix::fits(Forward<float, 128>::BYTES, 67968) &&
                  matrix::fits(Forward<bf16, 32>::BYTES, 20992) && matrix::fits(Forward<bf16, 64>::BYTES, 37376) &&
                  matrix::fits(Forward<bf16, 128>::BYTES, 52736) &&
                  matrix::fits(Backward<float, 64>::BYTES, 44672) && matrix::fits(Backward<float, 128>::BYTES, 77440) &&
                  matrix::fits(Backward<bf16, 64>::BYTES, 91136) && matrix::fits(Backward<bf16, 128>::BYTES, 49792),
              "shared bytes of the KERNEL lines serve their layouts");
}  // namespace attention
