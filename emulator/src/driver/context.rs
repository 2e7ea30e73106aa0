//! Contexts: the primary one, counted, and created ones. All share the device's memory, and each owns what was made in it.

use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock, out};
use super::device::known;
use super::failure::{Outcome, fail, failure};
use super::handles::{Context, Stream, StreamKind};
use super::progress::wait_for;
use super::state::{Driver, with_contexts};
use super::types::*;
use crate::machine::Machine;

/// Stack bytes per thread, `printf` buffer, heap of `malloc`, depth and number of nested launches, L2 fetch and persisting L2 bytes.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

impl Driver {
    fn create_context(&mut self, device: CUdevice, flags: u32) -> usize {
        if let Some(options) = self.options.clone().filter(|_| !self.machines.contains_key(&device)) {
            self.machines.insert(device, Machine::numbered(options, device as u32));
        }
        let (limits, per_thread) = (LIMITS, HashMap::new());
        let context = Context { device, flags, limits, cache_config: 0, failure: None, legacy: 0, per_thread };
        let handle = self.contexts.insert(context);
        let legacy = self.streams.insert(Stream::new(handle, StreamKind::Legacy));
        if let Some(context) = self.contexts.get_mut(handle) {
            context.legacy = legacy;
        }
        handle
    }

    /// Takes back everything made in a context; buffers never freed are reported, unless a kernel failed there.
    fn clear_context(&mut self, handle: usize) {
        self.report_leaks(handle);
        let buffers: Vec<CUdeviceptr> = self.buffers.iter().filter(|(_, c)| **c == handle).map(|(at, _)| *at).collect();
        for at in buffers {
            if self.managed.contains_key(&at) {
                let _ = self.free_managed(at);
                continue;
            }
            self.buffers.remove(&at);
            // It is live: the table is kept in step with the machine.
            let _ = self.machine_of(handle).free(at);
        }
        for module in self.modules.extract(|module| module.context == handle) {
            self.machine_of(handle).unload(module.module);
        }
        self.functions.retain(|function| function.context != handle);
        self.streams.retain(|stream| stream.context != handle || stream.kind == StreamKind::Legacy);
        self.events.retain(|event| event.context != handle);
        self.captures.retain(|capture| capture.context != handle);
        self.graphs.retain(|graph| graph.context != handle);
        let graphs = &self.graphs;
        self.nodes.retain(|graph| graphs.get(*graph).is_some());
        self.execs.retain(|exec| exec.context != handle);
        let mapped: Vec<usize> =
            self.pinned.iter().filter(|(_, p)| p.context == handle && p.mapped).map(|(at, _)| *at).collect();
        mapped.into_iter().for_each(|base| self.unmap_pinned(base));
        // The program may still hold addresses of pinned memory: it stays allocated.
        self.pinned.retain(|_, pinned| pinned.context != handle);
        if let Some(context) = self.contexts.get_mut(handle) {
            context.failure = None;
            context.per_thread.clear();
        }
    }

    fn destroy_context(&mut self, handle: usize) {
        self.clear_context(handle);
        self.streams.retain(|stream| stream.context != handle);
        let device = self.device_of(handle);
        self.contexts.remove(handle);
        if self.contexts.iter().all(|(_, context)| context.device != device) {
            self.drop_machine(device);
        }
    }

