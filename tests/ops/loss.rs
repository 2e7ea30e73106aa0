//! Attack losses against float64 arithmetic, and what a wrong ranking or a lost small number would break.

use crate::common::{PRECISIONS, close, directional, dot, host, limits, round, upload, upload_f32, values, wide};
use rampart::Error;
use rampart::ops::loss::{LossKind, LossOutput, loss};
use rampart::tape::{Graph, Precision};

const KINDS: [LossKind; 7] = [
    LossKind::CROSS_ENTROPY,
    LossKind::CrossEntropy { label_smoothing: 0.1 },
    LossKind::CrossEntropyTargeted,
    LossKind::Margin,
    LossKind::Dlr,
    LossKind::DlrTargeted,
    LossKind::Difference,
];

fn targeted(kind: LossKind) -> bool {
    matches!(kind, LossKind::CrossEntropyTargeted | LossKind::DlrTargeted | LossKind::Difference)
}

/// Classes by falling logit, the lowest index first among equals.
fn ranking(z: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..z.len()).collect();
    order.sort_by(|&a, &b| z[b].total_cmp(&z[a]).then(a.cmp(&b)));
    order
}

/// `log p_i`, with the sum over the other classes where `p_i` is near 1.
fn log_p(z: &[f64], i: usize) -> f64 {
    let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if z[i] == most {
        return -z.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, v)| (v - most).exp()).sum::<f64>().ln_1p();
    }
    z[i] - most - z.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

fn value(kind: LossKind, z: &[f64], y: usize, t: usize) -> f64 {
    let order = ranking(z);
    let wrong = if order[0] == y { order[1 % z.len()] } else { order[0] };
    match kind {
        LossKind::CrossEntropy { label_smoothing } => {
            let s = f64::from(label_smoothing);
            -(0..z.len()).map(|i| (if i == y { 1.0 - s } else { 0.0 } + s / z.len() as f64) * log_p(z, i)).sum::<f64>()
        }
        LossKind::CrossEntropyTargeted => log_p(z, t),
        LossKind::Margin => z[wrong] - z[y],
        LossKind::Dlr => -(z[y] - z[wrong]) / (z[order[0]] - z[order[2]] + 1e-12),
        LossKind::Difference => z[t] - z[y],
        LossKind::DlrTargeted => -(z[y] - z[t]) / (z[order[0]] - 0.5 * (z[order[2]] + z[order[3]]) + 1e-12),
    }
}

fn run(kind: LossKind, precision: Precision, z: &[f32], k: usize, labels: &[u32], targets: &[u32]) -> [Vec<f32>; 4] {
    let device = host();
    let g = Graph::inference(&device, precision);
    let logits = upload(&device, &[labels.len(), k], precision, z);
    let LossOutput { loss, dlogits, margin, prediction } =
        loss(&g, &logits, labels, targeted(kind).then_some(targets), kind).unwrap();
    let prediction = prediction.to_i32(&device).unwrap().into_iter().map(|p| p as f32).collect();
    [loss.to_f32(&device).unwrap(), dlogits.to_f32(&device).unwrap(), margin.to_f32(&device).unwrap(), prediction]
}

#[test]
fn values_gradients_margins_and_predictions_agree_with_float64() {
    for precision in PRECISIONS {
        for kind in KINDS {
            for (n, k) in [(1, 4), (7, 10), (5, 17), (3, 1000), (0, 10)] {
                let z = round(values(n * k, 1, precision).into_iter().map(|v| 5.0 * v), precision);
                let labels: Vec<u32> = (0..n).map(|i| ((7 * i + 3) % k) as u32).collect();
                let targets: Vec<u32> = (0..n).map(|i| ((5 * i + 1) % k) as u32).collect();
                let [got, dlogits, margin, prediction] = run(kind, precision, &z, k, &labels, &targets);
                let rows: Vec<Vec<f64>> = z.chunks(k).map(wide).collect();
                let want: Vec<f64> = rows
                    .iter()
                    .enumerate()
                    .map(|(i, z)| value(kind, z, labels[i] as usize, targets[i] as usize))
                    .collect();
                let name = format!("{kind:?} {precision:?} {n}x{k}");
                // The loss itself is float32 in either precision.
                close(&format!("{name} loss"), &got, &want, 2e-6);
                for (i, z) in rows.iter().enumerate() {
                    let (y, t, order) = (labels[i] as usize, targets[i] as usize, ranking(z));
                    assert_eq!(prediction[i] as usize, order[0], "{name}");
                    let wrong = if order[0] == y { order[1] } else { order[0] };
                    assert!((f64::from(margin[i]) - (z[y] - z[wrong])).abs() <= 1e-5, "{name}");
                    // Where the ranking is tied, a difference quotient sees another branch.
                    if order.windows(2).take(4).any(|w| z[w[0]] == z[w[1]]) {
                        continue;
                    }
                    let direction = wide(&values(k, 9 + i as u64, Precision::F32));
                    let slope = directional(|z| value(kind, z, y, t), z, &direction);
                    let d = wide(&dlogits[i * k..(i + 1) * k]);
                    let scale = dot(&d, &d).sqrt() * dot(&direction, &direction).sqrt();
                    let limit = (limits(precision).1 * scale).max(1e-7 * scale + 1e-9);
                    assert!(
                        (dot(&d, &direction) - slope).abs() <= limit,
                        "{name} gradient {i}: {} {slope}",
                        dot(&d, &direction)
                    );
                }
            }
        }
    }
}

