//! Whole denoisers against golden values computed in float64 from the deterministic fill of `models::weights`.

use rampart::defense::denoise::{Denoiser, Gradient};
use rampart::defense::schedule::{Kind, Schedule};
use rampart::device::{DType, Device};
use rampart::models::unet::{Config, UNet};
use rampart::models::weights::{Weights, uniform};
use rampart::ops::diffusion::Range;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

fn cifar() -> Config {
    Config {
        channels: 128,
        channel_mult: vec![1, 2, 2, 2],
        res_blocks: 3,
        attention_factors: vec![2, 4],
        heads: Some(4),
        head_channels: None,
        resblock_updown: false,
        out_channels: 6,
    }
}

fn imagenet(channels: usize, head: usize) -> Config {
    Config {
        channels,
        channel_mult: vec![1, 1, 2, 2, 4, 4],
        res_blocks: 2,
        attention_factors: vec![8, 16, 32],
        heads: None,
        head_channels: Some(head),
        resblock_updown: true,
        out_channels: 6,
    }
}

/// `(N, C, H, W)` values as `(N, H, W, C)`.
fn channels_last(nchw: &[f32], n: usize, c: usize, size: usize) -> Vec<f32> {
    let plane = size * size;
    let from = |i: usize, p: usize, k: usize| nchw[(i * c + k) * plane + p];
    (0..n * plane * c).map(|j| from(j / c / plane, j / c % plane, j % c)).collect()
}

fn filled(name: &str, n: usize, size: usize) -> Vec<f32> {
    channels_last(&uniform(name, n * 3 * size * size).collect::<Vec<_>>(), n, 3, size)
}

struct Run {
    /// `(N, H, W, C)`
    y: Vec<f32>,
    c: usize,
    size: usize,
    /// root mean square of each block's output for image 0
    trace: Vec<f64>,
}

impl Run {
    fn at(&self, i: usize, c: usize, h: usize, w: usize) -> f64 {
        f64::from(self.y[((i * self.size + h) * self.size + w) * self.c + c])
    }

    /// Mean and root mean square of a channel.
    fn channel(&self, i: usize, c: usize) -> (f64, f64) {
        let plane = (self.size * self.size) as f64;
        let values = (0..self.size * self.size).map(|p| self.at(i, c, p / self.size, p % self.size));
        let (sum, squares) = values.fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
        (sum / plane, (squares / plane).sqrt())
    }
}

fn run(config: &Config, size: usize, tau: &[f32]) -> Run {
    let device = Device::host().unwrap();
    let net = UNet::new(&device, Precision::F32, &Weights::seeded(), config, config.out_channels).unwrap();
    let n = tau.len();
    let x = Tensor::from_f32(&device, &[n, size, size, 3], DType::F32, &filled("input", n, size)).unwrap();
    let g = Graph::inference(&device, Precision::F32);
    let mut trace = Vec::new();
    let y = net
        .observe(&g, &x, &net.condition(tau).unwrap(), &mut |_, t| {
            let first = t.rows(0, 1).unwrap().to_f32(&device).unwrap();
            trace.push((first.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / first.len() as f64).sqrt());
        })
        .unwrap();
    Run { y: y.to_f32(&device).unwrap(), c: config.out_channels, size, trace }
}

/// Values of the reference are printed to 8 digits; a float32 network lies within 2e-5 of them.
#[track_caller]
fn near(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-5, "{what}: got {got:.8}, want {want:.8}");
}

#[track_caller]
fn near_all(what: &str, got: impl Iterator<Item = f64>, want: &[f64]) {
    let got: Vec<f64> = got.collect();
    assert_eq!(got.len(), want.len(), "{what}");
    got.iter().zip(want).enumerate().for_each(|(i, (g, w))| near(&format!("{what}[{i}]"), *g, *w));
}

#[track_caller]
fn near_trace(run: &Run, want: &[f64]) {
    assert_eq!(run.trace.len(), want.len());
    for (i, (got, want)) in run.trace.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 4e-6, "block {i}: got {got:.6}, want {want:.6}");
    }
}

