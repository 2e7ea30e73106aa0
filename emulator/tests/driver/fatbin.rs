//! The PTX in module images: every compression, the choice by compute capability, and damaged images.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::CStr;

use ptx_emulator::fatbin::{ImageError, ptx_of_bytes, ptx_of_fatbin, ptx_of_image, target_of};

const IMAGES: [(&str, &[u8]); 5] = [
    ("none", include_bytes!("../fatbin/none.fatbin")),
    ("speed", include_bytes!("../fatbin/speed.fatbin")),
    ("default", include_bytes!("../fatbin/default.fatbin")),
    ("size", include_bytes!("../fatbin/size.fatbin")),
    ("balance", include_bytes!("../fatbin/balance.fatbin")),
];

#[test]
fn every_compression_gives_the_same_text() {
    for (mode, image) in IMAGES {
        for (compute_capability, target) in [((8, 0), 80), ((8, 6), 80), ((9, 0), 90), ((12, 1), 90)] {
            let ptx = ptx_of_fatbin(image, compute_capability).unwrap_or_else(|e| panic!("{mode}: {e}"));
            assert_eq!(target_of(&ptx), Some(target), "{mode} for {compute_capability:?}");
            assert!(ptx.contains(".visible .entry scale(") && ptx.trim_end().ends_with('}'), "{mode}");
            let plain = ptx_of_fatbin(IMAGES[0].1, compute_capability).unwrap();
            assert_eq!(ptx, plain, "{mode}");
            // SAFETY: a whole fatbin.
            assert_eq!(unsafe { ptx_of_image(image.as_ptr(), compute_capability) }, Ok(plain));
        }
        assert_eq!(ptx_of_fatbin(image, (7, 5)), Err(ImageError::TooNew { oldest: 80, device: 75 }));
    }
}

#[test]
fn host_code_holds_a_wrapper() {
    #[repr(C)]
    struct Wrapper(u32, u32, *const u8, *const u8);
    let image = IMAGES[1].1;
    let wrapper = Wrapper(0x4662_43B1, 1, image.as_ptr(), std::ptr::null());
    // SAFETY: a wrapper of a whole fatbin.
    assert_eq!(unsafe { ptx_of_image((&raw const wrapper).cast(), (8, 0)) }, ptx_of_fatbin(image, (8, 0)));
    for inner in [std::ptr::null(), c"no fatbin".as_ptr().cast()] {
        let wrapper = Wrapper(0x4662_43B1, 1, inner, std::ptr::null());
        // SAFETY: a wrapper of nothing, or of a text.
        assert!(matches!(unsafe { ptx_of_image((&raw const wrapper).cast(), (8, 0)) }, Err(ImageError::Corrupt(_))));
    }
}

#[test]
fn text_ends_in_a_nul() {
    let of = |text: &CStr| unsafe { ptx_of_image(text.as_ptr().cast(), (8, 0)) };
    assert_eq!(of(c".version 9.0\n.target sm_80\n").unwrap(), ".version 9.0\n.target sm_80\n");
    assert_eq!(of(c"").unwrap(), "");
    // The beginnings of magic numbers, and no more.
    assert_eq!(of(c"\x7fEL"), Ok("\x7fEL".into()));
    assert!(matches!(of(c"\x50\xED\x55"), Err(ImageError::Corrupt(_))));
    assert_eq!(of(c"\x7fELF"), Err(ImageError::Cubin));
    assert!(matches!(unsafe { ptx_of_image(std::ptr::null(), (8, 0)) }, Err(ImageError::Corrupt(_))));
    assert_eq!(ptx_of_bytes(b".target sm_80", (8, 0)).unwrap(), ".target sm_80");
    assert_eq!(ptx_of_bytes(b"\x7fELF\x02", (8, 0)), Err(ImageError::Cubin));
    assert_eq!(ptx_of_bytes(b"", (8, 0)).unwrap(), "");
}

#[test]
fn targets_are_read() {
    assert_eq!(target_of(".version 9.0\n.target sm_90a, debug\n"), Some(90));
    assert_eq!(target_of("  .target  sm_120\n"), Some(120));
    assert_eq!(target_of("// .target sm_80\n"), None);
    assert_eq!(target_of(".target sm_"), None);
}

/// With its only entries cubins, there is nothing to run.
#[test]
fn cubins_need_a_gpu() {
    let mut image = IMAGES[0].1.to_vec();
    let second = 16 + 80 + 808;
    for entry in [16, second] {
        assert_eq!(image[entry], 1);
        image[entry] = 2;
    }
    assert_eq!(ptx_of_fatbin(&image, (8, 0)), Err(ImageError::Cubin));
    for entry in [16, second] {
        image[entry] = 64;
    }
    assert!(matches!(ptx_of_fatbin(&image, (8, 0)), Err(ImageError::Corrupt(_))));
}

/// Every cut and many flipped bytes: an error or a text, never a panic. Under a memory checker, never a read outside.
#[test]
fn damage_is_an_error() {
    for (mode, image) in IMAGES {
        for end in 0..image.len() {
            let cut = image[..end].to_vec();
            assert!(matches!(ptx_of_fatbin(&cut, (9, 0)), Err(ImageError::Corrupt(_))), "{mode} cut at {end}");
        }
        for at in 0..image.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = image.to_vec();
                damaged[at] ^= flip;
                let _ = ptx_of_fatbin(&damaged, (9, 0));
            }
        }
    }
    // A size that nothing could have: refused before memory is taken.
    for (mode, image) in &IMAGES[1..] {
        let mut damaged = image.to_vec();
        damaged[16 + 56..16 + 64].copy_from_slice(&u64::MAX.to_le_bytes());
        let e = ptx_of_fatbin(&damaged, (8, 0)).unwrap_err();
        assert!(e.to_string().contains("decompressed size is impossible"), "{mode}: {e}");
        damaged[16 + 56..16 + 64].copy_from_slice(&806u64.to_le_bytes());
        assert!(matches!(ptx_of_fatbin(&damaged, (8, 0)), Err(ImageError::Corrupt(_))), "{mode}");
    }
}
