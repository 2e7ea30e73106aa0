//! Modules, functions and their attributes, occupancy.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use crate::common::*;
use ptx_emulator::driver::{function::*, module::*, occupancy::*, types::*, unsupported::*};

fn load(image: &CStr) -> CUresult {
    unsafe { cuModuleLoadData(&mut null_mut(), image.as_ptr().cast()) }
}

#[test]
fn text_is_loaded_and_refused() {
    let session = Session::new();
    let module = session.module();
    let mut function = null_mut();
    unsafe {
        let missing = cuModuleGetFunction(&mut function, module, c"missing".as_ptr());
        fails(missing, ERROR_NOT_FOUND, "no kernel missing");
        fails(cuModuleGetFunction(&mut function, module, null()), ERROR_INVALID_VALUE, "null");
        let fill = function_of(module, "fill");
        assert_eq!(function_of(module, "fill"), fill);
        let mut name = null();
        ok(cuFuncGetName(&mut name, fill));
        assert_eq!(CStr::from_ptr(name), c"fill");
        ok(cuModuleUnload(module));
        fails(cuModuleUnload(module), ERROR_INVALID_HANDLE, "module");
        fails(cuModuleGetFunction(&mut function, module, c"fill".as_ptr()), ERROR_INVALID_HANDLE, "module");
        fails(launch(fill, 1, null_mut(), &mut []), ERROR_INVALID_HANDLE, "function");
        fails(cuFuncGetName(&mut name, fill), ERROR_INVALID_HANDLE, "function");
        fails(cuModuleLoadData(&mut function, null()), ERROR_INVALID_VALUE, "null");
    }
    fails(load(c""), ERROR_INVALID_IMAGE, ".target");
    fails(load(c"\x7fELF\x02\x01"), ERROR_NO_BINARY_FOR_GPU, "cubin needs a GPU");
    fails(load(c".version 9.0\n.target sm_90\n.address_size 64\n"), ERROR_INVALID_PTX, "sm_90");
    fails(load(c".version 9.6\n.target sm_80\n.address_size 64\n"), ERROR_UNSUPPORTED_PTX_VERSION, "9.0 to 9.5");
    fails(load(c"\xef\xbb\xbf.version 9.0\n.target sm_80\n.address_size 64\n"), ERROR_INVALID_PTX, "byte order mark");
    fails(load(c"\xff\xfe."), ERROR_INVALID_IMAGE, "UTF-16");
    let unknown = c".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry f() {\n frobnicate.u32;\n}\n";
    fails(load(unknown), ERROR_INVALID_PTX, "frobnicate");
    fails(load(unknown), ERROR_INVALID_PTX, "kernel f");
    fails(load(c".version 9.0\n.target sm_90\n.address_size 64\n"), ERROR_INVALID_PTX, "PTX_EMULATOR_MODEL=h100");
    // Whatever is wrong in a kernel, also with its syntax, is told with the line of its source; nvcc says the file's name at the end.
    for (body, words) in [
        ("add.u32 %r, %r, 1\nret;", "expected `,` or `;`"),
        ("add.u32 %r, %r, 0f12;", "not a number"),
        ("ld.u32 %r, [%r+%r];", "expected an integer"),
        ("tex.1d.v4.u32.s32 {%r, %r, %r, %r}, [%r, {%r}];", "textures"),
        ("add.u32 %r, %r, %q;", "unknown name %q"),
    ] {
        let text = format!(
            ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry f() {{\n.reg .b32 %r;\n.loc 1 42 3\n{body}\n}}\n\
             .file 1 \"a.cu\"\n"
        );
        let text = std::ffi::CString::new(text).unwrap();
        fails(load(&text), ERROR_INVALID_PTX, words);
        fails(load(&text), ERROR_INVALID_PTX, "; kernel f, a.cu:42");
    }
    for (body, words) in [
        ("L: ret; L: ret;", "a second label L"),
        (".reg .b32 %r<2>; .reg .b32 %r<3>; ret;", "a second declaration of the registers %r"),
        (".shared .b8 s[49153]; ret;", "49153 bytes of shared memory"),
    ] {
        let text = format!(".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry f() {{ {body} }}\n");
        fails(load(&std::ffi::CString::new(text).unwrap()), ERROR_INVALID_PTX, words);
    }
    drop(session);
    // Or when the kernel is asked for.
    let _session = Session::with(r#"{"lazy": true, "seed": 0, "threads": 1}"#);
    let mut module = null_mut();
    ok(unsafe { cuModuleLoadData(&mut module, unknown.as_ptr().cast()) });
    let compiled = unsafe { cuModuleGetFunction(&mut function, module, c"f".as_ptr()) };
    fails(compiled, ERROR_INVALID_PTX, "frobnicate");
    ok(unsafe { ptx_emulator::driver::module::cuModuleUnload(module) });
}

#[test]
fn files_and_fatbins_are_loaded() {
    let session = Session::new();
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/");
    let mut module = null_mut();
    for file in ["driver/kernels.ptx", "fatbin/none.fatbin", "fatbin/speed.fatbin", "fatbin/size.fatbin"] {
        let path = CString::new(format!("{tests}{file}")).unwrap();
        ok(unsafe { cuModuleLoad(&mut module, path.as_ptr()) });
        function_of(module, if file.ends_with("ptx") { "fill" } else { "scale" });
    }
    fails(unsafe { cuModuleLoad(&mut module, c"no such file".as_ptr()) }, ERROR_FILE_NOT_FOUND, "no such file");
    let image = include_bytes!("../fatbin/default.fatbin");
    ok(unsafe { cuModuleLoadFatBinary(&mut module, image.as_ptr().cast()) });
    ok(unsafe { cuModuleLoadData(&mut module, image.as_ptr().cast()) });
    let mut damaged = *image;
    damaged[120] ^= 0xFF;
    damaged[130] ^= 0xFF;
    fails(unsafe { cuModuleLoadData(&mut module, damaged.as_ptr().cast()) }, ERROR_INVALID_IMAGE, "corrupt");
    drop(session);
}

#[test]
fn load_options_return_the_error_log() {
    let _session = Session::new();
    let mut log = [0x7F as c_char; 256];
    let mut module = null_mut();
    let mut load = |image: &CStr, room: usize| unsafe {
        let options: [c_int; 3] = [7, 5, 6];
        let mut values = [4 as *mut c_void, log.as_mut_ptr().cast(), room as *mut c_void];
        let code = cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 3, options.as_ptr(), values.as_mut_ptr());
        let text = CStr::from_ptr(log.as_ptr()).to_str().unwrap().to_owned();
        assert_eq!(values[2] as usize, text.len());
        (code, text)
    };
    assert_eq!(load(KERNELS, 256), (SUCCESS, String::new()));
    let (code, text) = load(c".version 9.0\n.target sm_90\n", 256);
    fails(code, ERROR_INVALID_PTX, &text);
    assert!(text.contains("sm_90"), "{text}");
    let (_, cut) = load(c".version 9.0\n.target sm_90\n", 8);
    assert_eq!(cut, text[..7]);
    unsafe {
        let mut load = |options: *const c_int| {
            cuModuleLoadDataEx(&mut module, KERNELS.as_ptr().cast(), 1, options, &mut null_mut())
        };
        fails(load(&77), ERROR_INVALID_VALUE, "option 77");
        fails(load(null()), ERROR_INVALID_VALUE, "options are null");
    }
}

