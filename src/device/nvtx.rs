//! Named ranges for Nsight Systems and every other tool that speaks NVTX 3.
//!
//! NVTX 3 is no library but a protocol: a profiler names its own library in `NVTX_INJECTION64_PATH`, and the program under it loads that
//! library and calls its `InitializeInjectionNvtx2` with a function that hands out tables. Through the table of callbacks the profiler
//! writes the addresses of its functions into slots, and from then on the program calls what stands in the slots (numbers and layouts:
//! `nvtxDetail/nvtxTypes.h` of <https://github.com/NVIDIA/NVTX>). Without a profiler a range costs one load.

use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What a range is a piece of; a profiler shows it as a category with a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a run: an attack, denoising, maps.
    Phase,
    /// The images of one phase that are worked on together.
    Batch,
    /// A pass through a network, or a step of an attack.
    Step,
    /// A layer or a kernel.
    Op,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Phase, Kind::Batch, Kind::Step, Kind::Op];

    /// Number, name and colour (ARGB), as a profiler gets them.
    fn category(self) -> (u32, &'static CStr, u32) {
        match self {
            Kind::Phase => (1, c"phase", 0xff3b_6fb6),
            Kind::Batch => (2, c"batch", 0xff2f_9e8f),
            Kind::Step => (3, c"step", 0xffe0_8a2b),
            Kind::Op => (4, c"op", 0xff8a_8f98),
        }
    }
}

/// Ends its range when dropped, in the thread that opened it.
#[must_use = "the range ends when this is dropped"]
pub struct Range {
    open: bool,
    /// Ranges nest per thread: this must not leave its own.
    thread: PhantomData<*const ()>,
}

/// Opens a range.
pub fn range(kind: Kind, name: &str) -> Range {
    let pushed = match attached() {
        Ok(true) => push(kind, name),
        _ => false,
    };
    Range { open: pushed, thread: PhantomData }
}

/// As [`range`], with a name that is only put together where somebody reads it.
pub fn range_of(kind: Kind, name: impl FnOnce() -> String) -> Range {
    match attached() {
        Ok(true) => range(kind, &name()),
        _ => Range { open: false, thread: PhantomData },
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if self.open {
            let at = slot(Core::RangePop);
            if !at.is_null() {
                // SAFETY: the profiler put the address of its nvtxRangePop there; one range of this thread is open.
                unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(at)() };
            }
        }
    }
}

/// Whether a profiler listens: its library is loaded by the first call.
///
/// # Errors
/// Says what is wrong with the library that `NVTX_INJECTION64_PATH` names; then there are no ranges.
pub fn attached() -> Result<bool, &'static str> {
    static ATTACHED: OnceLock<Result<bool, String>> = OnceLock::new();
    ATTACHED.get_or_init(attach).as_ref().copied().map_err(String::as_str)
}

const INJECTION: &str = "NVTX_INJECTION64_PATH";

fn attach() -> Result<bool, String> {
    let Some(path) = std::env::var_os(INJECTION).filter(|path| !path.is_empty()) else { return Ok(false) };
    let failed = |problem: String| format!("{INJECTION}={}: {problem}: no ranges for the profiler", path.display());
    // SAFETY: the user, or the profiler in their name, asks for this library to be run.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|e| {
        failed(format!("not loaded: {}", e.source().map_or_else(|| e.to_string(), ToString::to_string)))
    })?;
    type Initialize = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    // SAFETY: the protocol gives the function this type.
    let initialize = unsafe { library.get::<Initialize>(b"InitializeInjectionNvtx2\0") }
        .map_err(|_| failed("it has no function InitializeInjectionNvtx2".into()))?;
    // SAFETY: as the protocol has it; the tables that `export_table` hands out live as long as the process.
    if unsafe { initialize(export_table) } == 0 {
        return Err(failed("its InitializeInjectionNvtx2 returned 0".into()));
    }
    // Its functions are called until the process ends.
    std::mem::forget(library);
    let name = slot(Core::NameCategoryA);
    if !name.is_null() {
        // SAFETY: the profiler put the address of its nvtxNameCategoryA there.
        let name: extern "C" fn(u32, *const c_char) = unsafe { std::mem::transmute(name) };
        for (number, called, _) in Kind::ALL.map(Kind::category) {
            name(number, called.as_ptr());
        }
    }
    Ok(true)
}

/// nvtxEventAttributes_t.
#[repr(C)]
struct Event {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: *const c_char,
}

/// Version 3 of the interface.
const VERSION: u16 = 3;
const COLOR_ARGB: i32 = 1;
const MESSAGE_ASCII: i32 = 1;

