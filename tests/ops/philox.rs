//! Random numbers: published known answers, the same bits here and on the device, and what they may depend on.

use proptest::prelude::*;
use rampart::Error;
use rampart::device::Device;
use rampart::ops::philox::{IDS, Purpose, Stream, normal, philox, to_uniform, uniform, words};

/// Philox4x32-10 in the known-answer file of Random123 (Salmon et al. 2011): counter and key, words.
const KNOWN: [([u32; 6], [u32; 4]); 3] = [
    ([0; 6], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
    ([u32::MAX; 6], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
    (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ),
];

#[test]
fn published_vectors() {
    for (input, expected) in KNOWN {
        let [a, b, c, d, k0, k1] = input;
        assert_eq!(philox([a, b, c, d], [k0, k1]), expected, "{input:x?}");
    }
    let on_device = words(&Device::host().unwrap(), &KNOWN.map(|k| k.0)).unwrap();
    assert_eq!(on_device, KNOWN.map(|k| k.1));
}

/// Streams that differ in one field each, at the ends of the ranges.
fn streams() -> Vec<Stream> {
    let base = Stream::new(0x0123_4567_89ab_cdef, Purpose::Start);
    vec![
        base,
        Stream { seed: 0x0123_4567_89ab_cdee, ..base },
        Stream { seed: 0x8123_4567_89ab_cdef, ..base },
        Stream { purpose: Purpose::Noise, ..base },
        Stream { restart: 1023, ..base },
        Stream { step: 65535, ..base },
        Stream { draw: (1 << 20) - 1, ..base },
    ]
}

#[test]
fn the_device_fills_what_the_words_say() {
    let device = Device::host().unwrap();
    let ids = [0, 1, 41, 1 << 32, IDS - 1];
    let d = 4099; // neither whole quads nor whole blocks
    for stream in streams() {
        let u = uniform(&device, &stream, &ids, &[d]).unwrap().to_f32(&device).unwrap();
        let n = normal(&device, &stream, &ids, &[d]).unwrap().to_f32(&device).unwrap();
        for (row, &id) in ids.iter().enumerate() {
            for quad in 0..d.div_ceil(4) {
                let w = stream.words(id, quad as u32).unwrap();
                let exact = [box_muller(w[0], w[1]), box_muller(w[2], w[3])].concat();
                for i in (0..4).filter(|i| 4 * quad + i < d) {
                    let at = row * d + 4 * quad + i;
                    assert_eq!(u[at].to_bits(), to_uniform(w[i]).to_bits());
                    assert!((0.0..1.0).contains(&u[at]));
                    let err = (f64::from(n[at]) - exact[i]).abs();
                    assert!(err <= 4e-7 * (1.0 + exact[i].abs()), "{w:x?}: {} for {}", n[at], exact[i]);
                }
            }
        }
    }
}

fn box_muller(w0: u32, w1: u32) -> Vec<f64> {
    let radius = (-2.0 * ((f64::from(w0) + 0.5) / 2f64.powi(32)).ln()).sqrt();
    let angle = std::f64::consts::TAU * f64::from(w1) / 2f64.powi(32);
    vec![radius * angle.cos(), radius * angle.sin()]
}

#[test]
fn streams_and_images_share_no_number() {
    let mut seen = std::collections::HashSet::new();
    for stream in streams() {
        for id in [0, 1, 1 << 32, IDS - 1] {
            for quad in [0, 1, u32::MAX] {
                assert!(seen.insert(stream.words(id, quad).unwrap()), "{stream:?} {id} {quad}");
            }
        }
    }
}

#[test]
fn moments_are_those_of_the_distributions() {
    let device = Device::host().unwrap();
    let ids: Vec<u64> = (0..64).collect();
    let stream = Stream::new(7, Purpose::Noise);
    let moment =
        |v: &[f32], k: i32, c: f64| v.iter().map(|&x| (f64::from(x) - c).powi(k)).sum::<f64>() / v.len() as f64;
    let u = uniform(&device, &stream, &ids, &[16384]).unwrap().to_f32(&device).unwrap();
    let n = normal(&device, &stream, &ids, &[16384]).unwrap().to_f32(&device).unwrap();
    // A million draws: five standard errors each.
    assert!((moment(&u, 1, 0.0) - 0.5).abs() < 1.5e-3);
    assert!((moment(&u, 2, 0.5) - 1.0 / 12.0).abs() < 4e-4);
    assert!(moment(&n, 1, 0.0).abs() < 5e-3);
    assert!((moment(&n, 2, 0.0) - 1.0).abs() < 7e-3);
    assert!((moment(&n, 4, 0.0) - 3.0).abs() < 5e-2);
    // Neighbours come from one call of the generator, two of them from one radius.
    for lag in [1, 2, 4, 16384] {
        let product: f64 = n.iter().zip(&n[lag..]).map(|(&a, &b)| f64::from(a * b)).sum();
        assert!((product / n.len() as f64).abs() < 5e-3, "lag {lag}");
    }
}

#[test]
fn what_does_not_fit_the_counter_is_refused() {
    let device = Device::host().unwrap();
    let base = Stream::new(1, Purpose::Start);
    for bad in [Stream { restart: 1 << 10, ..base }, Stream { step: 1 << 16, ..base }, Stream { draw: 1 << 20, ..base }]
    {
        assert!(matches!(bad.words(0, 0), Err(Error::Limit { .. })), "{bad:?}");
    }
    assert!(matches!(base.words(IDS, 0), Err(Error::Limit { what: "image id", .. })));
    assert!(matches!(uniform(&device, &base, &[IDS], &[4]), Err(Error::Limit { .. })));
}

proptest! {
    #[test]
    fn an_image_draws_the_same_in_any_batch(ids in proptest::collection::vec(0..IDS, 1..9), d in 1usize..70, seed: u64) {
        let device = Device::host().unwrap();
        let stream = Stream::new(seed, Purpose::Start);
        let all = normal(&device, &stream, &ids, &[d]).unwrap().to_f32(&device).unwrap();
        for (row, &id) in ids.iter().enumerate() {
            let alone = normal(&device, &stream, &[id], &[d]).unwrap().to_f32(&device).unwrap();
            prop_assert_eq!(&all[row * d..(row + 1) * d], &alone[..]);
        }
    }
}
