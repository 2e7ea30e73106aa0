//! FAB, Square and AutoAttack on a small network.

use rampart::attack::{Batch, Loss, Norm, Outcome, Said, Spec, Work};
use rampart::device::DType;
use rampart::tensor::Tensor;

use crate::network::*;

const STAGES: [(&str, Loss); 4] =
    [("apgd-ce", Loss::CrossEntropy), ("apgd-t", Loss::Dlr), ("fab-t", Loss::Margin), ("square", Loss::Margin)];

/// The usual number of steps of a method.
fn steps(method: &str) -> u32 {
    if method == "square" { 5000 } else { 100 }
}

/// Those of the longer version, and how many restarts each has.
const PLUS: [(&str, Loss, u32); 6] = [
    ("apgd-ce", Loss::CrossEntropy, 5),
    ("apgd-dlr", Loss::Dlr, 5),
    ("fab", Loss::Margin, 5),
    ("square", Loss::Margin, 1),
    ("apgd-t", Loss::Dlr, 1),
    ("fab-t", Loss::Margin, 5),
];

fn of(method: &'static str, loss: Loss, norm: Norm, eps: f64) -> Try {
    let early_stop = method.starts_with("apgd");
    Try { method, loss, norm, eps, steps: steps(method), early_stop, random_start: true, ..Try::default() }
}

fn broken(outcomes: &[Outcome]) -> Vec<bool> {
    outcomes.iter().map(|o| o.correct_clean && !o.correct_any).collect()
}

fn rows(data: &(Vec<f32>, Vec<u32>, Vec<u64>), these: &[usize]) -> (Vec<f32>, Vec<u32>, Vec<u64>) {
    let pixels = these.iter().flat_map(|&i| data.0[i * D..(i + 1) * D].to_vec()).collect();
    (pixels, these.iter().map(|&i| data.1[i]).collect(), these.iter().map(|&i| data.2[i]).collect())
}

#[test]
fn what_is_left_is_wrong_and_within_the_budget_or_clean() {
    let net = Net::new();
    let data = data(&net, 40);
    for (method, loss) in STAGES.into_iter().chain([("fab", Loss::Margin)]) {
        for norm in [Norm::Linf, Norm::L2] {
            let spec = Try { steps: steps(method).min(400), ..of(method, loss, norm, eps_of(norm)) };
            let (outcomes, points) = attack(&net, &data, &spec);
            let count = broken(&outcomes).iter().filter(|&&b| b).count();
            assert!((3..40).contains(&count), "{method} {norm} breaks {count}");
            for (i, o) in outcomes.iter().enumerate() {
                let last = &points.last[i * D..(i + 1) * D];
                let (_, z) = net.forward(last);
                let (_, _, _, prediction) = losses(&z, data.1[i] as usize, None, loss);
                assert_eq!((prediction, o.stage), (o.prediction, None), "{method} {norm} image {i}");
                assert_eq!(o.correct_any, o.correct_last, "{method} {norm} image {i}: {o:?}");
                assert_eq!(o.correct_any || !o.correct_clean, last == &data.0[i * D..(i + 1) * D], "{o:?}");
            }
        }
    }
}

#[test]
fn fab_breaks_whom_pgd_breaks_and_from_nearer() {
    let net = Net::new();
    let data = data(&net, 40);
    let all = [("fab-t", Norm::Linf), ("fab-t", Norm::L2), ("fab", Norm::Linf), ("fab", Norm::L2)];
    for (method, norm) in all {
        let eps = eps_of(norm);
        let fab = attack(&net, &data, &of(method, Loss::Margin, norm, eps));
        let pgd = attack(&net, &data, &Try { norm, eps, steps: 60, restarts: 3, ..Try::default() });
        let (a, b) = (broken(&fab.0), broken(&pgd.0));
        let missed = (0..40).filter(|&i| b[i] && !a[i]).count();
        assert!(missed <= 2, "{norm}: {missed} broken by PGD and not by FAB");
        let size = |o: &Outcome| if norm == Norm::Linf { o.linf } else { o.l2 };
        let nearer = (0..40).filter(|&i| a[i] && b[i] && size(&fab.0[i]) < size(&pgd.0[i])).count();
        assert!(nearer > 5, "{norm}: {nearer} from nearer");
    }
}

#[test]
fn untargeted_fab_restarts_half_way_to_the_edge() {
    let net = Net::new();
    let data = data(&net, 40);
    for method in ["fab", "fab-t"] {
        for norm in [Norm::Linf, Norm::L2] {
            let spec = Try { steps: 4, ..of(method, Loss::Margin, norm, eps_of(norm) / 2.0) };
            let once = broken(&attack(&net, &data, &spec).0);
            let thrice = attack(&net, &data, &Try { restarts: 3, ..spec.clone() });
            assert!((0..40).all(|i| !once[i] || broken(&thrice.0)[i]), "{method} {norm}: a restart lost an image");
            assert_eq!(thrice, attack(&net, &data, &Try { restarts: 3, ..spec.clone() }));
            // Who stands takes the steps of all restarts.
            let searches = if method == "fab" { 3 } else { 3 * (K as u32 - 1) };
            let stands = |o: &&Outcome| o.correct_any;
            assert!(thrice.0.iter().filter(stands).all(|o| o.steps == 4 * searches), "{method} {norm}");
            assert!(count(&thrice.0, |o| o.correct_any) > 0, "{method} {norm}");
        }
    }
}

