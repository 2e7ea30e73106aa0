//! Libraries: modules that belong to no context. Each is loaded into a context when a kernel or variable of it is first wanted there.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use super::border::{border, lock, out, text};
use super::failure::{Outcome, fail, failure, invalid};
use super::handles::{Library, LibraryKernel};
use super::state::Driver;
use super::types::*;
use crate::fatbin;
use crate::ptx;

impl Driver {
    fn library(&self, handle: CUlibrary) -> Outcome<&Library> {
        self.libraries.get(handle as usize).ok_or_else(|| invalid("library"))
    }

    /// The module of a library in this thread's context.
    fn module_of(&mut self, library: usize) -> Outcome<usize> {
        let context = self.working()?;
        let found = self.libraries.get(library).ok_or_else(|| invalid("library"))?;
        if let Some(&module) = found.modules.get(&context)
            && self.modules.get(module).is_some()
        {
            return Ok(module);
        }
        let ptx = found.ptx.clone();
        let module = self.load(context, &ptx)?;
        if let Some(found) = self.libraries.get_mut(library) {
            found.modules.insert(context, module);
        }
        Ok(module)
    }

    /// The function that a handle stands for: itself, or the kernel of a library in this thread's context.
    pub fn resolve(&mut self, handle: usize) -> Outcome<usize> {
        let Some(kernel) = self.kernels.get(handle) else { return Ok(handle) };
        let (library, name) = (kernel.library, kernel.name.to_string_lossy().into_owned());
        let module = self.module_of(library)?;
        self.function_of(module, &name)
    }

    fn add_library(&mut self, ptx: &str) -> Outcome<usize> {
        self.fits(ptx)?;
        let names = ptx::parse(ptx)?.functions.iter().filter(|f| f.entry).map(|f| f.name.clone()).collect();
        Ok(self.libraries.insert(Library { ptx: ptx.into(), names, modules: HashMap::new() }))
    }

    fn kernel_of(&mut self, library: usize, name: &str) -> Outcome<usize> {
        let found = self.libraries.get(library).ok_or_else(|| invalid("library"))?;
        if !found.names.iter().any(|n| n == name) {
            return fail(ERROR_NOT_FOUND, format!("the library has no kernel {name}"));
        }
        let known = self.kernels.iter().find(|(_, k)| k.library == library && k.name.to_string_lossy() == name);
        Ok(match known.map(|(handle, _)| handle) {
            Some(handle) => handle,
            None => {
                let name = CString::new(name).map_err(|_| failure(ERROR_INVALID_VALUE, "a name with a NUL"))?;
                self.kernels.insert(LibraryKernel { library, name })
            }
        })
    }
}

