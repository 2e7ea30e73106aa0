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
// and in the end y = y / l. Where FlashAttention keeps lse = m + log l of every query, this keeps both numbers, m and 1/l, for the
// sum would lose digits where scores are large. The gradients rebuild p = exp(s - m) / l; dq walks over keys, dk and dv over queries,
// so that every output has one writer and nothing is added atomically.
//
// q, k, v and their gradients are views (TokensView), so that they may be parts of one tensor (N, T, 3 C). Head sizes up to 128.
// float32 or bf16; s, p, m, l and all sums in float32, p and ds rounded to the precision of v and k where these are multiplied.
// Sources: Milakov & Gimelshein 2018; Dao et al. 2022.
#include "activation.cuh"
#include "matrix.cuh"

namespace attention {

DEVICE int padded(int v) { return (v + 15) / 16 * 16; }

// Lane l is -infinity from `left` on: what no key stands behind.
DEVICE Lanes masked(Lanes v, int left) {
  return left < lanes::SIZE ? lanes::select((1u << (left < 0 ? 0 : left)) - 1, v, lanes::fill(-INFINITY)) : v;
}

// What is added to a score for the places of its two tokens on a map of h x w, row by row.
struct Places {
  const float* table;  // of one head: (2 h - 1, 2 w - 1), by the place of the second token less that of the first; may be null
  Divisor w;
  int h;

