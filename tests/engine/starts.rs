//! Where attacks begin: random starts, and starts from a file.

use std::collections::HashMap;

use crate::network::*;
use rampart::Error;
use rampart::attack::{Norm, Profile, Starts};
use safetensors::tensor::{Dtype, TensorView};

#[test]
fn seeds_and_restarts_give_other_starts() {
    let net = Net::new();
    let data = data(&net, 3);
    let start = |norm, profile, seed, restarts| {
        let spec = Try { norm, profile, steps: 0, eps: 0.05, step_size: Some(0.01), seed, restarts, ..Try::default() };
        attack(&net, &data, &spec).1.last
    };
    for norm in [Norm::Linf, Norm::L2] {
        for profile in PROFILES {
            let base = start(norm, profile, 0, 1);
            assert_eq!(base, start(norm, profile, 0, 1));
            assert_ne!(base, start(norm, profile, 1, 1));
            assert_ne!(base, start(norm, profile, 0, 2));
            assert_ne!(base, data.0);
        }
    }
}

/// Uniform in the ball: the radius is below r with probability (r / eps)^d. torchattacks: below r with r / eps.
#[test]
fn starts_in_the_ball_have_the_right_radius() {
    let net = Net::new();
    let n = 400;
    let data = (vec![0.5; n * D], vec![0; n], (0..n as u64).collect());
    let eps = 0.1;
    for (profile, power) in [
        (Profile::Native, D as i32),
        (Profile::Foolbox, D as i32),
        (Profile::Art, D as i32),
        (Profile::Torchattacks, 1),
    ] {
        let (outcomes, _) = attack(&net, &data, &Try { norm: Norm::L2, profile, eps, steps: 0, ..Try::default() });
        let mut u: Vec<f64> = outcomes.iter().map(|o| (f64::from(o.l2) / eps).powi(power)).collect();
        u.sort_by(f64::total_cmp);
        // Kolmogorov-Smirnov, one in a thousand: 1.95 / sqrt(n)
        let distance = u.iter().enumerate().map(|(i, u)| (u - i as f64 / n as f64).abs()).fold(0.0, f64::max);
        assert!(distance < 0.1, "{profile:?}: {distance}");
    }
    let sphere =
        Try { norm: Norm::L2, profile: Profile::Cleverhans, eps, steps: 0, step_size: Some(0.01), ..Try::default() };
    assert!(attack(&net, &data, &sphere).0.iter().all(|o| (f64::from(o.l2) - eps).abs() < 1e-6));
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes a file of starts from (restarts, N, H, W, C) values, channels first unless told otherwise.
fn write(
    path: &std::path::Path,
    shape: &[usize],
    values: &[f32],
    ids: Option<&[i64]>,
    extra: Option<(&[usize], &[f32])>,
    meta: &[(&str, &str)],
) {
    let ids_bytes: Vec<u8> = ids.unwrap_or(&[]).iter().flat_map(|v| v.to_le_bytes()).collect();
    let (values, extra_bytes) = (bytes(values), extra.map(|e| bytes(e.1)).unwrap_or_default());
    let mut tensors = vec![("start", TensorView::new(Dtype::F32, shape.to_vec(), &values).unwrap())];
    if let Some(ids) = ids {
        tensors.push(("ids", TensorView::new(Dtype::I64, vec![ids.len()], &ids_bytes).unwrap()));
    }
    if let Some((shape, _)) = extra {
        tensors.push(("extra", TensorView::new(Dtype::F32, shape.to_vec(), &extra_bytes).unwrap()));
    }
    let meta: HashMap<String, String> = meta.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize_to_file(tensors, Some(meta), path).unwrap();
}

fn channels_first(nhwc: &[f32]) -> Vec<f32> {
    let [h, w, c] = SHAPE;
    nhwc.chunks_exact(D).flat_map(|x| (0..c).flat_map(move |k| (0..h * w).map(move |p| x[p * c + k]))).collect()
}

#[test]
fn starts_come_from_a_file() {
    let net = Net::new();
    let data = data(&net, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starts.safetensors");
    let ids: Vec<i64> = data.2.iter().rev().map(|&id| id as i64).collect();
    let drawn = |seed: u64| -> Vec<f32> {
        data.0.iter().zip(numbers(4 * D, seed)).map(|(x, u)| (x + 0.05 * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect()
    };
    let reversed = |v: &[f32]| v.chunks_exact(D).rev().flatten().copied().collect::<Vec<f32>>();
    let (first, second) = (drawn(1), drawn(2));
    let spec =
        |restarts| Try { eps: 0.05, steps: 0, restarts, starts: Some(Starts::load(&path).unwrap()), ..Try::default() };

    let both = [channels_first(&reversed(&first)), channels_first(&reversed(&second))].concat();
    write(&path, &[2, 4, 3, 5, 4], &both, Some(&ids), None, &[]);
    assert_eq!(attack(&net, &data, &spec(1)).1.last, first);
    let done: Vec<bool> = attack(&net, &data, &spec(1)).0.iter().map(|o| o.first_success.is_some()).collect();
    let expected: Vec<f32> = (0..4 * D).map(|at| if done[at / D] { first[at] } else { second[at] }).collect();
    assert_eq!(attack(&net, &data, &spec(2)).1.last, expected, "only what still resists takes its second start");
    assert!(
        matches!(spec(3).run(&net, &data.0, &data.1, &data.2), Err(Error::Usage { .. })),
        "two starts, three restarts"
    );

    write(&path, &[4, 5, 4, 3], &reversed(&first), Some(&ids), None, &[("layout", "NHWC")]);
    assert_eq!(attack(&net, &data, &spec(1)).1.last, first);

    // An image without a start, a start outside the budget.
    write(&path, &[3, 5, 4, 3], &reversed(&first)[..3 * D], Some(&ids[..3]), None, &[("layout", "NHWC")]);
    let message = spec(1).run(&net, &data.0, &data.1, &data.2).unwrap_err().to_string();
    assert!(message.contains("no start for image 17"), "{message}");
    write(
        &path,
        &[4, 5, 4, 3],
        &first,
        Some(&data.2.iter().map(|&i| i as i64).collect::<Vec<_>>()),
        None,
        &[("layout", "NHWC")],
    );
    let near = Try { eps: 0.04, ..spec(1) };
    assert!(near.run(&net, &data.0, &data.1, &data.2).unwrap_err().to_string().contains("outside the budget"));
}

#[test]
fn raw_draws_from_a_file_become_the_starts_of_their_profile() {
    let net = Net::new();
    let data = (data(&net, 2).0, vec![0, 1], vec![0, 1]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("draws.safetensors");
    let draw: Vec<f32> = numbers(2 * D, 9).iter().map(|u| 3.0 * u - 1.5).collect();
    let unit = numbers(2 * D, 9);
    let norm2 = |v: &[f32], more: &[f32]| v.iter().chain(more).map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    for (norm, profile, name) in [
        (Norm::Linf, Profile::Foolbox, "foolbox"),
        (Norm::L2, Profile::Native, "native"),
        (Norm::L2, Profile::Torchattacks, "torchattacks"),
        (Norm::L2, Profile::Foolbox, "foolbox"),
        (Norm::L2, Profile::Cleverhans, "cleverhans"),
    ] {
        let eps = 0.2;
        let extras = Starts::extras(norm, profile);
        let extra = [0.3, -0.7, 0.6, 1.1].map(|v: f32| if extras == 1 { v.abs() } else { v });
        let uses_units = norm == Norm::Linf || profile == Profile::Cleverhans;
        let values = if uses_units { &unit } else { &draw };
        let meta = [("kind", "draw"), ("profile", name)];
        let shape = [2, extras];
        write(
            &path,
            &[2, 3, 5, 4],
            &channels_first(values),
            None,
            (extras > 0).then_some((&shape, &extra[..2 * extras])),
            &meta,
        );
        let starts = Some(Starts::load(&path).unwrap());
        let spec = Try { norm, eps, steps: 0, starts, ..Try::default() };
        let got = attack(&net, &data, &spec).1.last;
        for i in 0..2 {
            let (v, e) = (&values[i * D..(i + 1) * D], &extra[i * extras..(i + 1) * extras]);
            for k in 0..D {
                let u = f64::from(v[k]);
                let offset = match (norm, profile) {
                    (Norm::Linf, _) => eps * (2.0 * u - 1.0),
                    (_, Profile::Native) => eps * u / norm2(v, &[]) * f64::from(e[0]).powf(1.0 / D as f64),
                    (_, Profile::Torchattacks) => u * (f64::from(e[0]) / norm2(v, &[]) * eps),
                    (_, Profile::Foolbox) => eps * u / norm2(v, e),
                    _ => {
                        let raw: f64 = v.iter().map(|&u| (eps * (2.0 * f64::from(u) - 1.0)).powi(2)).sum();
                        eps * (2.0 * u - 1.0) * (eps / raw.sqrt()).min(1.0)
                    }
                };
                let want = (f64::from(data.0[i * D + k]) + offset).clamp(0.0, 1.0);
                assert!((f64::from(got[i * D + k]) - want).abs() < 1e-6, "{norm:?} {profile:?}");
            }
        }
    }
}

#[test]
fn bad_files_of_starts_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let ok = vec![0.5; 2 * D];
    let complaint = || Starts::load(&path).unwrap_err().to_string();
    assert!(complaint().contains("bad.safetensors: open"), "{}", complaint());
    std::fs::write(&path, b"not a tensor file").unwrap();
    assert!(complaint().contains("expected a safetensors file"), "{}", complaint());
    assert!(complaint().contains("attack.starts") && complaint().contains("a tensor `start`"), "{}", complaint());
    safetensors::serialize_to_file(Vec::<(String, safetensors::tensor::TensorView)>::new(), None, &path).unwrap();
    assert!(complaint().contains("attack.starts: expected a tensor `start`, found none"), "{}", complaint());
    write(&path, &[2, D], &ok, None, None, &[]);
    assert!(complaint().contains("(N, C, H, W)"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &ok, Some(&[3, 3]), None, &[]);
    assert!(complaint().contains("each once"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &ok, None, None, &[("kind", "draw"), ("profile", "nobody")]);
    assert!(complaint().contains("nobody"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &[&ok[1..], &[f32::NAN]].concat(), None, None, &[]);
    assert!(complaint().contains("finite"), "{}", complaint());
    // A draw that lacks its radius is found when it is used.
    write(&path, &[2, 3, 5, 4], &ok, None, None, &[("kind", "draw"), ("profile", "torchattacks")]);
    let net = Net::new();
    let spec = Try { norm: Norm::L2, starts: Some(Starts::load(&path).unwrap()), ..Try::default() };
    let message = spec.run(&net, &ok, &[0, 1], &[0, 1]).unwrap_err().to_string();
    assert!(message.contains("extra numbers per image: expected 1"), "{message}");
}
