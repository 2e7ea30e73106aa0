//! `cuGetProcAddress`: functions by name. A name without suffix means the newest form that the caller's version has.

use std::ffi::{c_char, c_int, c_void};

use super::border::{border, out, text};
use super::failure::fail;
use super::types::*;
use super::{
    context::*, copy::*, device::*, errors::*, event::*, function::*, graph::*, launch::*, memory::*, module::*,
};
use super::{header, library::*, link::*, managed::*, peer::*, rectangles::*};
use super::{occupancy::*, pinned::*, pool::*, stream::*, unsupported::*, virtual_memory::*};

macro_rules! table {
    ($($function:ident)*) => {
        /// Names and addresses of the functions that do something, or refuse with a reason.
        fn emulated() -> [(&'static str, *mut c_void); [$(stringify!($function)),*].len()] {
            [$((stringify!($function), $function as *mut c_void)),*]
        }
    };
}

table! {
    cuInit cuDriverGetVersion cuGetErrorName cuGetErrorString cuGetProcAddress cuGetProcAddress_v2 cuProfilerStart cuProfilerStop
    cuDeviceGet cuDeviceGetCount cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2 cuDeviceTotalMem_v2 cuDeviceGetAttribute
    cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceSetMemPool
    cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset_v2 cuDevicePrimaryCtxGetState
    cuDevicePrimaryCtxSetFlags_v2 cuCtxCreate_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxSetCurrent cuCtxGetCurrent
    cuCtxPushCurrent_v2 cuCtxPopCurrent_v2 cuCtxGetDevice cuCtxSynchronize cuCtxGetFlags cuCtxSetFlags cuCtxGetLimit cuCtxSetLimit
    cuCtxGetCacheConfig cuCtxSetCacheConfig cuCtxGetStreamPriorityRange
    cuMemAlloc_v2 cuMemAllocAsync cuMemFree_v2 cuMemFreeAsync cuMemGetInfo_v2 cuMemGetAddressRange_v2 cuPointerGetAttribute
    cuMemHostAlloc cuMemAllocHost_v2 cuMemFreeHost cuMemHostRegister_v2 cuMemHostUnregister
    cuMemPoolCreate cuMemPoolDestroy cuMemPoolTrimTo cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemAllocFromPoolAsync
    cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoDAsync_v2 cuMemcpy
    cuMemcpyAsync cuMemcpyPeerAsync cuMemcpy2D_v2 cuMemcpy2DAsync_v2
    cuMemsetD8_v2 cuMemsetD16_v2 cuMemsetD32_v2 cuMemsetD8Async cuMemsetD16Async cuMemsetD32Async
    cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleLoadFatBinary cuModuleUnload cuModuleGetFunction cuModuleGetGlobal_v2
    cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig cuFuncGetName cuFuncGetParamInfo
    cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
    cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyAvailableDynamicSMemPerBlock
    cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialClusterSize
    cuLaunchKernel cuLaunchKernelEx cuLaunchCooperativeKernel cuLaunchHostFunc
    cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamSynchronize cuStreamQuery cuStreamWaitEvent
    cuStreamGetFlags cuStreamGetPriority cuStreamBeginCapture_v2 cuStreamEndCapture cuStreamIsCapturing cuStreamAddCallback
    cuStreamAttachMemAsync
    cuEventCreate cuEventDestroy_v2 cuEventRecord cuEventRecordWithFlags cuEventQuery cuEventSynchronize cuEventElapsedTime
    cuEventElapsedTime_v2
    cuGraphCreate cuGraphDestroy cuGraphInstantiate_v2 cuGraphInstantiateWithFlags cuGraphExecDestroy cuGraphLaunch cuGraphUpload
    cuGraphGetNodes cuGraphNodeGetType
    cuMemAllocManaged cuMemPrefetchAsync_v2 cuMemAdvise_v2
    cuMemPrefetchAsync cuMemAdvise cuMemHostGetDevicePointer_v2 cuMemHostGetFlags cuPointerGetAttributes cuPointerSetAttribute
    cuMemAllocPitch_v2 cuMemcpy2DUnaligned_v2 cuMemcpy3D_v2 cuMemcpy3DAsync_v2 cuMemcpyPeer
    cuMemsetD2D8_v2 cuMemsetD2D16_v2 cuMemsetD2D32_v2 cuMemsetD2D8Async cuMemsetD2D16Async cuMemsetD2D32Async
    cuDeviceComputeCapability cuDeviceGetPCIBusId cuDeviceGetByPCIBusId cuDeviceCanAccessPeer cuCtxGetApiVersion cuCtxGetId
    cuStreamGetCtx cuStreamGetId cuModuleGetLoadingMode cuFuncGetModule cuGetExportTable
    cuLinkCreate_v2 cuLinkAddData_v2 cuLinkAddFile_v2 cuLinkComplete cuLinkDestroy
    cuLibraryLoadData cuLibraryLoadFromFile cuLibraryUnload cuLibraryGetKernel cuLibraryGetKernelCount cuLibraryEnumerateKernels
    cuLibraryGetModule cuLibraryGetGlobal cuKernelGetFunction cuKernelGetLibrary cuKernelGetName cuKernelGetAttribute
    cuKernelSetAttribute cuKernelSetCacheConfig cuKernelGetParamInfo cuGraphAddKernelNode_v2 cuGraphAddEmptyNode
    cuImportExternalMemory cuExternalMemoryGetMappedBuffer cuDestroyExternalMemory
    cuMemGetAllocationGranularity cuMemAddressReserve cuMemAddressFree cuMemCreate cuMemRelease cuMemMap cuMemUnmap cuMemSetAccess
    cuMemGetAccess cuMemRetainAllocationHandle cuMemGetAllocationPropertiesFromHandle cuMemExportToShareableHandle
    cuMemImportFromShareableHandle
}

/// Names and addresses of all functions of the driver.
pub(super) fn functions() -> Vec<(&'static str, *mut c_void)> {
    emulated().into_iter().chain(header::functions()).collect()
}

/// Names whose forms differ in their arguments, with the CUDA version that brought each; later ones first.
const FORMS: [(&str, c_int, &str); 11] = [
    ("cuCtxCreate", 12_050, "cuCtxCreate_v4"),
    ("cuCtxCreate", 11_040, "cuCtxCreate_v3"),
    ("cuCtxCreate", 3_020, "cuCtxCreate_v2"),
    ("cuGraphInstantiate", 12_000, "cuGraphInstantiateWithFlags"),
    ("cuGraphInstantiate", 11_000, "cuGraphInstantiate_v2"),
    ("cuGetProcAddress", 12_000, "cuGetProcAddress_v2"),
    ("cuGetProcAddress", 11_030, "cuGetProcAddress"),
    ("cuMemPrefetchAsync", 12_020, "cuMemPrefetchAsync_v2"),
    ("cuMemPrefetchAsync", 8_000, "cuMemPrefetchAsync"),
    ("cuMemAdvise", 12_020, "cuMemAdvise_v2"),
    ("cuMemAdvise", 8_000, "cuMemAdvise"),
];

/// The address of a name for a version of CUDA, or whether the version is too old for it.
fn find(name: &str, version: c_int) -> Result<*mut c_void, bool> {
    // What is emulated under another form goes before what is not.
    let table = emulated();
    let exact = |name: &str| table.iter().find(|(known, _)| *known == name).map(|(_, address)| *address);
    let mut forms = FORMS.iter().filter(|(known, ..)| *known == name).peekable();
    if forms.peek().is_some() {
        let form = forms.find(|(_, since, _)| version >= *since);
        return form.and_then(|(_, _, form)| exact(form)).ok_or(true);
    }
    let refused = || header::functions().into_iter().find(|(known, _)| *known == name).map(|(_, address)| address);
    exact(name).or_else(|| exact(&format!("{name}_v2"))).or_else(refused).ok_or(false)
}

/// Flags choose default streams, of which there is one kind here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    _flags: u64,
    status: *mut c_int,
) -> CUresult {
    const FOUND: c_int = 0;
    const NOT_FOUND: c_int = 1;
    const TOO_OLD: c_int = 2;
    border("cuGetProcAddress_v2", || {
        // SAFETY: `function` is null or room for the answer, and `symbol` is null or a string that ends in a NUL: the caller's promise.
        let (name, answer) = unsafe { (text(symbol)?, out(function)?) };
        let found = find(name, version);
        answer.write(found.unwrap_or(std::ptr::null_mut()));
        // SAFETY: null, or valid for writing.
        if let Some(status) = unsafe { status.as_mut() } {
            *status = match found {
                Ok(_) => FOUND,
                Err(true) => TOO_OLD,
                Err(false) => NOT_FOUND,
            };
        }
        match found {
            Ok(_) => Ok(()),
            Err(_) => fail(ERROR_NOT_FOUND, format!("the emulator has no {name} of CUDA {version}")),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> CUresult {
    // SAFETY: the same contract; no status is asked.
    unsafe { cuGetProcAddress_v2(symbol, function, version, flags, std::ptr::null_mut()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every exported function is in the table.
    #[test]
    fn table_is_complete() {
        let sources = [
            include_str!("context.rs"),
            include_str!("copy.rs"),
            include_str!("device.rs"),
            include_str!("errors.rs"),
            include_str!("event.rs"),
            include_str!("function.rs"),
            include_str!("graph.rs"),
            include_str!("launch.rs"),
            include_str!("library.rs"),
            include_str!("link.rs"),
            include_str!("managed.rs"),
            include_str!("memory.rs"),
            include_str!("module.rs"),
            include_str!("occupancy.rs"),
            include_str!("peer.rs"),
            include_str!("pinned.rs"),
            include_str!("rectangles.rs"),
            include_str!("pool.rs"),
            include_str!("stream.rs"),
            include_str!("unsupported.rs"),
            include_str!("virtual_memory.rs"),
        ];
        let names: Vec<&str> = functions().iter().map(|(name, _)| *name).collect();
        let mut exported = 0;
        for source in sources {
            for line in source.lines() {
                let name = line
                    .strip_prefix("pub unsafe extern \"C\" fn ")
                    .or_else(|| line.strip_prefix("    cu").map(|_| &line[4..]));
                let Some((name, _)) = name.and_then(|rest| rest.split_once('(')) else { continue };
                exported += usize::from(line.starts_with("pub"));
                if name.starts_with("cu")
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    && line.starts_with("pub")
                {
                    assert!(names.contains(&name), "{name}");
                }
            }
        }
        assert!(exported > 100);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a function has no one address there")]
    fn versions_choose_the_form() {
        let table = functions();
        let address = |name: &str| table.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(find("cuMemAlloc", 13_000), Ok(address("cuMemAlloc_v2")));
        assert_eq!(find("cuCtxCreate", 13_000), Ok(address("cuCtxCreate_v4")));
        assert_eq!(find("cuCtxCreate", 12_000), Ok(address("cuCtxCreate_v3")));
        assert_eq!(find("cuGraphInstantiate", 13_000), Ok(address("cuGraphInstantiateWithFlags")));
        assert_eq!(find("cuEventElapsedTime", 11_000), Ok(address("cuEventElapsedTime")));
        assert_eq!(find("cuMemAdvise", 11_000), Ok(address("cuMemAdvise")));
        assert_eq!(find("cuMemAdvise", 7_000), Err(true));
        assert_eq!(find("cuTexRefCreate", 13_000), Ok(address("cuTexRefCreate")), "which refuses");
        assert_eq!(find("cuNothing", 13_000), Err(false));
    }
}
