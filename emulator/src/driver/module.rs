//! Modules: PTX text, or the PTX in a fatbin.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use super::border::{border, lock, out, text};
use super::failure::{Failure, Outcome, fail, failure, invalid};
use super::handles::{Function, Module};
use super::state::{Driver, Guard};
use super::types::*;
use crate::device::Model;
use crate::fatbin::{self, ImageError};
use crate::ptx::{PtxError, since};

impl From<ImageError> for Failure {
    fn from(e: ImageError) -> Self {
        let code = match e {
            ImageError::Corrupt(_) => ERROR_INVALID_IMAGE,
            ImageError::Cubin | ImageError::TooNew { .. } => ERROR_NO_BINARY_FOR_GPU,
        };
        failure(code, e.to_string())
    }
}

impl From<PtxError> for Failure {
    fn from(e: PtxError) -> Self {
        failure(if e.unknown_version { ERROR_UNSUPPORTED_PTX_VERSION } else { ERROR_INVALID_PTX }, e.to_string())
    }
}

impl Driver {
    /// The target of a text, if the device can run it.
    pub fn fits(&self, ptx: &str) -> Outcome<u32> {
        let Some(target) = fatbin::target_of(ptx) else {
            return fail(ERROR_INVALID_IMAGE, "the image is no PTX: it has no .target");
        };
        let name = fatbin::target_name(ptx).unwrap_or_default();
        let (major, minor) = self.device().compute_capability;
        if !since::runs_on(name, (major, minor)) {
            let other = Model::ALL.into_iter().find(|model| since::runs_on(name, model.device().compute_capability));
            let way = other.map_or("no model takes it".into(), |m| format!("PTX_EMULATOR_MODEL={} takes it", m.name()));
            let what = format!("the PTX is for {name}, the emulated device is sm_{major}{minor}: {way}");
            return fail(ERROR_INVALID_PTX, what);
        }
        Ok(target)
    }

    pub fn load(&mut self, context: usize, ptx: &str) -> Outcome<usize> {
        let target = self.fits(ptx)?;
        let lazy = self.options.as_ref().is_some_and(|options| options.lazy);
        let mut module = self.machine_of(context).load(ptx)?;
        if !lazy && let Err(e) = module.compile_all() {
            self.machine_of(context).unload(module);
            return Err(e.into());
        }
        Ok(self.modules.insert(Module { context, module, target }))
    }

    /// The function of a module's kernel, which is compiled when it is first asked for.
    pub fn function_of(&mut self, handle: usize, name: &str) -> Outcome<usize> {
        let entry = self.modules.get_mut(handle).ok_or_else(|| invalid("module"))?;
        let context = entry.context;
        let kernel = entry.module.kernel(name);
        self.healthy(context)?;
        let kernel = kernel.ok_or_else(|| failure(ERROR_NOT_FOUND, format!("the module has no kernel {name}")))??;
        let known = self.functions.iter().find(|(_, f)| f.module == handle && f.kernel.name == name);
        if let Some((known, _)) = known {
            return Ok(known);
        }
        let name = CString::new(name).map_err(|_| failure(ERROR_INVALID_VALUE, "a name with a NUL"))?;
        let function = Function { context, module: handle, kernel, name, shared_limit: 0, carveout: -1 };
        Ok(self.functions.insert(function))
    }
}

fn ready() -> Outcome<(Guard, usize, (u32, u32))> {
    let driver = lock()?;
    let context = driver.working()?;
    let compute_capability = driver.device().compute_capability;
    Ok((driver, context, compute_capability))
}

fn load_image(module: *mut CUmodule, image: *const c_void) -> Outcome {
    let (mut driver, context, compute_capability) = ready()?;
    // SAFETY: `module` is null or room for the answer: the caller's promise.
    let answer = unsafe { out(module)? };
    if image.is_null() {
        return fail(ERROR_INVALID_VALUE, "the image is null");
    }
    // SAFETY: the caller gives an image, as the driver knows them.
    let ptx = unsafe { fatbin::ptx_of_image(image.cast(), compute_capability)? };
    answer.write(driver.load(context, &ptx)? as CUmodule);
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> CUresult {
    border("cuModuleLoadData", || load_image(module, image))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) -> CUresult {
    border("cuModuleLoadFatBinary", || load_image(module, image))
}

/// Fills the error log, if the options ask for one; what steers code generation has nothing to steer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> CUresult {
    border("cuModuleLoadDataEx", || {
        // SAFETY: the caller gives `count` options and values.
        let mut logs = unsafe { Logs::read(count as usize, options, values)? };
        let loaded = load_image(module, image);
        // SAFETY: the buffers are as large as the options say.
        unsafe { logs.write(loaded.as_ref().err().map_or("", |failure| failure.why.as_str())) };
        loaded
    })
}