#[test]
fn variables_have_addresses() {
    let session = Session::new();
    let module = session.module();
    let (mut at, mut bytes) = (0, 0);
    unsafe {
        ok(cuModuleGetGlobal_v2(&mut at, &mut bytes, module, c"counter".as_ptr()));
        assert_eq!(bytes, 4);
        assert_eq!(download(at, 1), [7]);
        ok(launch(function_of(module, "bump"), 1, null_mut(), &mut []));
        assert_eq!(download(at, 1), [11]);
        ok(cuModuleGetGlobal_v2(null_mut(), &mut bytes, module, c"table".as_ptr()));
        assert_eq!(bytes, 16);
        fails(cuModuleGetGlobal_v2(null_mut(), null_mut(), module, c"table".as_ptr()), ERROR_INVALID_VALUE, "null");
        fails(cuModuleGetGlobal_v2(&mut at, &mut bytes, module, c"none".as_ptr()), ERROR_NOT_FOUND, "none");
        fails(cuModuleGetGlobal_v2(&mut at, &mut bytes, null_mut(), c"none".as_ptr()), ERROR_INVALID_HANDLE, "module");
    }
}

fn attribute(function: CUfunction, number: c_int) -> c_int {
    let mut value = -9;
    ok(unsafe { cuFuncGetAttribute(&mut value, number, function) });
    value
}

