// Scaled dot-product attention with an additive bias, forward and the gradients of q, k and v. The matrix of scores exists only a
// square at a time.
//
//   s = scale * q k^T + bias + table[place of k - place of q]      p = softmax(s) over the keys      y = p v
//   dv = p^T dy      ds = p * (dy v^T - delta),  delta = sum(y * dy) per query      dq = scale * ds k      dk = scale * ds^T q
//
// The forward pass walks over the keys with a running maximum and sum (Milakov & Gimelshein 2018; Dao et al. 2022) and keeps two
// numbers per query: the maximum and 1/sum, for the log of the sum alone would lose digits where scores are large. The gradients
// rebuild p = exp(s - maximum) / sum; dq walks over keys, dk and dv over queries, so that every output has one writer and nothing is
// added atomically.
//
// q, k, v and their gradients are views (TokensView), so that they may be parts of one tensor (N, T, 3 C). Head sizes up to 128.
#include "activation.cuh"
#include "matrix.cuh"

namespace attention {

template <class T> DEVICE T* at(const TokensView& v, int batch, int head, int token) {
  return reinterpret_cast<T*>(v.at) + batch * v.batch + head * v.head + token * v.token;
}

DEVICE int at_most(int limit, int v) { return v < limit ? v : limit; }
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

template <class A> DEVICE Places places(const A& a, const float* table, int head) {
  const int size = (2 * a.map_h - 1) * (2 * int(a.map_w.value) - 1);
  return {table ? table + int64_t(head) * size : nullptr, a.map_w, a.map_h};
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
  const int batch = block.index.z, head = block.index.y, i0 = block.index.x * L::QUERIES, rows = at_most(L::QUERIES, a.n - i0);
  const typename L::Tokens q(block.shared + L::Q, D), kv(block.shared + L::KV, D), p(block.shared + L::P, L::KEYS);
  const typename L::Scores s(block.shared + L::S, L::KEYS), staged(block.shared + L::Q, D);
  float *most = reinterpret_cast<float*>(block.shared + L::ROWS), *total = most + L::QUERIES, *shrink = total + L::QUERIES;
  const float* bias = a.bias ? a.bias + batch * a.bias_batch + (int64_t(head) * a.n + i0) * a.m : nullptr;
  const Places place = places(a, a.table, head);
  const int d = padded(a.d);

  matrix::load(block, q, at<const T>(a.q, batch, head, i0), a.q.token, rows, a.d, L::QUERIES, d);
  block::for_each(block, 1, L::QUERIES, [&](int, int i) { most[i] = -INFINITY, total[i] = 0; });
  matrix::Product<L::QUERIES, D, 4> y;
  y.clear();
  for (int j0 = 0; j0 < a.m; j0 += L::KEYS) {
    const int keys = at_most(L::KEYS, a.m - j0), depth = padded(keys);
    matrix::load(block, kv, at<const T>(a.k, batch, head, j0), a.k.token, keys, a.d, depth, d);
    {
      matrix::Product<L::QUERIES, L::KEYS, 4> scores;
      scores.clear();
      scores.template add<T, matrix::ROWS>(block, q, kv, d, depth);
      scores.store(block, s.at, s.row, depth);
    }
    matrix::load(block, kv, at<const T>(a.v, batch, head, j0), a.v.token, keys, a.d, depth, d);
    block::fold_rows(
        block, L::QUERIES, depth, lanes::fill(-INFINITY),
        [&](Lanes& top, int i, int j, int count) {
          Lanes v = lanes::load(s.at + i * s.row + j, count) * lanes::fill(a.scale);
          if (bias && i < rows && j < keys) v = v + lanes::load(bias + int64_t(i) * a.m + j0 + j, at_most(count, keys - j));
          if (place.table && i < rows && j < keys) v = v + place.run(i0 + i, j0 + j, at_most(count, keys - j));
          v = masked(v, keys - j);
          lanes::store(s.at + i * s.row + j, v, count);
          top = lanes::maximum(top, v);
        },
        [](const Lanes& top) { return lanes::largest(top); }, [](float& x, float other) { x = x > other ? x : other; },
        [&](int i, float top) {
          const float now = top > most[i] ? top : most[i];
          // As long as a bias of -infinity hides every key there is nothing to shrink.
          shrink[i] = now == most[i] ? 1.f : lanes::first(activation::exp(lanes::fill(most[i] - now)));
          most[i] = now;
        });
    block::fold_rows(
        block, L::QUERIES, depth, lanes::fill(0.f),
        [&](Lanes& sum, int i, int j, int count) {
          const float top = most[i] == -INFINITY ? 0.f : most[i];
          const Lanes v = lanes::head(activation::exp(lanes::load(s.at + i * s.row + j, count) - lanes::fill(top)), keys - j);
          lanes::store(p.at + i * p.row + j, v, count);
          sum = sum + v;
        },
        [](const Lanes& sum) { return lanes::sum(sum); }, [](float& x, float other) { x += other; },
        [&](int i, float sum) { total[i] = total[i] * shrink[i] + sum; });
    y.scale_rows(block, shrink, d);
    y.template add<T, matrix::COLUMNS>(block, p, kv, depth, d);
  }
  y.store(block, staged.at, staged.row, d);
  block::for_each_run(block, rows, a.d, [&](int i, int c, int count) {
    lanes::store(at<T>(a.y, batch, head, i0 + i) + c, lanes::load(staged.at + i * staged.row + c, count) / lanes::fill(total[i]), count);
  });
  float* kept = a.kept + ((int64_t(batch) * a.heads + head) * a.n + i0) * 2;
  block::for_each(block, 1, rows, [&](int, int i) { kept[2 * i] = most[i], kept[2 * i + 1] = 1.f / total[i]; });
}

// Both gradients hold a square of B queries and B keys.
template <class T, int D> struct Backward {
  static constexpr int B = sizeof(T) == 2 && D == 64 ? 64 : 32, WARPS_M = B / 16 < 4 ? 2 : 4;
  using Tokens = matrix::Small<T>;
  using Scores = matrix::Small<float>;
  static constexpr bool IN_PLACE = sizeof(typename Tokens::Element) == 4;
  static constexpr int SQUARE = Scores::bytes(B, B), ROUNDED = IN_PLACE ? 0 : Tokens::bytes(B, B);
  static constexpr int FIRST = REDUCE_BYTES, TOKENS = Tokens::bytes(B, D), S = FIRST + 4 * TOKENS, DP = S + SQUARE, P = DP + SQUARE,
                       DS = P + ROUNDED, ROWS = DS + ROUNDED, BYTES = ROWS + 3 * B * 4;
  static_assert(Scores::bytes(B, D) <= 2 * TOKENS, "a result passes through the memory of two operands");
};

template <class T, int D> DEVICE void query_gradient(const Block& block, const AttentionGradArgs& a) {
  using L = Backward<T, D>;
  const int batch = block.index.z, head = block.index.y, i0 = block.index.x * L::B, rows = at_most(L::B, a.n - i0);
  unsigned char* memory = block.shared + L::FIRST;
  const typename L::Tokens k(memory, D), v(memory + L::TOKENS, D), q(memory + 2 * L::TOKENS, D), dy(memory + 3 * L::TOKENS, D);
  const typename L::Tokens ds(block.shared + (L::IN_PLACE ? L::DP : L::DS), L::B);
  const typename L::Scores s(block.shared + L::S, L::B), dp(block.shared + L::DP, L::B), staged(memory, D);
  float *most = reinterpret_cast<float*>(block.shared + L::ROWS), *inverse = most + L::B, *delta = inverse + L::B;
  const int64_t first = (int64_t(batch) * a.heads + head) * a.n + i0;
  const float* bias = a.bias ? a.bias + batch * a.bias_batch + (int64_t(head) * a.n + i0) * a.m : nullptr;
  const Places place = places(a, a.table, head);
  const int d = padded(a.d);

  matrix::load(block, q, at<const T>(a.q, batch, head, i0), a.q.token, rows, a.d, L::B, d);
  matrix::load(block, dy, at<const T>(a.dy, batch, head, i0), a.dy.token, rows, a.d, L::B, d);
  block::for_each(block, 1, L::B, [&](int, int i) {
    most[i] = i < rows ? a.kept[2 * (first + i)] : 0.f;
    inverse[i] = i < rows ? a.kept[2 * (first + i) + 1] : 0.f;
    delta[i] = 0;
  });
  block::fold_rows(
      block, rows, a.d, lanes::fill(0.f),
      [&](Lanes& sum, int i, int c, int count) {
        const Lanes y = lanes::load(at<const T>(a.y, batch, head, i0 + i) + c, count);
        sum = lanes::fma(y, lanes::load(at<const T>(a.dy, batch, head, i0 + i) + c, count), sum);
      },
      [](const Lanes& sum) { return lanes::sum(sum); }, [](float& x, float other) { x += other; },
      [&](int i, float sum) { delta[i] = a.delta[first + i] = sum; });
  matrix::Product<L::B, D, L::WARPS_M> dq;
  dq.clear();
  for (int j0 = 0; j0 < a.m; j0 += L::B) {
    const int keys = at_most(L::B, a.m - j0), depth = padded(keys);
    matrix::load(block, k, at<const T>(a.k, batch, head, j0), a.k.token, keys, a.d, depth, d);
    matrix::load(block, v, at<const T>(a.v, batch, head, j0), a.v.token, keys, a.d, depth, d);
    {
      matrix::Product<L::B, L::B, L::WARPS_M> product;
      product.clear();
      product.template add<T, matrix::ROWS>(block, q, k, d, depth);
      product.store(block, s.at, s.row, depth);
      product.clear();
      product.template add<T, matrix::ROWS>(block, dy, v, d, depth);
      product.store(block, dp.at, dp.row, depth);
    }
    block::for_each_run(block, L::B, depth, [&](int i, int j, int count) {
      Lanes x = lanes::load(s.at + i * s.row + j, count) * lanes::fill(a.scale);
      if (bias && i < rows && j < keys) x = x + lanes::load(bias + int64_t(i) * a.m + j0 + j, at_most(count, keys - j));
      if (place.table && i < rows && j < keys) x = x + place.run(i0 + i, j0 + j, at_most(count, keys - j));
      const Lanes p = activation::exp(x - lanes::fill(most[i])) * lanes::fill(inverse[i]);
      const Lanes v = p * (lanes::load(dp.at + i * dp.row + j, count) - lanes::fill(delta[i]));
      lanes::store(ds.at + i * ds.row + j, lanes::head(v, keys - j), count);
    });
    dq.template add<T, matrix::COLUMNS>(block, ds, k, depth, d);
  }
  dq.store(block, staged.at, staged.row, d);
  block::for_each_run(block, rows, a.d, [&](int i, int c, int count) {
    lanes::store(at<T>(a.dq, batch, head, i0 + i) + c, lanes::load(staged.at + i * staged.row + c, count) * lanes::fill(a.scale), count);
  });
}

template <class T, int D> DEVICE void key_gradient(const Block& block, const AttentionGradArgs& a) {
  using L = Backward<T, D>;
  const int batch = block.index.z, head = block.index.y, j0 = block.index.x * L::B, keys = at_most(L::B, a.m - j0);
  unsigned char* memory = block.shared + L::FIRST;
  const typename L::Tokens q(memory, D), dy(memory + L::TOKENS, D), k(memory + 2 * L::TOKENS, D), v(memory + 3 * L::TOKENS, D);
  const typename L::Tokens p(block.shared + (L::IN_PLACE ? L::S : L::P), L::B), ds(block.shared + (L::IN_PLACE ? L::DP : L::DS), L::B);
  const typename L::Scores s(block.shared + L::S, L::B), dp(block.shared + L::DP, L::B), staged(memory, D);
  float *most = reinterpret_cast<float*>(block.shared + L::ROWS), *inverse = most + L::B, *delta = inverse + L::B;
  const int64_t row0 = (int64_t(batch) * a.heads + head) * a.n;
  const float* bias = a.bias ? a.bias + batch * a.bias_batch + int64_t(head) * a.n * a.m + j0 : nullptr;
  const Places place = places(a, a.turned, head);
  const int d = padded(a.d);

  matrix::load(block, k, at<const T>(a.k, batch, head, j0), a.k.token, keys, a.d, L::B, d);
  matrix::load(block, v, at<const T>(a.v, batch, head, j0), a.v.token, keys, a.d, L::B, d);
  matrix::Product<L::B, D, L::WARPS_M> dk, dv;
  dk.clear();
  dv.clear();
  for (int i0 = 0; i0 < a.n; i0 += L::B) {
    const int queries = at_most(L::B, a.n - i0), depth = padded(queries);
    matrix::load(block, q, at<const T>(a.q, batch, head, i0), a.q.token, queries, a.d, depth, d);
    matrix::load(block, dy, at<const T>(a.dy, batch, head, i0), a.dy.token, queries, a.d, depth, d);
    block::for_each(block, 1, L::B, [&](int, int i) {
      most[i] = i < queries ? a.kept[2 * (row0 + i0 + i)] : 0.f;
      inverse[i] = i < queries ? a.kept[2 * (row0 + i0 + i) + 1] : 0.f;
      delta[i] = i < queries ? a.delta[row0 + i0 + i] : 0.f;
    });
    {
      matrix::Product<L::B, L::B, L::WARPS_M> product;
      product.clear();
      product.template add<T, matrix::ROWS>(block, k, q, d, depth);
      product.store(block, s.at, s.row, depth);
      product.clear();
      product.template add<T, matrix::ROWS>(block, v, dy, d, depth);
      product.store(block, dp.at, dp.row, depth);
    }
    // Row j is a key, column i a query. Columns behind the last query multiply rows of zeros.
    block::for_each_run(block, L::B, depth, [&](int j, int i, int count) {
      Lanes x = lanes::load(s.at + j * s.row + i, count) * lanes::fill(a.scale);
      if (bias && j < keys)
        for (int l = 0; l < count && i + l < queries; ++l) x = x + lanes::one_hot(l, bias[int64_t(i0 + i + l) * a.m + j]);
      if (place.table && j < keys && i < queries) x = x + place.run(j0 + j, i0 + i, at_most(count, queries - i));
      const Lanes power = activation::exp(x - lanes::load(most + i, count)) * lanes::load(inverse + i, count);
      const Lanes v = power * (lanes::load(dp.at + j * dp.row + i, count) - lanes::load(delta + i, count));
      lanes::store(p.at + j * p.row + i, power, count);
      lanes::store(ds.at + j * ds.row + i, v, count);
    });
    dv.template add<T, matrix::COLUMNS>(block, p, dy, depth, d);
    dk.template add<T, matrix::COLUMNS>(block, ds, q, depth, d);
  }
  dv.store(block, staged.at, staged.row, d);
  block::for_each_run(block, keys, a.d, [&](int j, int c, int count) {
    lanes::store(at<T>(a.dv, batch, head, j0 + j) + c, lanes::load(staged.at + j * staged.row + c, count), count);
  });
  dk.store(block, staged.at, staged.row, d);
  block::for_each_run(block, keys, a.d, [&](int j, int c, int count) {
    lanes::store(at<T>(a.dk, batch, head, j0 + j) + c, lanes::load(staged.at + j * staged.row + c, count) * lanes::fill(a.scale), count);
  });
}

}  // namespace attention

