//! Square attack's start and candidates against their formulas in float64.

use rampart::ops::pgd::Norm;
use rampart::ops::square::{TILES, Window, start, step, tile};

use crate::common::*;

const EPS: f32 = 0.3;

fn unit(n: usize, seed: u64) -> Vec<f32> {
    values(n, seed, PRECISIONS[0]).iter().map(|v| (0.6 * v + 0.5).clamp(0.0, 1.0)).collect()
}

/// Row, column and channel of an element.
fn place(i: usize, [_, _, w, c]: [usize; 4]) -> [usize; 3] {
    [i / c / w, i / c % w, i % c]
}

fn inside([r, c]: [u32; 2], side: usize, row: usize, column: usize) -> bool {
    (r as usize..r as usize + side).contains(&row) && (c as usize..c as usize + side).contains(&column)
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn stripes_and_tiles_are_where_they_belong() {
    let device = host();
    for shape in [[3, 8, 6, 3], [2, 11, 13, 1]] {
        let [n, h, w, c] = shape;
        let d = h * w * c;
        let x0 = unit(n * d, 1);
        let draw =
            |len: usize| -> Vec<f32> { values(n * len, 2, PRECISIONS[0]).iter().map(|v| 0.5 * v + 0.5).collect() };
        let sign = |u: f32| if u < 0.5 { -1.0 } else { 1.0 };

        let stripes = draw(w * c);
        let t0 = upload_f32(&device, &shape, &x0);
        let up = |v: &[f32]| upload_f32(&device, &[v.len()], v);
        let y = start(&device, &t0, &up(&stripes), 0, (Norm::Linf, EPS.into())).unwrap().to_f32(&device).unwrap();
        let want: Vec<f64> = (0..n * d)
            .map(|k| {
                let [_, column, channel] = place(k % d, shape);
                let u = stripes[k / d * w * c + column * c + channel];
                (f64::from(x0[k]) + f64::from(EPS) * sign(u)).clamp(0.0, 1.0)
            })
            .collect();
        close("stripes", &y, &want, 1e-6);

        let signs = draw(TILES * TILES * c);
        let turned = 0b1_0110_1001_0011_0101_1100_1010u32;
        let y = start(&device, &t0, &up(&signs), turned, (Norm::L2, EPS.into())).unwrap().to_f32(&device).unwrap();
        let side = h.min(w) / TILES;
        let e = wide(&tile(side));
        for i in 0..n {
            let pattern: Vec<f64> = (0..d)
                .map(|k| {
                    let [row, column, channel] = place(k, shape);
                    let (Some(r), Some(q)) = (
                        row.checked_sub((h - TILES * side) / 2).filter(|r| *r < TILES * side),
                        column.checked_sub((w - TILES * side) / 2).filter(|q| *q < TILES * side),
                    ) else {
                        return 0.0;
                    };
                    let number = r / side * TILES + q / side;
                    let (y, x) = (r % side, q % side);
                    let value = if turned >> number & 1 == 1 { e[x * side + y] } else { e[y * side + x] };
                    value * sign(signs[(i * TILES * TILES + number) * c + channel])
                })
                .collect();
            let size = length(&pattern) + 1e-12;
            let want: Vec<f64> = pattern
                .iter()
                .zip(&x0[i * d..])
                .map(|(t, &x0)| (f64::from(x0) + f64::from(EPS) * t / size).clamp(0.0, 1.0))
                .collect();
            close("tiles", &y[i * d..(i + 1) * d], &want, 2e-6);
        }
    }
}

#[test]
fn a_candidate_changes_its_window_alone() {
    let device = host();
    let shape = [3, 9, 7, 3];
    let [n, h, w, c] = shape;
    let (d, side) = (h * w * c, 4);
    let x0 = unit(n * d, 3);
    let windows: Vec<Window> = [([0, 0], 0b101), ([5, 3], 0b010), ([2, 1], 0b111)]
        .map(|(to, signs)| Window { to, from: to, signs, turned: false })
        .into();
    let best: Vec<f32> =
        x0.iter().zip(values(n * d, 4, PRECISIONS[0])).map(|(x, v)| (x + EPS * v).clamp(0.0, 1.0)).collect();
    let up = |v: &[f32]| upload_f32(&device, &shape, v);
    let none = upload_f32(&device, &[1], &[0.0]);
    let y = step(&device, &up(&best), &up(&x0), &windows, &none, side, (Norm::Linf, EPS.into())).unwrap();
    for (k, y) in y.to_f32(&device).unwrap().into_iter().enumerate() {
        let ([row, column, channel], window) = (place(k % d, shape), windows[k / d]);
        if !inside(window.to, side, row, column) {
            assert_eq!(y, best[k]);
            continue;
        }
        let sign = if window.signs >> channel & 1 == 1 { 1.0 } else { -1.0 };
        let want = (x0[k] + sign * EPS).clamp(0.0, 1.0);
        // From one side of the ball to the other, whatever the point was.
        let moved = (best[k] + 2.0 * EPS * sign - x0[k]).clamp(-EPS, EPS);
        assert!((y - (x0[k] + moved).clamp(0.0, 1.0)).abs() < 1e-6 && (y - want).abs() < 2.0 * EPS + 1e-6);
    }
    let outside = [Window { to: [6, 0], ..windows[0] }; 3];
    assert!(step(&device, &up(&best), &up(&x0), &outside, &none, side, (Norm::Linf, EPS.into())).is_err());
}

#[test]
fn an_l2_candidate_moves_its_norm_from_one_window_to_another() {
    let device = host();
    for (shape, side) in [([4, 12, 9, 3], 5), ([4, 7, 7, 1], 3)] {
        let [n, h, w, c] = shape;
        let d = h * w * c;
        let eps = 0.6f64;
        let x0 = vec![0.5f32; n * d];
        // Within the ball, and half of it used.
        let best: Vec<f32> = (0..n)
            .flat_map(|i| {
                let e = values(d, 10 + i as u64, PRECISIONS[0]);
                let size = length(&wide(&e)) as f32;
                e.into_iter().map(move |v| 0.5 + v / size * 0.5 * 0.6).collect::<Vec<_>>()
            })
            .collect();
        // Apart, overlapping, the same, and touching the border.
        let last = [(h - side) as u32, (w - side) as u32];
        let windows: Vec<Window> = [([0, 0], last), ([1, 1], [2, 2]), ([1, 0], [1, 0]), (last, [0, 0])]
            .into_iter()
            .enumerate()
            .map(|(i, (to, from))| Window { to, from, signs: 0b0110 >> i, turned: i % 2 == 1 })
            .collect();
        let pattern = tile(side);
        let up = |v: &[f32]| upload_f32(&device, &shape, v);
        let tiles = upload_f32(&device, &[side * side], &pattern);
        let y = step(&device, &up(&best), &up(&x0), &windows, &tiles, side, (Norm::L2, eps)).unwrap();
        let got = y.to_f32(&device).unwrap();
        for (i, window) in windows.iter().enumerate() {
            let e: Vec<f64> = (0..d).map(|k| f64::from(best[i * d + k]) - 0.5).collect();
            let whole = length(&e);
            let mut next = e.clone();
            for channel in 0..c {
                let of = |keep: &dyn Fn(usize, usize) -> bool, v: &dyn Fn(usize) -> f64| {
                    let some = (0..d).filter(|&k| {
                        let [row, column, own] = place(k, shape);
                        own == channel && keep(row, column)
                    });
                    some.map(|k| v(k).powi(2)).sum::<f64>().sqrt()
                };
                let in_a = |row: usize, column: usize| inside(window.to, side, row, column);
                let in_b = |row: usize, column: usize| inside(window.from, side, row, column);
                let na = of(&in_a, &|k| e[k]);
                let both = of(&|row, column| in_a(row, column) || in_b(row, column), &|k| e[k]);
                let sign = if window.signs >> channel & 1 == 1 { 1.0 } else { -1.0 };
                let raw = |k: usize| {
                    let [row, column, _] = place(k, shape);
                    let (y, x) = (row - window.to[0] as usize, column - window.to[1] as usize);
                    let at = if window.turned { x * side + y } else { y * side + x };
                    f64::from(pattern[at]) * sign + e[k] / (1e-12 + na)
                };
                let nv = of(&in_a, &raw);
                let size = ((eps * eps - whole * whole).max(0.0) / c as f64 + both * both).sqrt();
                for k in (0..d).filter(|&k| place(k, shape)[2] == channel) {
                    let [row, column, _] = place(k, shape);
                    if in_a(row, column) {
                        next[k] = raw(k) / (1e-12 + nv) * size;
                    } else if in_b(row, column) {
                        next[k] = 0.0;
                    }
                }
            }
            let size = length(&next) + 1e-12;
            let want: Vec<f64> = next.iter().map(|e| (0.5 + eps * e / size).clamp(0.0, 1.0)).collect();
            close(&format!("{shape:?} image {i}"), &got[i * d..(i + 1) * d], &want, 2e-6);
        }
    }
}
