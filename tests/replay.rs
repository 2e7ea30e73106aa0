//! Attacks whose steps a device replays as a graph: the same as one by one, bit for bit, and without a word to the host in between.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use rampart::attack::{
    Adversarial, Answer, Batch, Classifier, Evaluation, Loss, Norm, Oracle, Profile, Query, Resident, Spec, StepSize,
    Target,
};
use rampart::data::tensors::TensorFile;
use rampart::device::{DType, Device, emulated};
use rampart::models::card::{Card, Takes};
use rampart::models::classifier::Classifier as Network;
use rampart::models::network_shape;
use rampart::models::weights::{Weights, uniform};
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::loss::{Classes, LossKind, loss_of};
use rampart::ops::pointwise::normalize_images;
use rampart::ops::recording;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;
use rampart::{Error, Result};

/// The emulated GPU, and the right to count what it is asked: of one test at a time.
fn device() -> (Device, MutexGuard<'static, ()>) {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let open = || {
        emulated::configure(emulated::Settings { seed: Some(3), checks: Some(true), ..Default::default() });
        Device::emulated().expect("cargo builds it")
    };
    (DEVICE.get_or_init(open).clone(), guard)
}

const SHAPE: [usize; 3] = [3, 4, 3];
const D: usize = 36;
const K: usize = 5;
const N: usize = 13;

/// Convolution, ReLU and a convolution over the whole image; an answer leaves the device or stays there.
struct Tiny {
    device: Device,
    first: Arc<Conv2d>,
    second: Arc<Conv2d>,
    answered: Cell<u64>,
}

/// The same without a form that stays on the device.
struct Asked<'a>(&'a Tiny);

struct Posed<'a>(&'a Tiny, Classes, Option<Classes>);

impl Tiny {
    fn new(device: &Device) -> Self {
        let conv = |name: &str, scale: f32, shape: [usize; 4], window| {
            let w: Vec<f32> = uniform(name, shape.iter().product()).map(|v| scale * v).collect();
            Arc::new(Conv2d::new(device, Precision::F32, &w, shape, None, window).unwrap())
        };
        let first = conv("first", 0.5, [8, 3, 3, 3], Window::square(1, 1));
        let second = conv("second", 0.5, [K, 8, 3, 4], Window::default());
        Tiny { first, second, device: device.clone(), answered: Cell::new(0) }
    }

    /// `(N, 1, 1, K)`
    fn scores(&self, g: &Graph, images: &Tensor) -> Result<Tensor> {
        // Constants that are not on the device before.
        let x = normalize_images(g, images, &[0.5; 3], &[0.25; 3])?;
        let h = conv2d(g, &x, &self.first, None, Activation::Relu)?;
        conv2d(g, &h, &self.second, None, Activation::None)
    }

    fn posed(&self, query: &Query) -> Result<Posed<'_>> {
        let labels = Classes::new(&self.device, "labels", query.labels, K)?;
        let targets = query.targets.map(|targets| Classes::new(&self.device, "targets", targets, K));
        Ok(Posed(self, labels, targets.transpose()?))
    }

    fn ask(&self, images: &Tensor, query: &Query, wanted: bool) -> Result<Evaluation> {
        let Answer { gradient, loss, margin, prediction } = self.posed(query)?.answer(images, wanted)?;
        let prediction = prediction.to_i32(&self.device)?.into_iter().map(|p| p as u32).collect();
        Ok(Evaluation { gradient, loss: loss.to_f32(&self.device)?, margin: margin.to_f32(&self.device)?, prediction })
    }
}

impl Resident for Posed<'_> {
    fn answer(&self, images: &Tensor, wanted: bool) -> Result<Answer> {
        let Posed(net @ Tiny { device, .. }, labels, targets) = self;
        let g = if wanted { recording(device, Precision::F32) } else { Graph::inference(device, Precision::F32) };
        let z = net.scores(&g, images)?;
        let logits = z.reshaped(&[images.shape()[0], K])?;
        let kind = if targets.is_some() { LossKind::CrossEntropyTargeted } else { LossKind::CROSS_ENTROPY };
        let out = loss_of(&g, &logits, labels, targets.as_ref(), kind)?;
        let dz = out.dlogits.reshaped(z.shape())?;
        let gradient = if wanted { Some(g.backward(&z, dz, images)?) } else { None };
        Ok(Answer { gradient, loss: out.loss, margin: out.margin, prediction: out.prediction })
    }
}

impl Oracle for Tiny {
    fn device(&self) -> &Device {
        &self.device
    }
    fn classes(&self) -> usize {
        K
    }
    fn image_shape(&self) -> [usize; 3] {
        SHAPE
    }
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.scores(&Graph::inference(&self.device, Precision::F32), images)?.reshaped(&[images.shape()[0], K])
    }
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.ask(images, query, false)
    }
}

