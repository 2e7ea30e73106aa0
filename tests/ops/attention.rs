//! Attention against float64 arithmetic: odd lengths and head sizes, more keys than a block holds, biases, large logits.

use std::sync::Arc;

use crate::common::{PRECISIONS, close, directional, dot, host, limits, round, upload, upload_f32, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::ops::attention::{Added, Heads, Positions, Sizes, attention, attention_of, self_attention};
use rampart::ops::recording;
use rampart::tape::{Graph, Precision};

struct Case {
    batch: usize,
    heads: usize,
    n: usize,
    m: usize,
    d: usize,
    /// rows of the bias, 0 without
    bias: usize,
    /// of the queries: large ones make one key win
    size: f32,
    /// The bias of every second query for the keys of the first square: 0 where nothing is hidden.
    hidden: f32,
}

/// Output and the gradients of q, k and v in float64.
fn truth(case: &Case, q: &[f64], k: &[f64], v: &[f64], bias: &[f64], dy: &[f64]) -> [Vec<f64>; 4] {
    let &Case { batch, heads, n, m, d, .. } = case;
    let scale = 1.0 / f64::from((d as f32).sqrt());
    let (mut y, mut dq, mut dk, mut dv) =
        (vec![0.0; q.len()], vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for b in 0..batch * heads {
        for i in 0..n {
            let (row, qi) = ((b * n + i) * d, &q[(b * n + i) * d..][..d]);
            let offset = if case.bias == 1 { b % heads } else { b } * n * m + i * m;
            let score = |j: usize| {
                let extra = if case.bias == 0 { 0.0 } else { bias[offset + j] };
                dot(qi, &k[(b * m + j) * d..][..d]) * scale + extra
            };
            let scores: Vec<f64> = (0..m).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
            for (j, p) in p.iter().enumerate() {
                (0..d).for_each(|e| y[row + e] += p * v[(b * m + j) * d + e]);
            }
            let delta: f64 = (0..d).map(|e| y[row + e] * dy[row + e]).sum();
            for (j, p) in p.iter().enumerate() {
                let at = (b * m + j) * d;
                let ds = p * (dot(&dy[row..][..d], &v[at..][..d]) - delta) * scale;
                for e in 0..d {
                    dv[at + e] += p * dy[row + e];
                    dq[row + e] += ds * k[at + e];
                    dk[at + e] += ds * qi[e];
                }
            }
        }
    }
    [y, dq, dk, dv]
}

fn operands(case: &Case, seed: u64, precision: Precision) -> [Vec<f32>; 5] {
    let (queries, keys) = (case.batch * case.heads * case.n * case.d, case.batch * case.heads * case.m * case.d);
    let q = round(values(queries, seed, precision).iter().map(|v| v * case.size), precision);
    let mut bias = values(case.bias * case.heads * case.n * case.m, seed + 3, Precision::F32);
    for row in bias.chunks_mut(case.m).step_by(2).filter(|_| case.hidden != 0.0) {
        row[..64].fill(case.hidden);
    }
    [
        q,
        values(keys, seed + 1, precision),
        values(keys, seed + 2, precision),
        bias,
        values(queries, seed + 4, precision),
    ]
}

fn compare(case: &Case, seed: u64) {
    let &Case { batch, heads, n, m, d, bias: rows, .. } = case;
    let device = host();
    for precision in PRECISIONS {
        let [q, k, v, bias, dy] = operands(case, seed, precision);
        let want = truth(case, &wide(&q), &wide(&k), &wide(&v), &wide(&bias), &wide(&dy));
        let (qt, kt, vt) = (
            upload(&device, &[batch, heads, n, d], precision, &q),
            upload(&device, &[batch, heads, m, d], precision, &k),
            upload(&device, &[batch, heads, m, d], precision, &v),
        );
        let bias = (rows > 0).then(|| upload_f32(&device, &[rows, heads, n, m], &bias));
        let g = recording(&device, precision);
        let y = attention(&g, [&qt, &kt, &vt], bias.as_ref(), None).unwrap();
        let (forward, gradient) = limits(precision);
        let what = |t: &str| format!("{t} {precision:?} {:?} bias {rows}", [batch, heads, n, m, d]);
        close(&what("y"), &y.to_f32(&device).unwrap(), &want[0], forward);
        let dyt = upload(&device, y.shape(), precision, &dy);
        let all = g.backward_all(&y, dyt, &[&qt, &kt, &vt]).unwrap();
        for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(&all).zip(&want[1..]) {
            // With one key there is nothing to choose: dq and dk are 0 but for the rounding of p * (dp - delta).
            if m == 1 && *name != "dv" {
                let top = got.to_f32(&device).unwrap().iter().fold(0f32, |t, v| t.max(v.abs()));
                assert!(top <= if precision == Precision::Bf16 { 2e-2 } else { 2e-6 }, "{}: {top}", what(name));
                continue;
            }
            close(&what(name), &got.to_f32(&device).unwrap(), want, gradient);
        }
    }
}

#[test]
fn lengths_and_heads() {
    for (n, m, d) in
        [(1, 1, 8), (7, 7, 16), (16, 16, 32), (64, 64, 64), (100, 100, 128), (65, 130, 64), (49, 196, 40), (130, 3, 96)]
    {
        for bias in [0, 1, 2] {
            compare(&Case { batch: 2, heads: 2, n, m, d, bias, size: 1.0, hidden: 0.0 }, 3);
        }
    }
}

#[test]
fn one_key_wins() {
    compare(&Case { batch: 1, heads: 1, n: 70, m: 150, d: 64, bias: 0, size: 40.0, hidden: 0.0 }, 9);
}

/// As masks are exported: finite, and so large that nothing is left of a score beside them.
#[test]
fn large_masks_hide_whole_squares() {
    for hidden in [-1e4, -1e10, -1e20, -1e30, f32::MIN] {
        compare(&Case { batch: 1, heads: 2, n: 70, m: 150, d: 32, bias: 1, size: 1.0, hidden }, 11);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape(batch in 1usize..3, heads in 1usize..4, n in 1usize..90, m in 2usize..90, d in 1usize..129, bias in 0usize..2, seed in 0u64..1000) {
        compare(&Case { batch, heads, n, m, d, bias, size: 1.0, hidden: 0.0 }, seed);
    }
}

/// The fused form is the plain one on its parts.
#[test]
fn one_projection_holds_q_k_and_v() {
    let device = host();
    let (batch, heads, t, d) = (2, 3, 20, 16);
    for precision in PRECISIONS {
        let qkv = values(batch * t * 3 * heads * d, 5, precision);
        let dy = values(batch * t * heads * d, 6, precision);
        // (N, T, heads, 3, D) to three of (N, heads, T, D)
        let part = |p: usize| -> Vec<f32> {
            (0..batch * heads * t * d)
                .map(|i| {
                    let (e, j, h, b) = (i % d, i / d % t, i / d / t % heads, i / d / t / heads);
                    qkv[((b * t + j) * heads + h) * 3 * d + p * d + e]
                })
                .collect()
        };
        let heads_first = |y: &[f32]| -> Vec<f32> {
            (0..batch * heads * t * d)
                .map(|i| {
                    let (e, j, h, b) = (i % d, i / d % t, i / d / t % heads, i / d / t / heads);
                    y[((b * t + j) * heads + h) * d + e]
                })
                .collect()
        };
        let shape = [batch, heads, t, d];
        let [q, k, v] = [0, 1, 2].map(|p| upload(&device, &shape, precision, &part(p)));
        let g = recording(&device, precision);
        let plain = attention(&g, [&q, &k, &v], None, None).unwrap();
        let want = plain.to_f32(&device).unwrap();
        let upstream = upload(&device, &shape, precision, &heads_first(&dy));
        let grads = g.backward_all(&plain, upstream, &[&q, &k, &v]).unwrap();

        let x = upload(&device, &[batch, 4, 5, 3 * heads * d], precision, &qkv);
        let g = recording(&device, precision);
        let y = self_attention(&g, &x, heads, None).unwrap();
        assert_eq!(y.shape(), [batch, 4, 5, heads * d]);
        assert_eq!(heads_first(&y.to_f32(&device).unwrap()), want);
        let dyt = upload(&device, y.shape(), precision, &dy);
        let dx = g.backward(&y, dyt, &x).unwrap().to_f32(&device).unwrap();
        for (p, grad) in grads.iter().enumerate() {
            let got: Vec<f32> = (0..batch * heads * t * d)
                .map(|i| {
                    let (e, j, h, b) = (i % d, i / d % t, i / d / t % heads, i / d / t / heads);
                    dx[((b * t + j) * heads + h) * 3 * d + p * d + e]
                })
                .collect();
            assert_eq!(got, grad.to_f32(&device).unwrap(), "part {p}");
        }
    }
}

/// q, k and v of (N, T, 3, heads, D), and keys and values of another tensor (N, T, 2, heads, D), give what copies of them give.
#[test]
fn operands_are_read_where_they_lie() {
    let device = host();
    let (batch, heads, n, m, d) = (2, 3, 9, 20, 8);
    // value (b, h, t, e) of part p of (N, T, parts, heads, D)
    let part = |all: &[f32], parts: usize, p: usize, tokens: usize| -> Vec<f32> {
        (0..batch * heads * tokens * d)
            .map(|i| {
                let (e, t, h, b) = (i % d, i / d % tokens, i / d / tokens % heads, i / d / tokens / heads);
                all[(((b * tokens + t) * parts + p) * heads + h) * d + e]
            })
            .collect()
    };
    let lies = |parts: usize, p: usize, tokens: usize| {
        let c = parts * heads * d;
        Heads { first: p * heads * d, batch: tokens * c, head: d, token: c }
    };
    for precision in PRECISIONS {
        // Of one tensor, of two, of three: in which tensor each operand is, which part, of how many
        for (m, of) in [
            (n, [(0, 0, 3), (0, 1, 3), (0, 2, 3)]),
            (m, [(0, 0, 1), (1, 1, 2), (1, 0, 2)]),
            (m, [(0, 0, 1), (1, 0, 1), (2, 0, 1)]),
        ] {
            let tokens = [n, m, m];
            let whole: Vec<Vec<f32>> = (0..3)
                .filter_map(|t| {
                    let i = of.iter().position(|o| o.0 == t)?;
                    Some(values(batch * tokens[i] * of[i].2 * heads * d, t as u64 + 1, precision))
                })
                .collect();
            let sources: Vec<_> = whole.iter().map(|w| upload(&device, &[w.len()], precision, w)).collect();
            let x = of.map(|(t, _, _)| &sources[t]);
            let at = [0, 1, 2].map(|i| lies(of[i].2, of[i].1, tokens[i]));
            let sizes = Sizes { batch, heads, n, m, d, scale: 0.5 };
            let g = recording(&device, precision);
            let y = attention_of(&g, x, at, &sizes, &Added::Nothing).unwrap();
            assert_eq!(y.shape(), [batch, n, heads, d]);
            let dy = values(y.len(), 9, precision);
            let got = y.to_f32(&device).unwrap();
            let inputs: Vec<_> = sources.iter().collect();
            let grads = g.backward_all(&y, upload(&device, y.shape(), precision, &dy), &inputs).unwrap();

            let shapes = tokens.map(|t| [batch, heads, t, d]);
            let copies = [0, 1, 2]
                .map(|i| upload(&device, &shapes[i], precision, &part(&whole[of[i].0], of[i].2, of[i].1, tokens[i])));
            let g = recording(&device, precision);
            let plain = attention(&g, copies.each_ref(), None, Some(0.5)).unwrap();
            assert_eq!(part(&got, 1, 0, n), plain.to_f32(&device).unwrap(), "{precision:?} {of:?}");
            let upstream = upload(&device, &shapes[0], precision, &part(&dy, 1, 0, n));
            let want = g.backward_all(&plain, upstream, &copies.each_ref()).unwrap();
            for (i, want) in want.iter().enumerate() {
                let dx = grads[of[i].0].to_f32(&device).unwrap();
                assert_eq!(
                    part(&dx, of[i].2, of[i].1, tokens[i]),
                    want.to_f32(&device).unwrap(),
                    "{precision:?} {of:?} {i}"
                );
            }
        }
    }
    let g = recording(&device, Precision::F32);
    let x = upload(&device, &[batch * n * 3 * heads * d], Precision::F32, &vec![0.0; batch * n * 3 * heads * d]);
    let sizes = Sizes { batch, heads, n, m: n, d, scale: 1.0 };
    let refused = |at: [Heads; 3]| attention_of(&g, [&x; 3], at, &sizes, &Added::Nothing).unwrap_err().to_string();
    let at = [0, 1, 2].map(|p| lies(3, p, n));
    assert!(refused([at[0], at[1], lies(3, 3, n)]).contains("attention: v"), "beyond the end");
    let half = Sizes { batch: 1, ..sizes };
    let error = attention_of(&g, [&x; 3], at, &half, &Added::Nothing).unwrap_err().to_string();
    assert!(error.contains("as many as are read"), "{error}");
}

/// The table of a map gives the plain op's bias, forward and in the gradient.
#[test]
fn a_table_of_positions_is_a_bias_per_pair() {
    let device = host();
    for (heads, h, w, d) in
        [(2, 3, 5, 8), (1, 1, 1, 4), (3, 2, 24, 8), (1, 7, 1, 4), (2, 9, 10, 8), (1, 40, 3, 8), (1, 12, 12, 32)]
    {
        let (t, rows, cols) = (h * w, 2 * h - 1, 2 * w - 1);
        let table = values(heads * rows * cols, 4, Precision::F32);
        let bias: Vec<f32> = (0..heads * t * t)
            .map(|i| {
                let (k, q, head) = (i % t, i / t % t, i / t / t);
                let (down, across) = (k / w + h - 1 - q / w, k % w + w - 1 - q % w);
                table[(head * rows + down) * cols + across]
            })
            .collect();
        let positions = Arc::new(Positions::new(&device, heads, [h, w], &table).unwrap());
        assert_eq!(positions.expanded(&device).unwrap(), bias);
        let bias = upload(&device, &[1, heads, t, t], Precision::F32, &bias);
        let g = Graph::inference(&device, Precision::F32);

        // (1, T, heads, 3, D) by the fused op against q, k, v by the plain one.
        let qkv = values(t * 3 * heads * d, 5, Precision::F32);
        let part = |p: usize| -> Vec<f32> {
            (0..heads * t * d).map(|i| qkv[((i / d % t * heads + i / d / t) * 3 + p) * d + i % d]).collect()
        };
        let [q, k, v] = [0, 1, 2].map(|p| upload(&device, &[1, heads, t, d], Precision::F32, &part(p)));
        let want = attention(&g, [&q, &k, &v], Some(&bias), None).unwrap().to_f32(&device).unwrap();
        let x = upload(&device, &[1, h, w, 3 * heads * d], Precision::F32, &qkv);
        let g = recording(&device, Precision::F32);
        let y = self_attention(&g, &x, heads, Some(&positions)).unwrap();
        let got = y.to_f32(&device).unwrap();
        for (i, want) in want.iter().enumerate() {
            assert_eq!(got[(i / d % t * heads + i / d / t) * d + i % d], *want);
        }
        let dy = values(got.len(), 6, Precision::F32);
        let dyt = upload(&device, y.shape(), Precision::F32, &dy);
        let dx = g.backward(&y, dyt, &x).unwrap().to_f32(&device).unwrap();
        let dy_heads: Vec<f32> = (0..dy.len()).map(|i| dy[(i / d % t * heads + i / d / t) * d + i % d]).collect();
        let g = recording(&device, Precision::F32);
        let y = attention(&g, [&q, &k, &v], Some(&bias), None).unwrap();
        let dyt = upload(&device, &[1, heads, t, d], Precision::F32, &dy_heads);
        for (p, grad) in g.backward_all(&y, dyt, &[&q, &k, &v]).unwrap().iter().enumerate() {
            for (i, want) in grad.to_f32(&device).unwrap().iter().enumerate() {
                assert_eq!(dx[((i / d % t * heads + i / d / t) * 3 + p) * d + i % d], *want, "part {p}");
            }
        }
    }
}

/// With a negative scale the largest product is the smallest score.
#[test]
fn a_negative_scale_turns_the_order_round() {
    let device = host();
    let shape = [1, 2, 70, 32];
    for precision in PRECISIONS {
        let [q, k, v] = [1, 2, 3].map(|seed| values(shape.iter().product(), seed, precision));
        let negative: Vec<f32> = q.iter().map(|q| -8.0 * q).collect();
        let [k, v] = [k, v].map(|x| upload(&device, &shape, precision, &x));
        let g = Graph::inference(&device, precision);
        let of = |q: &[f32], scale| {
            let q = upload(&device, &shape, precision, q);
            attention(&g, [&q, &k, &v], None, Some(scale)).unwrap().to_f32(&device).unwrap()
        };
        let want = wide(&of(&negative, 0.5));
        close(&format!("{precision:?}"), &of(&q, -4.0), &want, limits(precision).0);
    }
}

#[test]
fn the_gradient_is_that_of_the_formula() {
    let case = Case { batch: 1, heads: 2, n: 5, m: 6, d: 4, bias: 1, size: 1.0, hidden: 0.0 };
    let [q, k, v, bias, dy] = operands(&case, 1, Precision::F32).map(|v| wide(&v));
    let direction = wide(&values(k.len(), 8, Precision::F32));
    let [_, _, dk, _] = truth(&case, &q, &k, &v, &bias, &dy);
    let want = directional(|k| dot(&truth(&case, &q, k, &v, &bias, &dy)[0], &dy), &k, &direction);
    assert!((dot(&dk, &direction) - want).abs() <= 1e-7 * want.abs().max(1.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let t = |shape: &[usize]| upload(&device, shape, Precision::F32, &vec![0.0; shape.iter().product()]);
    let large = t(&[1, 1, 2, 129]);
    assert!(matches!(attention(&g, [&large, &large, &large], None, None), Err(Error::Limit { .. })));
    let (q, k) = (t(&[1, 2, 3, 4]), t(&[1, 1, 3, 4]));
    assert!(matches!(attention(&g, [&q, &k, &k], None, None), Err(Error::Shape { .. })));
    let none = t(&[1, 2, 0, 4]);
    assert!(matches!(attention(&g, [&q, &none, &none], None, None), Err(Error::Shape { .. })));
    for (heads, map) in [(2, [2, 3]), (1, [2, 2])] {
        let table = vec![0.0; heads * (2 * map[0] - 1) * (2 * map[1] - 1)];
        let positions = Arc::new(Positions::new(&device, heads, map, &table).unwrap());
        assert!(matches!(self_attention(&g, &t(&[1, 2, 2, 12]), 2, Some(&positions)), Err(Error::Shape { .. })));
    }
    assert!(matches!(Positions::new(&device, 2, [2, 2], &[0.0; 17]), Err(Error::Shape { .. })));
    let bias = t(&[2, 2, 3, 3]);
    assert!(matches!(attention(&g, [&q, &q, &q], Some(&bias), None), Err(Error::Shape { .. })));
    assert!(matches!(self_attention(&g, &t(&[1, 2, 2, 10]), 2, None), Err(Error::Shape { .. })));
}