#[test]
fn the_cifar_network() {
    let r = run(&cifar(), 32, &[289.5, 496.0]);
    #[rustfmt::skip]
    let (mean, rms) = (
        [[-0.36507172, 0.12686262, -0.10666014, 0.40962237, 0.00081974, 0.26037143],
         [-0.26081002, 0.00578634, -0.22653792, 0.38590575, -0.00615087, 0.26933688]],
        [[0.58065609, 0.46009754, 0.50852258, 0.61327969, 0.44916864, 0.50442214],
         [0.52591134, 0.46491616, 0.56614247, 0.62247378, 0.48222690, 0.54271102]],
    );
    for i in 0..2 {
        near_all("mean", (0..6).map(|c| r.channel(i, c).0), &mean[i]);
        near_all("rms", (0..6).map(|c| r.channel(i, c).1), &rms[i]);
    }
    let row =
        |i: usize, c: usize, h: usize, w: usize, n: usize| (w..w + n).map(|w| r.at(i, c, h, w)).collect::<Vec<_>>();
    near_all(
        "item 0",
        row(0, 0, 0, 0, 6).into_iter(),
        &[-0.02083077, -0.27468249, -0.33693392, -0.10844099, 0.10147602, -0.41285590],
    );
    near_all(
        "item 1",
        row(1, 0, 0, 0, 6).into_iter(),
        &[0.18289566, -0.01778891, 0.36976331, 0.46397465, 0.00601288, -0.56008454],
    );
    near_all("item 0", row(0, 2, 16, 16, 4).into_iter(), &[-0.65884367, -0.26911625, 0.24355606, -0.11353062]);
    near_all("item 1", row(1, 2, 16, 16, 4).into_iter(), &[-0.69097054, -0.59114216, -0.79896319, -0.42068744]);
    near("item 0", r.at(0, 5, 31, 31), 0.22866947);
    near("item 1", r.at(1, 5, 31, 31), 0.13535639);
    near_trace(
        &r,
        &[
            0.579615, 0.842309, 1.066142, 1.318853, 1.355003, 1.571496, 1.795875, 1.989356, 1.936691, 2.076700,
            2.345089, 2.564538, 2.383152, 2.465588, 2.543809, 2.630190, 2.790263, 2.837484, 2.717337, 2.690534,
            2.414632, 2.643107, 2.708350, 2.740368, 2.515631, 2.590503, 2.361408, 2.180974, 2.164322, 2.177272,
            1.891475, 1.719532, 1.555740,
        ],
    );
}

#[test]
fn the_cifar_network_has_its_public_size() {
    let device = Device::host().unwrap();
    let net = UNet::new(&device, Precision::F32, &Weights::seeded(), &cifar(), 3).unwrap();
    assert_eq!(net.parameters(), 52_546_438);
}

#[test]
fn the_reduced_imagenet_network() {
    let r = run(&imagenet(32, 32), 64, &[145.0]);
    near_all(
        "mean",
        (0..6).map(|c| r.channel(0, c).0),
        &[0.07632848, 0.02484845, -0.17366452, 0.17433424, 0.17157203, 0.20748718],
    );
    near_all(
        "rms",
        (0..6).map(|c| r.channel(0, c).1),
        &[0.57560333, 0.57334534, 0.59435025, 0.56770486, 0.56637300, 0.56447855],
    );
    near_all(
        "row",
        (0..6).map(|w| r.at(0, 0, 0, w)),
        &[-0.24376534, 0.71590467, -0.58537085, 0.36796274, 0.54781674, 0.04924651],
    );
    near_all("middle", (32..36).map(|w| r.at(0, 2, 32, w)), &[0.05053097, 0.63047919, 0.31768443, 0.16395489]);
    near("corner", r.at(0, 5, 63, 63), 0.06570056);
    near_trace(
        &r,
        &[
            0.581862, 0.855625, 1.025925, 0.886562, 1.161847, 1.301347, 1.116094, 1.273162, 1.416851, 1.216753,
            1.513188, 1.741948, 1.596790, 1.831947, 2.134060, 2.001099, 2.269536, 2.586480, 2.873437, 2.929830,
            2.689204, 2.766681, 2.692044, 2.638331, 2.850890, 2.553559, 1.913037, 1.900369, 1.766584, 1.817746,
            1.759737, 1.717135, 1.518131, 1.573627, 1.466966, 1.390313, 1.266685,
        ],
    );
}