/// Windows that all images share are the same alone and in a batch, and others than their own.
#[test]
fn squares_can_be_shared() {
    let net = Net::new();
    let data = data(&net, 30);
    for norm in [Norm::Linf, Norm::L2] {
        let run = |these: &[usize], compat: bool| {
            let (images, labels, ids) = rows(&data, these);
            let eps = eps_of(norm);
            let shape = [these.len(), SHAPE[0], SHAPE[1], SHAPE[2]];
            let spec = Spec { compat, ..Try { steps: 60, ..of("square", Loss::Margin, norm, eps) }.spec() };
            let images = Tensor::from_f32(&net.device, &shape, DType::F32, &images).unwrap();
            let batch = Batch { images: &images, labels: &labels, ids: &ids };
            let found = spec.build().unwrap().run(&net, batch, eps, 0).unwrap();
            (found.outcomes, found.best_margin.to_f32(&net.device).unwrap())
        };
        let all: Vec<usize> = (0..30).collect();
        let (shared, own) = (run(&all, true), run(&all, false));
        assert_ne!(shared.1, own.1, "{norm}");
        assert!(count(&shared.0, |o| o.correct_clean && !o.correct_any) > 3, "{norm}");
        for i in [2, 29] {
            let alone = run(&[i], true);
            assert_eq!((alone.0[0], &alone.1[..]), (shared.0[i], &shared.1[i * D..(i + 1) * D]), "{norm} image {i}");
        }
    }
}

#[test]
fn the_longer_version_takes_more_and_restarts() {
    let net = Net::new();
    let data = data(&net, 24);
    let (norm, eps) = (Norm::Linf, 0.03);
    let all = attack(&net, &data, &Try { method: "autoattack-plus", norm, eps, ..Try::default() });
    let mut standing: Vec<usize> = (0..24).filter(|&i| all.0[i].correct_clean).collect();
    for (stage, (method, loss, restarts)) in PLUS.into_iter().enumerate() {
        let alone = attack(&net, &rows(&data, &standing), &Try { restarts, ..of(method, loss, norm, eps) });
        let broken = broken(&alone.0);
        let mut asked = Work::default();
        standing.iter().for_each(|&i| asked += all.0[i].asked.unwrap().stages().nth(stage).unwrap());
        assert_eq!(asked, alone.1.work, "{method}");
        for (j, &i) in standing.iter().enumerate().filter(|&(j, _)| broken[j]) {
            assert_eq!(all.0[i].stage, Some(stage as u8), "{method} image {i}");
            assert_eq!(all.1.last[i * D..(i + 1) * D], alone.1.last[j * D..(j + 1) * D]);
        }
        standing = standing.iter().zip(&broken).filter(|(_, broken)| !**broken).map(|(&i, _)| i).collect();
    }
    assert!(standing.len() > 2 && standing.len() < 20, "{} of 24 stand", standing.len());
}

#[test]
fn a_stage_sees_what_still_stands_and_the_worst_case_counts() {
    let net = Net::new();
    let data = data(&net, 60);
    for (norm, eps) in [(Norm::Linf, 0.03), (Norm::L2, 0.15)] {
        let spec = Try { method: "autoattack", norm, eps, ..Try::default() };
        let all = attack(&net, &data, &spec);
        let mut standing: Vec<usize> = (0..60).filter(|&i| all.0[i].correct_clean).collect();
        for (stage, (method, loss)) in STAGES.into_iter().enumerate() {
            let alone = attack(&net, &rows(&data, &standing), &of(method, loss, norm, eps));
            let broken = broken(&alone.0);
            let mut asked = Work::default();
            standing.iter().for_each(|&i| asked += all.0[i].asked.unwrap().stages().nth(stage).unwrap());
            assert_eq!(asked, alone.1.work, "{method} {norm}");
            for (j, &i) in standing.iter().enumerate().filter(|&(j, _)| broken[j]) {
                assert_eq!(all.0[i].stage, Some(stage as u8), "{method} {norm} image {i}");
                assert_eq!(all.1.last[i * D..(i + 1) * D], alone.1.last[j * D..(j + 1) * D]);
            }
            standing = standing.iter().zip(&broken).filter(|(_, broken)| !**broken).map(|(&i, _)| i).collect();
        }
        assert!((0..60).all(|i| all.0[i].correct_any == standing.contains(&i)));
        let mut asked = Work::default();
        all.0.iter().for_each(|o| o.asked.unwrap().stages().for_each(|work| asked += work));
        assert_eq!(asked, all.1.work, "{norm}");
        assert!(standing.len() > 5 && standing.len() < 50, "{norm}: {} of 60 stand", standing.len());
        // One by one the same.
        for i in [1, 20, 59] {
            let alone = attack(&net, &rows(&data, &[i]), &spec);
            assert_eq!((alone.0[0], &alone.1.last[..]), (all.0[i], &all.1.last[i * D..(i + 1) * D]));
        }
    }
}

/// Known from the number of classes alone, before anything is attacked.
#[test]
fn attacks_and_stages_that_need_more_classes_are_refused() {
    for (method, least) in [
        ("pgd", 2),
        ("apgd-ce", 2),
        ("fab-t", 2),
        ("square", 2),
        ("apgd-dlr", 3),
        ("autoattack-rand", 3),
        ("apgd-t", 4),
        ("autoattack", 4),
    ] {
        let said = Said { method: Some(method.into()), eps: Some(vec![0.01.into()]), ..Said::default() };
        let spec = said.decided().unwrap();
        spec.check_stages(least).unwrap_or_else(|e| panic!("{method}: {e}"));
        let Err(refused) = spec.check_stages(least - 1).map_err(|e| e.to_string()) else {
            assert_eq!(least, 2, "{method}");
            continue;
        };
        assert!(refused.contains(&format!("at least {least} classes")), "{method}: {refused}");
    }
}