fn push(kind: Kind, name: &str) -> bool {
    // A name ends at its first zero byte.
    let Ok(name) = CString::new(name.split('\0').next().unwrap_or_default()) else { return false };
    let (category, _, color) = kind.category();
    let event = Event {
        version: VERSION,
        size: size_of::<Event>() as u16,
        category,
        color_type: COLOR_ARGB,
        color,
        payload_type: 0,
        reserved: 0,
        payload: 0,
        message_type: MESSAGE_ASCII,
        message: name.as_ptr(),
    };
    let (extended, plain) = (slot(Core::RangePushEx), slot(Core::RangePushA));
    if !extended.is_null() {
        // SAFETY: the profiler put the address of its nvtxRangePushEx there; it copies what it keeps.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*const Event) -> c_int>(extended)(&event) };
    } else if !plain.is_null() {
        // SAFETY: as above, nvtxRangePushA.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> c_int>(plain)(name.as_ptr()) };
    }
    !extended.is_null() || !plain.is_null()
}

/// Numbers of the functions in the table of module 1; its others we never call.
#[derive(Clone, Copy)]
enum Core {
    RangePushEx = 8,
    RangePushA = 9,
    RangePop = 11,
    NameCategoryA = 12,
}

/// Functions of each module, number 0 (which none has) included: none, core, CUDA, OpenCL, CUDA runtime, domains, locks. A profiler may
/// fill in all of them, so that all are there.
const FUNCTIONS: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const MOST: usize = 16;

/// Where a profiler writes the addresses of its functions.
static SLOTS: [[AtomicPtr<c_void>; MOST]; FUNCTIONS.len()] =
    [const { [const { AtomicPtr::new(ptr::null_mut()) }; MOST] }; FUNCTIONS.len()];

fn slot(function: Core) -> *mut c_void {
    SLOTS[1][function as usize].load(Ordering::Relaxed)
}

/// The addresses of one module's slots; nothing stands at number 0 and behind the last.
struct Table([*const AtomicPtr<c_void>; MOST + 1]);

// SAFETY: the addresses are those of SLOTS, which are atomic and live as long as the process.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let of = |module: usize| {
            let mut table = [ptr::null(); MOST + 1];
            for number in 1..FUNCTIONS[module] {
                table[number] = &raw const SLOTS[module][number];
            }
            Table(table)
        };
        (0..FUNCTIONS.len()).map(of).collect()
    })
}

#[repr(C)]
struct Callbacks {
    size: usize,
    functions: extern "C" fn(c_int, *mut *const *const AtomicPtr<c_void>, *mut c_uint) -> c_int,
}

#[repr(C)]
struct Versions {
    size: usize,
    version: u32,
    reserved: u32,
    injection_version: extern "C" fn(u32),
}

extern "C" fn export_table(id: u32) -> *const c_void {
    static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), functions };
    static VERSIONS: Versions =
        Versions { size: size_of::<Versions>(), version: VERSION as u32, reserved: 0, injection_version };
    match id {
        1 => (&raw const CALLBACKS).cast(),
        3 => (&raw const VERSIONS).cast(),
        _ => ptr::null(),
    }
}

/// Hands out the slots of a module.
extern "C" fn functions(module: c_int, table: *mut *const *const AtomicPtr<c_void>, size: *mut c_uint) -> c_int {
    let Some(module) = usize::try_from(module).ok().filter(|&module| (1..FUNCTIONS.len()).contains(&module)) else {
        return 0;
    };
    if !table.is_null() {
        // SAFETY: the profiler hands in null or room for an address.
        unsafe { *table = tables()[module].0.as_ptr() };
    }
    if !size.is_null() {
        // SAFETY: as above, for a number.
        unsafe { *size = FUNCTIONS[module] as c_uint };
    }
    1
}

/// A profiler says which version it speaks; all are alike to us.
extern "C" fn injection_version(_: u32) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_those_of_nvtx() {
        assert_eq!(size_of::<Event>(), 48);
        assert_eq!(std::mem::offset_of!(Event, payload), 24);
        assert_eq!(std::mem::offset_of!(Event, message), 40);
    }

    #[test]
    fn every_module_hands_out_its_slots() {
        for (module, &known) in FUNCTIONS.iter().enumerate().skip(1) {
            let (mut table, mut size) = (ptr::null(), 0);
            assert_eq!(functions(module as c_int, &mut table, &mut size), 1);
            assert_eq!(size as usize, known);
            // SAFETY: a table has a slot for each number from 1 on, and an empty place at both ends.
            let at = unsafe { std::slice::from_raw_parts(table, known + 1) };
            assert!(at[0].is_null() && at[known].is_null() && at[1..known].iter().all(|slot| !slot.is_null()));
        }
        for unknown in [-1, 0, 7, 1000] {
            assert_eq!(functions(unknown, ptr::null_mut(), ptr::null_mut()), 0, "{unknown}");
        }
        assert!(export_table(2).is_null());
    }

    #[test]
    fn ranges_nest_without_a_profiler() {
        let _outer = range(Kind::Phase, "outer");
        let _inner = range(Kind::Op, "in\0ner");
    }
}