/// Options steer code generation, of which there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    _options: *const c_int,
    _values: *mut *mut c_void,
    _count: c_uint,
    _library_options: *const c_int,
    _library_values: *mut *mut c_void,
    _library_count: c_uint,
) -> CUresult {
    border("cuLibraryLoadData", || {
        let mut driver = lock()?;
        // SAFETY: `library` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(library)? };
        if code.is_null() {
            return fail(ERROR_INVALID_VALUE, "the code is null");
        }
        let compute_capability = driver.device().compute_capability;
        // SAFETY: the caller gives an image, as the driver knows them.
        let ptx = unsafe { fatbin::ptx_of_image(code.cast(), compute_capability)? };
        answer.write(driver.add_library(&ptx)? as CUlibrary);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    path: *const c_char,
    _options: *const c_int,
    _values: *mut *mut c_void,
    _count: c_uint,
    _library_options: *const c_int,
    _library_values: *mut *mut c_void,
    _library_count: c_uint,
) -> CUresult {
    border("cuLibraryLoadFromFile", || {
        let mut driver = lock()?;
        // SAFETY: `library` is null or room for the answer, and `path` is null or a string that ends in a NUL: the caller's promise.
        let (answer, path) = unsafe { (out(library)?, text(path)?) };
        let bytes = std::fs::read(path).map_err(|e| failure(ERROR_FILE_NOT_FOUND, format!("{path}: {e}")))?;
        let compute_capability = driver.device().compute_capability;
        let ptx = fatbin::ptx_of_bytes(&bytes, compute_capability)?;
        answer.write(driver.add_library(&ptx)? as CUlibrary);
        Ok(())
    })
}

/// Its kernels, and its modules with them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryUnload(library: CUlibrary) -> CUresult {
    border("cuLibraryUnload", || {
        let mut driver = lock()?;
        let handle = library as usize;
        let library = driver.libraries.remove(handle).ok_or_else(|| invalid("library"))?;
        driver.kernels.retain(|kernel| kernel.library != handle);
        for module in library.modules.into_values() {
            if let Some(found) = driver.modules.remove(module) {
                driver.functions.retain(|function| function.module != module);
                driver.machine_of(found.context).unload(found.module);
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetKernel(
    kernel: *mut CUkernel,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    border("cuLibraryGetKernel", || {
        let mut driver = lock()?;
        // SAFETY: `kernel` is null or room for the answer, and `name` is null or a string that ends in a NUL: the caller's promise.
        let (answer, name) = unsafe { (out(kernel)?, text(name)?) };
        answer.write(driver.kernel_of(library as usize, name)? as CUkernel);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetKernelCount(count: *mut c_uint, library: CUlibrary) -> CUresult {
    border("cuLibraryGetKernelCount", || {
        let driver = lock()?;
        // SAFETY: `count` is null or room for the answer: the caller's promise.
        unsafe { out(count)? }.write(driver.library(library)?.names.len() as c_uint);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryEnumerateKernels(
    kernels: *mut CUkernel,
    count: c_uint,
    library: CUlibrary,
) -> CUresult {
    border("cuLibraryEnumerateKernels", || {
        let mut driver = lock()?;
        let names = driver.library(library)?.names.clone();
        if kernels.is_null() {
            return fail(ERROR_INVALID_VALUE, "the address for the answer is null");
        }
        for (n, name) in names.iter().take(count as usize).enumerate() {
            let kernel = driver.kernel_of(library as usize, name)?;
            // SAFETY: the caller has room for `count` handles.
            unsafe { kernels.add(n).write(kernel as CUkernel) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) -> CUresult {
    border("cuLibraryGetModule", || {
        let mut driver = lock()?;
        // SAFETY: `module` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(module)? };
        answer.write(driver.module_of(library as usize)? as CUmodule);
        Ok(())
    })
}

/// Either answer may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetGlobal(
    address: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    border("cuLibraryGetGlobal", || {
        let mut driver = lock()?;
        // SAFETY: `name` is null or a string that ends in a NUL: the caller's promise.
        let name = unsafe { text(name)? };
        let module = driver.module_of(library as usize)?;
        let found = driver.modules.get(module).and_then(|module| module.module.variable(name));
        let found = found.ok_or_else(|| failure(ERROR_NOT_FOUND, format!("the library has no variable {name}")))?;
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

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) -> CUresult {
    border("cuKernelGetFunction", || {
        let mut driver = lock()?;
        // SAFETY: `function` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(function)? };
        known(&driver, kernel)?;
        answer.write(driver.resolve(kernel as usize)? as CUfunction);
        Ok(())
    })
}

fn known(driver: &Driver, kernel: CUkernel) -> Outcome<&LibraryKernel> {
    driver.kernels.get(kernel as usize).ok_or_else(|| invalid("kernel"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) -> CUresult {
    border("cuKernelGetLibrary", || {
        let driver = lock()?;
        // SAFETY: `library` is null or room for the answer: the caller's promise.
        unsafe { out(library)? }.write(known(&driver, kernel)?.library as CUlibrary);
        Ok(())
    })
}

/// The name is valid until the library is unloaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> CUresult {
    border("cuKernelGetName", || {
        let driver = lock()?;
        // SAFETY: `name` is null or room for the answer: the caller's promise.
        unsafe { out(name)? }.write(known(&driver, kernel)?.name.as_ptr());
        Ok(())
    })
}

/// The function of a kernel in this thread's context, for a call that takes either.
fn function(kernel: CUkernel) -> Outcome<CUfunction> {
    let mut driver = lock()?;
    known(&driver, kernel)?;
    Ok(driver.resolve(kernel as usize)? as CUfunction)
}

/// `body` with the function of a kernel.
fn with_function(call: &'static str, kernel: CUkernel, body: impl FnOnce(CUfunction) -> CUresult) -> CUresult {
    let mut found = std::ptr::null_mut();
    let looked = border(call, || {
        found = function(kernel)?;
        Ok(())
    });
    if looked == SUCCESS { body(found) } else { looked }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    kernel: CUkernel,
    _device: CUdevice,
) -> CUresult {
    // SAFETY: the same contract.
    with_function("cuKernelGetAttribute", kernel, |f| unsafe {
        super::function::cuFuncGetAttribute(value, attribute, f)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelSetAttribute(
    attribute: c_int,
    value: c_int,
    kernel: CUkernel,
    _device: CUdevice,
) -> CUresult {
    // SAFETY: the same contract.
    with_function("cuKernelSetAttribute", kernel, |f| unsafe {
        super::function::cuFuncSetAttribute(f, attribute, value)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelSetCacheConfig(kernel: CUkernel, config: c_int, _device: CUdevice) -> CUresult {
    // SAFETY: the same contract.
    with_function("cuKernelSetCacheConfig", kernel, |f| unsafe { super::function::cuFuncSetCacheConfig(f, config) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> CUresult {
    // SAFETY: the same contract.
    with_function("cuKernelGetParamInfo", kernel, |f| unsafe {
        super::function::cuFuncGetParamInfo(f, index, offset, bytes)
    })
}