/// 552 million parameters: `cargo test --release --test unet -- --ignored` takes 6 GB.
#[test]
#[ignore = "takes 6 GB of memory"]
fn the_full_imagenet_network() {
    let r = run(&imagenet(256, 64), 64, &[145.0]);
    near_all(
        "mean",
        (0..6).map(|c| r.channel(0, c).0),
        &[0.06060146, 0.57477207, -0.25051491, 0.62404150, 0.01451823, 0.97811944],
    );
    near_all(
        "rms",
        (0..6).map(|c| r.channel(0, c).1),
        &[0.50806241, 0.76221833, 0.52083836, 0.79192219, 0.48831919, 1.10379022],
    );
    near_all(
        "row",
        (0..6).map(|w| r.at(0, 0, 0, w)),
        &[0.33143789, -0.43631959, 1.01088943, -0.04624146, 0.90812203, 0.59093785],
    );
    near_all("middle", (32..36).map(|w| r.at(0, 2, 32, w)), &[0.70836238, 0.51824475, 0.22403643, -0.05035439]);
    near("corner", r.at(0, 5, 63, 63), 0.24787780);
    near_trace(
        &r,
        &[
            0.580885, 0.873883, 1.095251, 0.986871, 1.185113, 1.371163, 1.271172, 1.453229, 1.565583, 1.637210,
            2.021903, 2.279293, 2.305652, 2.573642, 2.816684, 2.758605, 2.980921, 3.164980, 3.356358, 3.459819,
            3.356921, 3.235939, 3.191763, 3.101919, 3.234059, 3.230730, 2.803138, 2.685915, 2.309162, 2.031332,
            1.978403, 1.913458, 1.727294, 1.707401, 1.553331, 1.409793, 1.304078,
        ],
    );
}

/// The complete one-shot step; the noise is uniform, used as if it were Gaussian.
fn one_shot(config: &Config, schedule: Schedule, tau_scale: f32, sigma: f64, n: usize, size: usize) -> Run {
    let device = Device::host().unwrap();
    let denoiser = Denoiser::new(&device, Precision::F32, &Weights::seeded(), config, schedule, tau_scale).unwrap();
    let image: Vec<f32> = filled("input", n, size).iter().map(|v| 0.5 + 0.5 * v).collect();
    let upload = |v: &[f32]| Tensor::from_f32(&device, &[n, size, size, 3], DType::F32, v).unwrap();
    let g = Graph::inference(&device, Precision::F32);
    let level = denoiser.level(sigma).unwrap();
    let x0 = denoiser
        .estimate(&g, &upload(&image), &upload(&filled("noise", n, size)), &level, Range::SAME, Gradient::Exact)
        .unwrap();
    Run { y: x0.to_f32(&device).unwrap(), c: 3, size, trace: vec![] }
}

#[test]
fn the_defence_on_cifar() {
    let r = one_shot(&cifar(), Schedule::new(Kind::Cosine, 4000).unwrap(), 0.25, 0.25, 2, 32);
    near_all("mean", (0..3).map(|c| r.channel(0, c).0), &[0.13005675, -0.07636134, 0.06922245]);
    near_all("rms", (0..3).map(|c| r.channel(0, c).1), &[0.61035651, 0.63556605, 0.63170331]);
    near_all(
        "item 0",
        (0..6).map(|w| r.at(0, 0, 0, w)),
        &[-0.75876038, 0.02999180, -0.28500399, 0.01064162, 0.17552221, 0.17452633],
    );
    near_all("mean", (0..3).map(|c| r.channel(1, c).0), &[0.13444018, -0.03291886, 0.05288640]);
    near_all("item 1", (0..6).map(|w| r.at(1, 0, 0, w)), &[0.82292456, 0.23700816, -1.0, 0.16543566, 1.0, 0.14148653]);
    assert_eq!(r.y.iter().filter(|v| v.abs() == 1.0).count(), 954);
}

#[test]
fn the_defence_with_the_reduced_imagenet_network() {
    let r = one_shot(&imagenet(32, 32), Schedule::new(Kind::Linear, 1000).unwrap(), 1.0, 0.5, 1, 64);
    near_all("mean", (0..3).map(|c| r.channel(0, c).0), &[-0.06451658, -0.01179065, 0.10153400]);
    near_all("rms", (0..3).map(|c| r.channel(0, c).1), &[0.75172505, 0.68899181, 0.73359974]);
    near_all("row", (0..6).map(|w| r.at(0, 0, 0, w)), &[-0.89404235, -1.0, -0.03924136, 0.34967795, -0.61236870, -1.0]);
    assert_eq!(r.y.iter().filter(|v| v.abs() == 1.0).count(), 4054);
}