#[test]
fn a_confident_network_still_has_a_loss_and_a_gradient() {
    // p_y = 1 - 2e-13: 1 - p_y is 0 in float32 unless it is summed over the other classes.
    let [loss, dlogits, ..] = run(LossKind::CROSS_ENTROPY, Precision::F32, &[30.0, 0.0, 0.0], 3, &[0], &[]);
    let e = (-30f64).exp();
    close("loss", &loss, &[(2.0 * e).ln_1p()], 1e-6);
    close("gradient", &dlogits, &[-2.0 * e, e, e], 1e-6);
    // and at the other end nothing overflows
    let [loss, dlogits, ..] = run(LossKind::CROSS_ENTROPY, Precision::F32, &[-1000.0, 1000.0], 2, &[0], &[]);
    assert_eq!((loss[0], &dlogits[..]), (2000.0, &[-1.0, 1.0][..]));
}

#[test]
fn among_equals_the_lowest_class_wins() {
    let [_, dlogits, margin, prediction] =
        run(LossKind::Margin, Precision::F32, &[1.0, 3.0, 3.0, 3.0, 0.0], 5, &[2], &[]);
    assert_eq!((prediction[0], margin[0]), (1.0, 0.0));
    assert_eq!(dlogits, [0.0, 1.0, -1.0, 0.0, 0.0]);
    // The label is the first of the equals: the best wrong class is the next of them.
    let [_, dlogits, ..] = run(LossKind::Margin, Precision::F32, &[1.0, 3.0, 3.0, 3.0, 0.0], 5, &[1], &[]);
    assert_eq!(dlogits, [0.0, -1.0, 1.0, 0.0, 0.0]);
    // A run of equal logits longer than a vector.
    let [.., prediction] = run(LossKind::CROSS_ENTROPY, Precision::F32, &[0.5; 37], 37, &[36], &[]);
    assert_eq!(prediction[0], 0.0);
}

#[test]
fn dlr_knows_neither_scale_nor_shift() {
    let z = [2.0f32, -1.0, 0.5, 3.0, 1.5];
    let moved: Vec<f32> = z.iter().map(|v| 4.0 * v + 8.0).collect();
    for label in 0..5 {
        let [a, ..] = run(LossKind::Dlr, Precision::F32, &z, 5, &[label], &[]);
        let [b, ..] = run(LossKind::Dlr, Precision::F32, &moved, 5, &[label], &[]);
        assert!((a[0] - b[0]).abs() <= 1e-6, "{a:?} {b:?}");
        assert_eq!(a[0] > 0.0, label != 3, "positive exactly when misclassified");
    }
}

#[test]
fn nan_logits_are_never_taken_for_a_prediction_of_a_number() {
    let [loss, _, _, prediction] =
        run(LossKind::CROSS_ENTROPY, Precision::F32, &[1.0, f32::NAN, 2.0, f32::NAN], 4, &[2], &[]);
    assert!(loss[0].is_nan());
    assert_eq!(prediction[0], 1.0);
}

#[test]
fn a_single_class_has_no_loss() {
    let [loss, dlogits, margin, prediction] =
        run(LossKind::CROSS_ENTROPY, Precision::F32, &[3.0, -7.0], 1, &[0, 0], &[]);
    assert_eq!((loss, dlogits, prediction), (vec![0.0; 2], vec![0.0; 2], vec![0.0; 2]));
    assert_eq!(margin, [f32::INFINITY; 2]);
}

#[test]
fn what_is_no_class_is_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let logits = upload_f32(&device, &[2, 3], &[0.0; 6]);
    let say = |labels: &[u32], targets: Option<&[u32]>, kind| match loss(&g, &logits, labels, targets, kind) {
        Err(e @ Error::Shape { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(say(&[0, 3], None, LossKind::CROSS_ENTROPY), "loss: labels, image 1: expected a class below 3, got 3");
    assert!(say(&[0], None, LossKind::CROSS_ENTROPY).contains("expected 2, got 1"));
    assert!(say(&[0, 1], None, LossKind::CrossEntropyTargeted).contains("expected one per image, got none"));
    assert!(say(&[0, 1], Some(&[1, 1]), LossKind::Margin).contains("targets"));
    assert!(say(&[0, 1], Some(&[1, 9]), LossKind::CrossEntropyTargeted).contains("a class below 3, got 9"));
    assert!(say(&[0, 1], Some(&[1, 1]), LossKind::DlrTargeted).contains("at least 4, got 3"));
    assert!(say(&[0, 1], None, LossKind::CrossEntropy { label_smoothing: 1.5 }).contains("label smoothing"));
    assert!(say(&[0, 1], None, LossKind::CrossEntropy { label_smoothing: f32::NAN }).contains("label smoothing"));
}