    fn context(&mut self, handle: usize) -> Outcome<&mut Context> {
        self.contexts
            .get_mut(handle)
            .ok_or_else(|| failure(ERROR_INVALID_CONTEXT, "no such context: stale or foreign handle"))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> CUresult {
    border("cuDevicePrimaryCtxRetain", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        // SAFETY: `context` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(context)? };
        let primary = driver.primary.entry(device).or_default();
        let (flags, context) = (primary.flags, primary.context);
        let handle = context.unwrap_or_else(|| driver.create_context(device, flags));
        let primary = driver.primary.entry(device).or_default();
        primary.context = Some(handle);
        primary.retained += 1;
        answer.write(handle as CUcontext);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> CUresult {
    border("cuDevicePrimaryCtxRelease_v2", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        let primary = driver.primary.entry(device).or_default();
        let Some(handle) = primary.context else {
            return fail(ERROR_INVALID_CONTEXT, "the primary context is not retained");
        };
        primary.retained -= 1;
        if primary.retained == 0 {
            primary.context = None;
            driver.destroy_context(handle);
        }
        Ok(())
    })
}

/// Takes back everything made in the primary context and clears its error. Its handle stays valid for those who retain it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> CUresult {
    border("cuDevicePrimaryCtxReset_v2", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        if let Some(handle) = driver.primary.get(&device).and_then(|primary| primary.context) {
            driver.clear_context(handle);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CUresult {
    border("cuDevicePrimaryCtxGetState", || {
        let driver = lock()?;
        known(&driver, device)?;
        // SAFETY: `flags` and `active` are each null or room for the answer: the caller's promise.
        let (flags, active) = unsafe { (out(flags)?, out(active)?) };
        let primary = driver.primary.get(&device);
        flags.write(primary.map_or(0, |primary| primary.flags));
        active.write(primary.is_some_and(|primary| primary.context.is_some()).into());
        Ok(())
    })
}

/// Scheduling flags are kept and have no effect: nothing ever waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: CUdevice, flags: c_uint) -> CUresult {
    border("cuDevicePrimaryCtxSetFlags_v2", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        driver.primary.entry(device).or_default().flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CUresult {
    border("cuCtxCreate_v2", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        // SAFETY: `context` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(context)? };
        let handle = driver.create_context(device, flags);
        with_contexts(|stack| stack.push(handle));
        answer.write(handle as CUcontext);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v3(
    context: *mut CUcontext,
    affinities: *mut c_void,
    count: c_int,
    flags: c_uint,
    device: CUdevice,
) -> CUresult {
    if !affinities.is_null() || count != 0 {
        return border("cuCtxCreate_v3", || fail(ERROR_NOT_SUPPORTED, "execution affinity is not emulated"));
    }
    // SAFETY: the same contract.
    unsafe { cuCtxCreate_v2(context, flags, device) }
}

/// Three words: affinities, their number, graphics interoperation; all must be zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v4(
    context: *mut CUcontext,
    parameters: *const [usize; 3],
    flags: c_uint,
    device: CUdevice,
) -> CUresult {
    // SAFETY: the caller gives null or parameters.
    if unsafe { parameters.as_ref() }.is_some_and(|words| words[0] != 0 || words[1] as c_int != 0 || words[2] != 0) {
        return border("cuCtxCreate_v4", || {
            fail(ERROR_NOT_SUPPORTED, "execution affinity and graphics interoperation are not emulated")
        });
    }
    // SAFETY: the same contract.
    unsafe { cuCtxCreate_v2(context, flags, device) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxDestroy_v2(context: CUcontext) -> CUresult {
    border("cuCtxDestroy_v2", || {
        let mut driver = lock()?;
        let handle = context as usize;
        driver.context(handle)?;
        if driver.primary.values().any(|primary| primary.context == Some(handle)) {
            return fail(ERROR_INVALID_CONTEXT, "the primary context is released, not destroyed");
        }
        with_contexts(|stack| stack.pop_if(|top| *top == handle));
        driver.destroy_context(handle);
        Ok(())
    })
}

/// A null context leaves the thread without one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: CUcontext) -> CUresult {
    border("cuCtxSetCurrent", || {
        let mut driver = lock()?;
        if !context.is_null() {
            driver.context(context as usize)?;
        }
        with_contexts(|stack| {
            stack.pop();
            if !context.is_null() {
                stack.push(context as usize);
            }
        });
        Ok(())
    })
}

/// Also a context that was destroyed meanwhile; null when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut CUcontext) -> CUresult {
    border("cuCtxGetCurrent", || {
        drop(lock()?);
        // SAFETY: `context` is null or room for the answer: the caller's promise.
        unsafe { out(context)? }.write(with_contexts(|stack| stack.last().copied()).unwrap_or(0) as CUcontext);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: CUcontext) -> CUresult {
    border("cuCtxPushCurrent_v2", || {
        let mut driver = lock()?;
        driver.context(context as usize)?;
        with_contexts(|stack| stack.push(context as usize));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut CUcontext) -> CUresult {
    border("cuCtxPopCurrent_v2", || {
        drop(lock()?);
        let top = with_contexts(Vec::pop);
        let top = top.ok_or_else(|| failure(ERROR_INVALID_CONTEXT, "this thread has no current context"))?;
        // SAFETY: null, or valid for writing.
        if let Some(answer) = unsafe { context.as_mut() } {
            *answer = top as CUcontext;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut CUdevice) -> CUresult {
    border("cuCtxGetDevice", || {
        let driver = lock()?;
        let current = driver.device_of(driver.current()?);
        // SAFETY: `device` is null or room for the answer: the caller's promise.
        unsafe { out(device)? }.write(current);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> CUresult {
    border("cuCtxSynchronize", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        driver.tally.synchronisations += 1;
        driver.no_capture_in(context, "cuCtxSynchronize")?;
        let pending = driver.pending_in(context);
        if !pending.is_empty() {
            drop(driver);
            wait_for(&pending);
            driver = lock()?;
            driver.healthy(context)?;
        }
        let until = driver.context_ready(context);
        driver.host_waited(until);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetFlags(flags: *mut c_uint) -> CUresult {
    border("cuCtxGetFlags", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        // SAFETY: `flags` is null or room for the answer: the caller's promise.
        unsafe { out(flags)? }.write(driver.context(context)?.flags);
        Ok(())
    })
}

/// Kept, without effect: nothing ever waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetFlags(flags: c_uint) -> CUresult {
    border("cuCtxSetFlags", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        driver.context(context)?.flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetLimit(value: *mut usize, limit: c_int) -> CUresult {
    border("cuCtxGetLimit", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        // SAFETY: `value` is null or room for the answer: the caller's promise.
        unsafe { out(value)? }.write(*limit_of(driver.context(context)?, limit)?);
        Ok(())
    })
}

/// Kept, without effect: local memory is as large as the kernel asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetLimit(limit: c_int, value: usize) -> CUresult {
    border("cuCtxSetLimit", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        *limit_of(driver.context(context)?, limit)? = value;
        Ok(())
    })
}

fn limit_of(context: &mut Context, limit: c_int) -> Outcome<&mut usize> {
    let found = usize::try_from(limit).ok().and_then(|limit| context.limits.get_mut(limit));
    found.ok_or_else(|| failure(ERROR_UNSUPPORTED_LIMIT, format!("limit {limit} is not emulated")))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCacheConfig(config: *mut c_int) -> CUresult {
    border("cuCtxGetCacheConfig", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        // SAFETY: `config` is null or room for the answer: the caller's promise.
        unsafe { out(config)? }.write(driver.context(context)?.cache_config);
        Ok(())
    })
}

/// A preference; no cache is emulated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCacheConfig(config: c_int) -> CUresult {
    border("cuCtxSetCacheConfig", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        if !(0..=3).contains(&config) {
            return fail(ERROR_INVALID_VALUE, format!("there is no cache preference {config}"));
        }
        driver.context(context)?.cache_config = config;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> CUresult {
    border("cuCtxGetStreamPriorityRange", || {
        lock()?.current()?;
        // SAFETY: each is null or valid for writing.
        unsafe {
            if let Some(least) = least.as_mut() {
                *least = super::stream::PRIORITIES.0;
            }
            if let Some(greatest) = greatest.as_mut() {
                *greatest = super::stream::PRIORITIES.1;
            }
        }
        Ok(())
    })
}