// grid (ceil(n / 64), heads, batch)
KERNEL(attention_f32_64, AttentionArgs, 128, 53248) { attention::forward<float, 64>(block, a); }
KERNEL(attention_f32_128, AttentionArgs, 128, 86016) { attention::forward<float, 128>(block, a); }
KERNEL(attention_bf16_64, AttentionArgs, 128, 46336) { attention::forward<bf16, 64>(block, a); }
KERNEL(attention_bf16_128, AttentionArgs, 128, 62720) { attention::forward<bf16, 128>(block, a); }

// grid (ceil(n / B), heads, batch); B is 64 for bf16_64, else 32
KERNEL(attention_query_grad_f32_64, AttentionGradArgs, 128, 44672) { attention::query_gradient<float, 64>(block, a); }
KERNEL(attention_query_grad_f32_128, AttentionGradArgs, 128, 77440) { attention::query_gradient<float, 128>(block, a); }
KERNEL(attention_query_grad_bf16_64, AttentionGradArgs, 128, 91136) { attention::query_gradient<bf16, 64>(block, a); }
KERNEL(attention_query_grad_bf16_128, AttentionGradArgs, 128, 49792) { attention::query_gradient<bf16, 128>(block, a); }

// grid (ceil(m / B), heads, batch), after the gradient of the queries, which leaves delta
KERNEL(attention_key_grad_f32_64, AttentionGradArgs, 128, 44672) { attention::key_gradient<float, 64>(block, a); }
KERNEL(attention_key_grad_f32_128, AttentionGradArgs, 128, 77440) { attention::key_gradient<float, 128>(block, a); }
KERNEL(attention_key_grad_bf16_64, AttentionGradArgs, 128, 91136) { attention::key_gradient<bf16, 64>(block, a); }
KERNEL(attention_key_grad_bf16_128, AttentionGradArgs, 128, 49792) { attention::key_gradient<bf16, 128>(block, a); }

#if TARGET_CUDA
static_assert(attention::Forward<float, 64>::BYTES <= 53248 && attention::Forward<float, 128>::BYTES <= 86016);
static_assert(attention::Forward<bf16, 64>::BYTES <= 46336 && attention::Forward<bf16, 128>::BYTES <= 62720);
static_assert(attention::Backward<float, 64>::BYTES <= 44672 && attention::Backward<float, 128>::BYTES <= 77440);
static_assert(attention::Backward<bf16, 64>::BYTES <= 91136 && attention::Backward<bf16, 128>::BYTES <= 49792);
#endif