impl Classifier for Tiny {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.ask(images, query, true)
    }
    fn resident<'a>(&'a self, query: &Query) -> Result<Option<Box<dyn Resident + 'a>>> {
        Ok(Some(Box::new(self.posed(query)?)))
    }
    fn answered(&self, times: u64) {
        self.answered.set(self.answered.get() + times);
    }
}

impl Oracle for Asked<'_> {
    fn device(&self) -> &Device {
        self.0.device()
    }
    fn classes(&self) -> usize {
        K
    }
    fn image_shape(&self) -> [usize; 3] {
        SHAPE
    }
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.0.logits(images)
    }
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.0.evaluate(images, query)
    }
}

impl Classifier for Asked<'_> {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.0.gradient(images, query)
    }
}

/// Images and labels: the network's own predictions, but every sixth.
fn data(net: &Tiny) -> (Tensor, Vec<u32>, Vec<u64>) {
    let pixels: Vec<f32> = uniform("pixels", N * D).map(|v| (0.5 + 0.6 * v).clamp(0.0, 1.0)).collect();
    let images = Tensor::from_f32(&net.device, &[N, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, &pixels).unwrap();
    let predicted = net.evaluate(&images, &Query::new(&[0; N], Loss::CrossEntropy)).unwrap().prediction;
    let labels = predicted.iter().enumerate().map(|(i, p)| if i % 6 == 4 { (p + 1) % K as u32 } else { *p }).collect();
    (images, labels, (0..N as u64).map(|i| 31 * i + 7).collect())
}

fn run(net: &dyn Classifier, (images, labels, ids): &(Tensor, Vec<u32>, Vec<u64>), spec: &Spec) -> Adversarial {
    let batch = Batch { images, labels, ids };
    spec.build().unwrap().run(net, batch, spec.eps[0], 5).unwrap()
}

/// Everything that is told, floats by their bits.
fn told(device: &Device, found: &Adversarial) -> (String, Vec<Vec<u32>>) {
    let bits = |x: &Tensor| x.to_f32(device).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let margin = found.outcomes.iter().map(|o| o.margin.to_bits()).collect();
    let loss = found.outcomes.iter().map(|o| o.loss.to_bits()).collect();
    let words = format!("{:?} {:?} {:?}", found.outcomes, found.work, found.works);
    (words, vec![bits(&found.last), bits(&found.best_margin), bits(&found.best), margin, loss])
}

#[test]
fn replayed_steps_find_what_single_steps_find() {
    let (device, _one) = device();
    let net = Tiny::new(&device);
    let data = data(&net);
    let tries = |method: &'static str, norm, profile, targeted, early_stop, restarts, steps, size| {
        let eps = if norm == Norm::Linf { 0.08 } else { 0.25 };
        let row = Spec { method, norm, profile, targeted, early_stop, restarts, steps, ..Spec::default() };
        let averages = row.averages();
        let step = StepSize::OfEps(size);
        Spec { eps: vec![eps], step, stop_cycles: method == "pgd" && !averages, random_start: restarts > 1, ..row }
    };
    let mut all = Vec::new();
    for norm in [Norm::Linf, Norm::L2] {
        for targeted in [Target::None, Target::Next] {
            for early_stop in [false, true] {
                // Within one span, with a rest, and long enough for circles.
                for (restarts, steps, size) in [(1, 10, 0.25), (2, 3, 0.5), (2, 24, 0.4)] {
                    all.push(tries("pgd", norm, Profile::Native, targeted, early_stop, restarts, steps, size));
                }
            }
        }
        for profile in [Profile::Foolbox, Profile::Torchattacks] {
            all.push(tries("pgd", norm, profile, Target::None, false, 1, 12, 0.25));
        }
    }
    for early_stop in [false, true] {
        all.push(tries("mim", Norm::Linf, Profile::Native, Target::None, early_stop, 2, 11, 0.2));
    }
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            for (method, restarts, steps) in [("apgd-ce", 1, 10), ("apgd-ce", 2, 23), ("apgd-t", 1, 12)] {
                all.push(tries(method, norm, Profile::Native, Target::None, early_stop, restarts, steps, 2.0));
            }
        }
    }
    let (mut broken, mut held, mut saved, mut left) = (0, 0, 0, 0);
    for spec in &all {
        let want = run(&Asked(&net), &data, spec);
        net.answered.set(0);
        let got = run(&net, &data, spec);
        assert_eq!(told(&device, &got), told(&device, &want), "{spec:?}");
        assert!(net.answered.get() > 0, "it was not replayed: {spec:?}");
        for o in &want.outcomes {
            broken += usize::from(o.correct_clean && o.first_success.is_some_and(|step| step > 0));
            held += usize::from(o.correct_any);
            saved += o.steps_saved;
            left += usize::from(spec.early_stop && o.steps > 0 && o.steps < spec.steps);
        }
    }
    // Otherwise the test proves nothing.
    assert!(broken > N && held > N && saved > 20 && left > N, "{broken} {held} {saved} {left}");
    assert_eq!(emulated::findings().unwrap(), []);
}