  // For `count` second tokens from `other` on. Where these go on in the next row of the map, they go on in the next row of the table,
  // which for the same place is w - 1 further from the start of the run.
  DEVICE Lanes run(int token, int other, int count) const {
    const int width = w.value, y = divide(token, w), x = token - y * width, other_y = divide(other, w), other_x = other - other_y * width;
    const float* at = table + (other_y - y + h - 1) * (2 * width - 1) + other_x - x + width - 1;
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

  // s from q k^T, for `count` columns of a row: the only place that knows what a score is.
  DEVICE Lanes scores(Lanes product, int row, int column, int count) const {
    const int rows = TURNED ? a.keys : a.queries, left = (TURNED ? a.queries : a.keys) - column;
    Lanes s = product * lanes::fill(a.scale);
    const int inside = row < rows ? at_most(count, left) : 0;
    if constexpr (TURNED) {
      if (bias)
        for (int l = 0; l < inside; ++l) s = s + lanes::one_hot(l, bias[int64_t(column + l) * a.keys + row]);
    } else {
      if (bias && inside > 0) s = s + lanes::load(bias + int64_t(row) * a.keys + column, inside);
    }
    if (places.table && inside > 0) s = s + places.run(row, column, inside);
    return s;
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
  static constexpr int QUERIES = 64, KEYS = 64;
  using Tokens = matrix::Small<T>;
  using Scores = matrix::Small<float>;
  static constexpr int Q = REDUCE_BYTES, KV = Q + Tokens::bytes(QUERIES, D), S = KV + Tokens::bytes(KEYS, D),
                       P = sizeof(typename Tokens::Element) == 4 ? S : S + Scores::bytes(QUERIES, KEYS),
                       ROWS = P + Tokens::bytes(QUERIES, KEYS), BYTES = ROWS + 3 * QUERIES * 4;
  static_assert(Scores::bytes(QUERIES, D) <= S - Q, "the result passes through the memory of q and k");
};

template <class T, int D> DEVICE void forward(const Block& block, const AttentionArgs& a) {
  using L = Forward<T, D>;
  const Head<T, AttentionArgs> head(block, a, a.table);
  const auto own = block::share(block.index.x, L::QUERIES, a.queries);
  const typename L::Tokens q(block.shared + L::Q, D), kv(block.shared + L::KV, D), p(block.shared + L::P, L::KEYS);
  const typename L::Scores s(block.shared + L::S, L::KEYS), staged(block.shared + L::Q, D);
  float *m = reinterpret_cast<float*>(block.shared + L::ROWS), *l = m + L::QUERIES, *alpha = l + L::QUERIES;

  head.load(block, q, a.q, own.first, own.count, L::QUERIES);
  block::for_each(block, 1, L::QUERIES, [&](int, int i) { m[i] = -INFINITY, l[i] = 0; });
  matrix::Product<L::QUERIES, D, 4> y;
  y.clear();
  for (int j0 = 0; j0 < a.keys; j0 += L::KEYS) {
    const int keys = at_most(L::KEYS, a.keys - j0), columns = padded(keys);
    head.load(block, kv, a.k, j0, keys, columns);
    multiply<matrix::Product<L::QUERIES, L::KEYS, 4>>(block, q, kv, head.d, columns, s);
    head.load(block, kv, a.v, j0, keys, columns);
    block::fold_rows(
        block, L::QUERIES, columns,
        fold::Rows{
            fold::Start{lanes::fill(-INFINITY)},
            // `head` by value: through a reference the host would read it again after every store.
            fold::Step{[&, head](Lanes& top, int i, int j, int count) {
              float* at = s.at + i * s.row + j;
              const Lanes v = masked(head.scores(lanes::load(at, count), own.first + i, j0 + j, count), keys - j);
              lanes::store(at, v, count);
              top = lanes::maximum(top, v);
            }},
            fold::Collapse{[](const Lanes& top) { return lanes::largest(top); }},
            fold::Merge{[](float& x, float other) { x = x > other ? x : other; }},
            fold::Finish{[&](int i, float top) {
              const float now = top > m[i] ? top : m[i];
              // As long as a bias of -infinity hides every key there is nothing to scale down.
              alpha[i] = now == m[i] ? 1.f : lanes::first(activation::exp(lanes::fill(m[i] - now)));
              m[i] = now;
            }},
        });
    block::fold_rows(
        block, L::QUERIES, columns,
        fold::Rows{
            fold::Start{lanes::fill(0.f)},
            fold::Step{[&](Lanes& sum, int i, int j, int count) {
              const float top = m[i] == -INFINITY ? 0.f : m[i];
              const Lanes v = lanes::head(activation::exp(lanes::load(s.at + i * s.row + j, count) - lanes::fill(top)), keys - j);
              lanes::store(p.at + i * p.row + j, v, count);
              sum = sum + v;
            }},
            fold::Collapse{[](const Lanes& sum) { return lanes::sum(sum); }},
            fold::Merge{[](float& x, float other) { x += other; }},
            fold::Finish{[&](int i, float sum) { l[i] = l[i] * alpha[i] + sum; }},
        });
    y.scale_rows(block, alpha, head.d);
    y.template add<T, matrix::COLUMNS>(block, p, kv, columns, head.d);
  }
  write<T>(block, head, y, staged, a.y, own.first, own.count, [&](int i, Lanes v) { return v / lanes::fill(l[i]); });
  float* lse = a.lse + 2 * head.row(own.first);
  block::for_each(block, 1, own.count, [&](int, int i) { lse[2 * i] = m[i], lse[2 * i + 1] = 1.f / l[i]; });
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
      const Lanes p = activation::exp(score - lanes::fill(m[i])) * lanes::fill(inv_l[i]);
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
      const Lanes power = activation::exp(score - lanes::load(m + i, count)) * lanes::load(inv_l + i, count);
      const Lanes v = power * (lanes::load(dp.at + j * dp.row + i, count) - lanes::load(delta + i, count));
      lanes::store(p.at + j * p.row + i, power, count);
      lanes::store(ds.at + j * ds.row + i, v, count);
    });
    dv.template add<T, matrix::COLUMNS>(block, p, dy, columns, head.d);
    dk.template add<T, matrix::COLUMNS>(block, ds, q, columns, head.d);
  }
  write<T>(block, head, dv, staged, a.dv, own.first, own.count, [](int, Lanes v) { return v; });
  write<T>(block, head, dk, staged, a.dk, own.first, own.count, [&](int, Lanes v) { return v * lanes::fill(a.scale); });
}

}  // namespace attention

// grid (ceil(queries / 64), heads, batch)
KERNEL(attention_f32_64, AttentionArgs, 128, 53248) { attention::forward<float, 64>(block, a); }
KERNEL(attention_f32_128, AttentionArgs, 128, 86016) { attention::forward<float, 128>(block, a); }
KERNEL(attention_bf16_64, AttentionArgs, 128, 46336) { attention::forward<bf16, 64>(block, a); }
KERNEL(attention_bf16_128, AttentionArgs, 128, 62720) { attention::forward<bf16, 128>(block, a); }

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
static_assert(matrix::fits(Forward<float, 64>::BYTES, 53248) && matrix::fits(Forward<float, 128>::BYTES, 86016) &&
                  matrix::fits(Forward<bf16, 64>::BYTES, 46336) && matrix::fits(Forward<bf16, 128>::BYTES, 62720) &&
                  matrix::fits(Backward<float, 64>::BYTES, 44672) && matrix::fits(Backward<float, 128>::BYTES, 77440) &&
                  matrix::fits(Backward<bf16, 64>::BYTES, 91136) && matrix::fits(Backward<bf16, 128>::BYTES, 49792),
              "shared bytes of the KERNEL lines serve their layouts");
}  // namespace attention