#[test]
fn functions_have_attributes() {
    let session = Session::new();
    let module = session.module();
    let (both, bounded, mixed) =
        (function_of(module, "both"), function_of(module, "bounded"), function_of(module, "mixed"));
    assert_eq!((attribute(both, 0), attribute(bounded, 0)), (1024, 64));
    assert_eq!((attribute(both, 1), attribute(bounded, 1)), (1024, 0));
    assert_eq!((attribute(both, 5), attribute(both, 6)), (80, 80));
    assert!((1..=255).contains(&attribute(both, 4)));
    assert_eq!((attribute(both, 8), attribute(bounded, 8)), (47 << 10, 48 << 10));
    unsafe {
        ok(cuFuncSetAttribute(both, 8, 162 << 10));
        assert_eq!(attribute(both, 8), 162 << 10);
        fails(cuFuncSetAttribute(both, 8, (162 << 10) + 1), ERROR_INVALID_VALUE, "both: 165889 bytes");
        fails(cuFuncSetAttribute(both, 8, -1), ERROR_INVALID_VALUE, "-1 bytes");
        ok(cuFuncSetAttribute(both, 9, 100));
        assert_eq!(attribute(both, 9), 100);
        fails(cuFuncSetAttribute(both, 9, 101), ERROR_INVALID_VALUE, "carveout");
        fails(cuFuncSetAttribute(both, 0, 32), ERROR_INVALID_VALUE, "cannot be set");
        fails(cuFuncSetAttribute(both, 14, 1), ERROR_NOT_SUPPORTED, "clusters");
        fails(cuFuncGetAttribute(&mut 0, 99, both), ERROR_INVALID_VALUE, "attribute 99");
        fails(cuFuncGetAttribute(&mut 0, 0, 3 as CUfunction), ERROR_INVALID_HANDLE, "function");
        ok(cuFuncSetCacheConfig(both, 1));
        fails(cuFuncSetCacheConfig(both, 9), ERROR_INVALID_VALUE, "preference 9");

        let (mut offset, mut bytes) = (0, 0);
        let mut layout = Vec::new();
        for index in 0..4 {
            ok(cuFuncGetParamInfo(mixed, index, &mut offset, &mut bytes));
            layout.push((offset, bytes));
        }
        assert_eq!(layout, [(0, 1), (8, 8), (16, 2), (24, 8)]);
        fails(cuFuncGetParamInfo(mixed, 4, &mut offset, null_mut()), ERROR_INVALID_VALUE, "4 parameters");
    }
}

#[test]
fn occupancy_follows_threads_and_shared_memory() {
    let session = Session::new();
    let module = session.module();
    let (nothing, both) = (function_of(module, "nothing"), function_of(module, "both"));
    let blocks = |function, threads, shared| {
        let mut count = -1;
        ok(unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut count, function, threads, shared) });
        count
    };
    // 2048 threads, 32 blocks, 164 KiB of which each block costs 1 KiB more than it asks.
    assert_eq!((blocks(nothing, 1024, 0), blocks(nothing, 256, 0), blocks(nothing, 32, 0)), (2, 8, 32));
    assert_eq!((blocks(nothing, 33, 0), blocks(nothing, 2048, 0)), (32, 0));
    assert_eq!((blocks(nothing, 32, 40 << 10), blocks(both, 32, 39 << 10), blocks(both, 32, 40 << 10)), (4, 4, 3));
    assert_eq!((blocks(nothing, 32, 163 << 10), blocks(nothing, 32, (163 << 10) + 1)), (1, 0));
    unsafe {
        let mut count = 0;
        fails(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut count, nothing, 0, 0), ERROR_INVALID_VALUE, "positive");
        let flags = cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&mut count, nothing, 32, 0, 2);
        fails(flags, ERROR_INVALID_VALUE, "flags 0x2");

        let (mut grid, mut block, mut bytes) = (0, 0, 0);
        ok(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, nothing, None, 0, 0));
        assert_eq!((grid, block), (2 * 108, 1024));
        ok(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, nothing, None, 0, 300));
        assert!(block <= 300 && grid / 108 * block >= 2048 - 256, "{grid} {block}");
        unsafe extern "C" fn a_kib_per_warp(threads: c_int) -> usize {
            threads as usize * 32
        }
        ok(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, nothing, Some(a_kib_per_warp), 0, 0));
        assert_eq!(grid / 108 * block, 2048);
        ok(cuOccupancyAvailableDynamicSMemPerBlock(&mut bytes, nothing, 4, 32));
        assert_eq!(bytes, 40 << 10);
        assert_eq!(blocks(nothing, 32, bytes), 4);
        ok(cuOccupancyAvailableDynamicSMemPerBlock(&mut bytes, nothing, 3, 1024));
        assert_eq!(bytes, 0);
        let clusters = cuOccupancyMaxActiveClusters(&mut count, nothing, null());
        fails(clusters, ERROR_NOT_SUPPORTED, "clusters");
    }
}
