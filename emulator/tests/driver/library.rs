//! Libraries, links, kernel nodes, and functions that are not emulated.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use crate::common::*;
use ptx_emulator::driver::{
    device::*, function::*, graph::*, header, library::*, link::*, module::*, peer::*, proc_address::*, types::*,
};

fn library() -> CUlibrary {
    let mut library = null_mut();
    let code = KERNELS.as_ptr().cast();
    ok(unsafe { cuLibraryLoadData(&mut library, code, null(), null_mut(), 0, null(), null_mut(), 0) });
    library
}

#[test]
fn a_library_has_kernels_without_a_context() {
    let session = Session::new();
    let library = library();
    let (mut kernel, mut function, mut count) = (null_mut(), null_mut(), 0);
    unsafe {
        ok(cuLibraryGetKernel(&mut kernel, library, c"step".as_ptr()));
        ok(cuKernelGetFunction(&mut function, kernel));
        let x = session.upload(&[1, 2, 3]);
        ok(step(function, x, 10, 3, null_mut()));
        // The kernel itself can be launched, too.
        ok(step(kernel, x, 10, 3, null_mut()));
        assert_eq!(download(x, 3), [111, 211, 311]);
        free(x);

        let mut same = null_mut();
        ok(cuLibraryGetKernel(&mut same, library, c"step".as_ptr()));
        assert_eq!(same, kernel);
        ok(cuLibraryGetKernelCount(&mut count, library));
        let mut all = vec![null_mut(); count as usize];
        ok(cuLibraryEnumerateKernels(all.as_mut_ptr(), count, library));
        assert!(count > 5 && all.contains(&kernel));
        let (mut name, mut value, mut offset, mut bytes) = (null(), 0, 0, 0);
        ok(cuKernelGetName(&mut name, kernel));
        assert_eq!(CStr::from_ptr(name), c"step");
        ok(cuKernelGetAttribute(&mut value, 0, kernel, 0));
        assert_eq!(value, 1024);
        ok(cuKernelSetAttribute(8, 60_000, kernel, 0));
        ok(cuFuncGetAttribute(&mut value, 8, function));
        assert_eq!(value, 60_000);
        ok(cuKernelGetParamInfo(kernel, 1, &mut offset, &mut bytes));
        assert_eq!((offset, bytes), (8, 4));
        let (mut at, mut size) = (0, 0);
        ok(cuLibraryGetGlobal(&mut at, &mut size, library, c"table".as_ptr()));
        assert_eq!(download(at, 4), [1, 2, 3, 4]);
        let mut module = null_mut();
        ok(cuLibraryGetModule(&mut module, library));
        ok(cuModuleGetFunction(&mut same, module, c"step".as_ptr()));
        assert_eq!(same, function);

        fails(cuLibraryGetKernel(&mut same, library, c"nowhere".as_ptr()), ERROR_NOT_FOUND, "nowhere");
        ok(cuLibraryUnload(library));
        fails(cuLibraryUnload(library), ERROR_INVALID_HANDLE, "library");
        fails(cuKernelGetFunction(&mut function, kernel), ERROR_INVALID_HANDLE, "kernel");
    }
}

#[test]
fn links_join_texts() {
    let session = Session::new();
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
    let one = format!(
        "{head}.extern .func (.param .b32 r) three();\n.extern .global .b32 four;\n.visible .entry k(.param .u64 o) {{ .param .b32 r; .reg .b64 %o, %f; \
         .reg .b32 %r<2>; ld.param.u64 %o, [o]; call (r), three, (); ld.param.b32 %r0, [r]; ld.global.b32 %r1, [four]; \
         add.u32 %r0, %r0, %r1; st.global.b32 [%o], %r0; ret; }}\n\0"
    );
    let two = format!(
        "{head}.visible .global .b32 four = 4;\n.visible .func (.param .b32 r) three() {{ st.param.b32 [r], 3; ret; }}\n\0"
    );
    let (mut link, mut image, mut bytes, mut module) = (null_mut(), null_mut(), 0, null_mut());
    unsafe {
        let add = |link, text: &str| {
            cuLinkAddData_v2(link, 1, text.as_ptr() as *mut c_void, text.len(), null(), 0, null(), null_mut())
        };
        ok(cuLinkCreate_v2(0, null(), null_mut(), &mut link));
        fails(cuLinkComplete(link, &mut image, &mut bytes), ERROR_INVALID_VALUE, "nothing");
        fails(add(link, ".version 8.0 oops"), ERROR_INVALID_PTX, "PTX line 1");
        ok(add(link, &one));
        ok(add(link, &two));
        ok(cuLinkComplete(link, &mut image, &mut bytes));
        ok(cuModuleLoadData(&mut module, image));
        ok(cuLinkDestroy(link));
        fails(cuLinkDestroy(link), ERROR_INVALID_HANDLE, "link");
        let x = session.upload(&[0]);
        ok(launch(function_of(module, "k"), 1, null_mut(), &mut arguments![x]));
        assert_eq!(download(x, 1), [7]);
        free(x);
    }
}