#[test]
fn a_batch_of_one_is_told_as_in_any_other() {
    let (device, _one) = device();
    let net = Tiny::new(&device);
    let (images, labels, ids) = data(&net);
    for method in ["pgd", "apgd-ce", "apgd-t"] {
        let spec = Spec { method, eps: vec![0.08], steps: 12, early_stop: true, restarts: 2, ..Spec::default() };
        let whole = run(&net, &(images.clone(), labels.clone(), ids.clone()), &spec);
        for i in 0..N {
            let one = run(&net, &(images.rows(i, 1).unwrap(), vec![labels[i]], vec![ids[i]]), &spec);
            assert_eq!((one.outcomes[0], one.works[0]), (whole.outcomes[i], whole.works[i]), "{method}, image {i}");
            let row = |x: &Tensor| x.rows(i, 1).unwrap().to_f32(&device).unwrap();
            assert_eq!(one.last.to_f32(&device).unwrap(), row(&whole.last));
            assert_eq!(one.best.to_f32(&device).unwrap(), row(&whole.best));
        }
    }
}

/// A network on seeded weights.
fn network(device: &Device, arch: &str, config: Option<&str>, size: [usize; 2]) -> Network {
    let row = rampart::models::network_row(arch).unwrap();
    let config = serde_json::from_str(config.unwrap_or(row.small)).unwrap();
    let shape = network_shape(arch, config).unwrap();
    Network::new(device, Precision::F32, &Weights::seeded(), shape.as_ref(), &[0.5; 3], &[0.25; 3], size).unwrap()
}

fn images(device: &Device, n: usize, [h, w]: [usize; 2]) -> Tensor {
    let pixels: Vec<f32> = uniform("images", n * h * w * 3).map(|v| 0.5 + 0.5 * v).collect();
    Tensor::from_f32(device, &[n, h, w, 3], DType::F32, &pixels).unwrap()
}

/// The difference between runs of 5 and of 9 steps is four steps.
#[test]
fn a_step_is_one_launch_of_a_graph_and_nothing_else() {
    let (device, _one) = device();
    let config = r#"{"depth":18,"stem":"cifar","width":3,"attention":"cbam","classes":10}"#;
    let net = network(&device, "resnet", Some(config), [8, 8]);
    let (n, images) = (2, images(&device, 2, [8, 8]));
    for (targeted, loss, method) in [
        (Target::None, Loss::CrossEntropy, "pgd"),
        (Target::Next, Loss::Margin, "pgd"),
        (Target::None, Loss::Dlr, "mim"),
        (Target::None, Loss::CrossEntropy, "apgd-ce"),
    ] {
        let count = |steps| {
            let spec = Spec { method, eps: vec![0.03], steps, targeted, loss, random_start: false, ..Spec::default() };
            emulated::tally().unwrap();
            run(&net, &(images.clone(), vec![0, 1], vec![3, 4]), &spec);
            emulated::tally().unwrap()
        };
        // Kernels and constants are there after a first run.
        for steps in [5, 9] {
            count(steps);
        }
        let (five, nine) = (count(5), count(9));
        assert_eq!((five.graph_launches, nine.graph_launches), (5, 9), "{method}");
        assert_eq!(five.copies_to_device, nine.copies_to_device, "{method}");
        assert_eq!(five.bytes_to_device, nine.bytes_to_device, "{method}");
        assert_eq!(five.copies_to_host, nine.copies_to_host, "{method}");
        assert_eq!(five.copies_within_device, nine.copies_within_device, "{method}");
        assert_eq!((five.fills, five.synchronisations), (nine.fills, nine.synchronisations), "{method}");
        assert_eq!((nine.kernels - five.kernels) % 4, 0, "{method}");
        // A loss, a margin and a prediction per image, and a digest where circles are looked for.
        let words = if method == "pgd" { 7 } else { 3 };
        assert!(nine.bytes_to_host - five.bytes_to_host >= 4 * n * words * 4, "{method}: {five} {nine}");
    }
    assert_eq!(emulated::findings().unwrap(), []);
}