/// The log buffers of `CUjit_option`s 3 to 6: address and bytes, and where the bytes used are returned.
pub(super) struct Logs {
    buffers: [(*mut c_char, usize, Option<*mut *mut c_void>); 2],
}

impl Logs {
    /// # Safety
    /// Both arrays hold `count` entries.
    pub(super) unsafe fn read(count: usize, options: *const c_int, values: *mut *mut c_void) -> Outcome<Self> {
        let mut logs = Logs { buffers: [(std::ptr::null_mut(), 0, None); 2] };
        if count > 0 && (options.is_null() || values.is_null()) {
            return fail(ERROR_INVALID_VALUE, "the options are null");
        }
        for i in 0..count {
            // SAFETY: within the arrays.
            let (option, value) = unsafe { (options.add(i).read(), values.add(i)) };
            match option {
                // SAFETY: within the array.
                3 | 5 => logs.buffers[option as usize / 2 - 1].0 = unsafe { value.read() }.cast(),
                4 | 6 => {
                    let log = &mut logs.buffers[option as usize / 2 - 2];
                    // SAFETY: within the array; the size is given in place of a pointer.
                    (log.1, log.2) = (unsafe { value.read() } as usize, Some(value));
                }
                0..=34 => {}
                _ => return fail(ERROR_INVALID_VALUE, format!("there is no option {option}")),
            }
        }
        Ok(logs)
    }

    /// Leaves the information log empty.
    ///
    /// # Safety
    /// The buffers are as large as was said.
    unsafe fn write(&mut self, errors: &str) {
        for (text, (buffer, bytes, used)) in ["", errors].into_iter().zip(self.buffers) {
            let kept = text.len().min(bytes.saturating_sub(1));
            if !buffer.is_null() && bytes > 0 {
                // SAFETY: fits the buffer, with a NUL.
                unsafe {
                    buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), kept);
                    buffer.add(kept).write(0);
                }
            }
            if let Some(used) = used {
                // SAFETY: an entry of the array of values.
                unsafe { used.write(kept as *mut c_void) };
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: *mut CUmodule, path: *const c_char) -> CUresult {
    border("cuModuleLoad", || {
        let (mut driver, context, compute_capability) = ready()?;
        // SAFETY: `module` is null or room for the answer, and `path` is null or a string that ends in a NUL: the caller's promise.
        let (answer, path) = unsafe { (out(module)?, text(path)?) };
        let bytes = std::fs::read(path).map_err(|e| failure(ERROR_FILE_NOT_FOUND, format!("{path}: {e}")))?;
        let ptx = fatbin::ptx_of_bytes(&bytes, compute_capability)?;
        answer.write(driver.load(context, &ptx)? as CUmodule);
        Ok(())
    })
}

/// Its functions become stale handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: CUmodule) -> CUresult {
    border("cuModuleUnload", || {
        let mut driver = lock()?;
        let handle = module as usize;
        let module = driver.modules.remove(handle).ok_or_else(|| invalid("module"))?;
        driver.functions.retain(|function| function.module != handle);
        driver.machine_of(module.context).unload(module.module);
        driver.healthy(module.context)
    })
}

/// Compiles the kernel when it is first asked for. The handle of a name stays the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut CUfunction,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    border("cuModuleGetFunction", || {
        let mut driver = lock()?;
        // SAFETY: `function` is null or room for the answer, and `name` is null or a string that ends in a NUL: the caller's promise.
        let (answer, name) = unsafe { (out(function)?, text(name)?) };
        answer.write(driver.function_of(module as usize, name)? as CUfunction);
        Ok(())
    })
}

/// Either answer may be null, not both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    border("cuModuleGetGlobal_v2", || {
        let driver = lock()?;
        // SAFETY: `name` is null or a string that ends in a NUL: the caller's promise.
        let name = unsafe { text(name)? };
        if address.is_null() && bytes.is_null() {
            return fail(ERROR_INVALID_VALUE, "both addresses for the answer are null");
        }
        let entry = driver.modules.get(module as usize).ok_or_else(|| invalid("module"))?;
        driver.healthy(entry.context)?;
        let found = entry.module.variable(name);
        let found = found.ok_or_else(|| failure(ERROR_NOT_FOUND, format!("the module has no variable {name}")))?;
        // SAFETY: each is null or valid for writing.
        unsafe {
            if let Some(address) = address.as_mut() {
                *address = found.0;
            }
            if let Some(bytes) = bytes.as_mut() {
                *bytes = found.1;
            }
        }
        Ok(())
    })
}