#[test]
fn kernel_nodes_run_in_order() {
    let session = Session::new();
    let function = session.function("step");
    let x = session.upload(&[1, 2]);
    let (mut graph, mut exec) = (null_mut(), null_mut());
    let (mut nodes, n) = ([null_mut(); 3], 2);
    unsafe {
        ok(cuGraphCreate(&mut graph, 0));
        for (i, factor) in [10, 100].into_iter().enumerate() {
            let mut arguments = arguments![x, factor, n];
            let parameters = CUDA_KERNEL_NODE_PARAMS {
                func: function,
                gridDimX: 1,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: 32,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: 0,
                kernelParams: arguments.as_mut_ptr(),
                extra: null_mut(),
                kern: null_mut(),
                ctx: null_mut(),
            };
            let before = nodes;
            ok(cuGraphAddKernelNode_v2(&mut nodes[i], graph, before.as_ptr(), i, &parameters));
            let too_many = CUDA_KERNEL_NODE_PARAMS { blockDimX: 2000, ..parameters };
            let refused = cuGraphAddKernelNode_v2(&mut nodes[2], graph, null(), 0, &too_many);
            fails(refused, ERROR_INVALID_VALUE, "2000 threads");
        }
        ok(cuGraphAddEmptyNode(&mut nodes[2], graph, nodes.as_ptr(), 2));
        fails(cuGraphAddEmptyNode(&mut nodes[2], graph, [77 as CUgraphNode].as_ptr(), 1), ERROR_INVALID_HANDLE, "node");
        ok(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        ok(cuGraphLaunch(exec, null_mut()));
        assert_eq!(download(x, 2), [1101, 2101]);
        ok(cuGraphLaunch(exec, null_mut()));
        assert_eq!(download(x, 2), [1_101_101, 2_101_101]);
        ok(cuGraphExecDestroy(exec));
        ok(cuGraphDestroy(graph));
    }
    free(x);
}

#[test]
fn a_device_has_no_peers_and_a_place() {
    let session = Session::new();
    let (mut can, mut major, mut minor, mut device, mut version) = (9, 0, 0, 9, 0);
    let mut name = [0; 16];
    unsafe {
        ok(cuDeviceCanAccessPeer(&mut can, 0, 0));
        assert_eq!(can, 0);
        ok(cuDeviceComputeCapability(&mut major, &mut minor, 0));
        assert_eq!((major, minor), (8, 0));
        ok(cuDeviceGetPCIBusId(name.as_mut_ptr(), 16, 0));
        ok(cuDeviceGetByPCIBusId(&mut device, name.as_ptr()));
        assert_eq!(device, 0);
        fails(cuDeviceGetByPCIBusId(&mut device, c"0000:02:00.0".as_ptr()), ERROR_INVALID_DEVICE, "0000:02");
        fails(cuDeviceGetPCIBusId(name.as_mut_ptr(), 5, 0), ERROR_INVALID_VALUE, "no room");
        ok(cuCtxGetApiVersion(session.context, &mut version));
        assert_eq!(version, 3020);
        let mut uuid = CUuuid { bytes: [0x6b; 16] };
        ok(cuDeviceGetUuid_v2(&mut uuid, 0));
        let mut table: *const c_void = (&raw const uuid).cast();
        fails(cuGetExportTable(&mut table, &uuid), ERROR_NOT_FOUND, "no table");
        assert!(table.is_null());
    }
}

#[test]
fn what_is_not_emulated_says_so_by_name() {
    let _session = Session::new();
    let mut found: *mut c_void = null_mut();
    unsafe {
        fails(header::cuTexRefCreate(), ERROR_NOT_SUPPORTED, "cuTexRefCreate is not emulated");
        ok(cuGetProcAddress_v2(c"cuArray3DCreate_v2".as_ptr(), &mut found, 13_000, 0, null_mut()));
        let call: unsafe extern "C" fn() -> CUresult = std::mem::transmute(found);
        fails(call(), ERROR_NOT_SUPPORTED, "cuArray3DCreate_v2 is not emulated");
    }
}
