//! What comes before a context; a process of its own, since `cuInit` reads the environment once.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use ptx_emulator::driver::{context::*, device::*, embed::*, errors::*, memory::*, types::*};

#[test]
fn initialisation_reads_the_environment_once() {
    let mut count = 0;
    unsafe {
        assert_eq!(cuDeviceGetCount(&mut count), ERROR_NOT_INITIALIZED);
        assert_eq!(cuMemAlloc_v2(&mut 0, 4), ERROR_NOT_INITIALIZED);
        assert_eq!(cuDriverGetVersion(&mut count), SUCCESS);
        assert_eq!(count, 13_000);
        assert_eq!(cuDriverGetVersion(null_mut()), ERROR_INVALID_VALUE);
        assert_eq!(cuInit(1), ERROR_INVALID_VALUE);

        // SAFETY: the only test of this process.
        std::env::set_var("PTX_EMULATOR_MODEL", "v100");
        assert_eq!(cuInit(0), ERROR_INVALID_VALUE);
        let mut text = null();
        assert_eq!(cuGetErrorString(ERROR_INVALID_VALUE, &mut text), SUCCESS);
        let text = CStr::from_ptr(text).to_str().unwrap();
        assert!(text.contains("PTX_EMULATOR_MODEL") && text.contains("v100"), "{text}");
        assert_eq!(cuDeviceGetCount(&mut count), ERROR_NOT_INITIALIZED);

        std::env::set_var("PTX_EMULATOR_MODEL", "h100");
        for (name, value) in [
            ("PTX_EMULATOR_THREADS", "99999999"),
            ("PTX_EMULATOR_SEED", "x"),
            ("PTX_EMULATOR_CHECKS", "yes"),
            ("PTX_EMULATOR_COUNTERS", "2"),
            ("PTX_EMULATOR_LINTS", ""),
            ("PTX_EMULATOR_LAZY", "no"),
            ("PTX_EMULATOR_DEVICES", "17"),
            ("PTX_EMULATOR_FINDINGS", "/nowhere/to/be/found"),
        ] {
            std::env::set_var(name, value);
            assert_eq!(cuInit(0), ERROR_INVALID_VALUE, "{name}");
            let mut text = null();
            assert_eq!(cuGetErrorString(ERROR_INVALID_VALUE, &mut text), SUCCESS);
            let text = CStr::from_ptr(text).to_str().unwrap();
            assert!(text.contains(name) && text.contains(value), "{text}");
            std::env::remove_var(name);
        }
        assert_eq!(cuInit(0), SUCCESS);
        assert_eq!(cuInit(0), SUCCESS);
        assert_eq!(cuDeviceGetAttribute(&mut count, 75, 0), SUCCESS);
        assert_eq!(count, 9);

        // The program goes before the environment, until there is a context.
        assert_eq!(ptx_emulator_configure(c"{\"model\": \"a100\"}".as_ptr()), SUCCESS);
        assert_eq!(cuDeviceGetAttribute(&mut count, 75, 0), SUCCESS);
        assert_eq!(count, 8);
        for wrong in [c"{\"model\": 7}", c"{\"seeds\": 7}", c"seed"] {
            assert_eq!(ptx_emulator_configure(wrong.as_ptr()), ERROR_INVALID_VALUE);
        }
        assert_eq!(ptx_emulator_configure(null()), ERROR_INVALID_VALUE);
        let mut context = null_mut();
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), SUCCESS);
        assert_eq!(ptx_emulator_configure(c"{\"seed\": 1}".as_ptr()), ERROR_PRIMARY_CONTEXT_ACTIVE);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), SUCCESS);
        assert_eq!(ptx_emulator_configure(c"{\"seed\": 1}".as_ptr()), SUCCESS);
    }
}