#[test]
fn every_network_can_be_captured() {
    let (device, _one) = device();
    let alone = r#"{"stem":[8,16],"dims":[16,32,64,64],"depths":[1,1,1,1],"types":"CCTT","head_dim":32,"rel_pos_hidden":16,"image":32,"classes":10}"#;
    let networks = [
        ("resnet", None, [16, 16]),
        ("resnet", Some(r#"{"depth":50,"stem":"imagenet","width":4,"attention":"cbam","classes":10}"#), [32, 32]),
        ("resnet_study", None, [16, 16]),
        ("coatnet", None, [64, 64]),
        // Its last attention is over a single token.
        ("coatnet", Some(alone), [32, 32]),
    ];
    for (arch, config, size) in networks {
        let net = network(&device, arch, config, size);
        let images = images(&device, 2, size);
        for targets in [None, Some(&[3, 4][..])] {
            for loss in [Loss::CrossEntropy, Loss::Dlr, Loss::Margin] {
                let query = Query { targets, ..Query::new(&[1, 2], loss) };
                let resident = net.resident(&query).unwrap().expect("a GPU gains from it");
                device.capture(|| resident.answer(&images, true).map(|_| ())).unwrap();
            }
        }
    }
    let mut graphs = 0;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx");
    for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(dump) = TensorFile::open(&path.with_extension("safetensors")) else { continue };
        let &[_, 3, h, w] = dump.get("in.x").unwrap().shape else { continue };
        let weights = Weights::open(&path.with_extension("onnx")).unwrap();
        let (card, _) = Card::of_graph(&weights, &Takes::default()).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let net = Network::described(&device, precision, &weights, &card, [h, w]).unwrap();
            let images = images(&device, 2, [h, w]);
            let resident =
                net.resident(&Query::new(&[1, 0], Loss::CrossEntropy)).unwrap().expect("a GPU gains from it");
            let captured = device.capture(|| resident.answer(&images, true).map(|_| ())).map(|_| ());
            captured.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        graphs += 1;
    }
    assert!(graphs >= 18, "each graph and its dump: {graphs}");
    let host = Device::host().unwrap();
    let net = network(&host, "resnet", None, [16, 16]);
    assert!(net.resident(&Query::new(&[1], Loss::Dlr)).unwrap().is_none());
    assert_eq!(emulated::findings().unwrap(), []);
}

#[test]
fn what_no_graph_can_do_is_refused_in_a_capture() {
    let (device, _one) = device();
    let values = [1.0, 2.0, 3.0];
    let x = Tensor::from_f32(&device, &[3], DType::F32, &values).unwrap();
    let refused = |words: &str, work: &dyn Fn() -> Result<()>| {
        match device.capture(work).map(|_| ()) {
            Err(Error::Device { problem, .. }) => {
                assert!(problem.contains("capture") && problem.contains(words), "{problem}");
            }
            other => panic!("{words}: {other:?}"),
        }
        // The device is as before.
        assert_eq!(x.to_f32(&device).unwrap(), values);
    };
    refused("an upload of 12 bytes", &|| Tensor::from_f32(&device, &[3], DType::F32, &values).map(|_| ()));
    refused("a download of 12 bytes", &|| x.to_f32(&device).map(|_| ()));
    refused("a wait", &|| device.synchronize());
    refused("other work", &|| device.capture(|| Ok(())).map(|_| ()));
    let text = device.capture(|| Err(Error::Failed("of the work itself".into()))).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text, "of the work itself");
    let changing = Cell::new(0);
    refused("something new", &|| {
        changing.set(changing.get() + 1);
        device.constant(&[changing.get()]).map(|_| ())
    });
    assert_eq!(emulated::findings().unwrap(), []);
}

/// Work that adds what is noted, with memory of its own in between.
#[test]
fn captured_work_runs_at_each_launch_on_either_device() {
    let (gpu, _one) = device();
    for device in [Device::host().unwrap(), gpu] {
        let live = device.memory().live;
        {
            let net = Tiny::new(&device);
            let images = data(&net).0;
            let posed = net.posed(&Query::new(&[1; N], Loss::CrossEntropy)).unwrap();
            let want = posed.answer(&images, true).unwrap().gradient.unwrap().to_f32(&device).unwrap();
            let kept: Cell<Option<Tensor>> = Cell::new(None);
            let work = || {
                kept.set(posed.answer(&images, true)?.gradient);
                Ok(())
            };
            let graph = device.capture(work).unwrap();
            for _ in 0..2 {
                // Whatever runs in between has other memory.
                let other = net.posed(&Query::new(&[2; 5], Loss::CrossEntropy)).unwrap();
                other.answer(&images.rows(0, 5).unwrap(), true).unwrap();
                graph.launch().unwrap();
                let gradient = kept.take().unwrap();
                assert_eq!(gradient.to_f32(&device).unwrap(), want, "{}", device.kind());
                kept.set(Some(gradient));
            }
            drop(graph);
            // A buffer of the graph outlives it.
            assert_eq!(kept.take().unwrap().to_f32(&device).unwrap(), want, "{}", device.kind());
        }
        assert_eq!(device.memory().live, live, "{}", device.kind());
    }
    assert_eq!(emulated::findings().unwrap(), []);
}
