//! The emulated GPU: loads a stand-in for the driver before cudarc looks for the real one.
//!
//! The stand-in is an image in memory whose symbols are the functions of the `ptx-emulator` crate in this program, under the soname
//! `libcuda.so`. A library that is loaded already is found by that name, so cudarc's own search ends there, and everything behind it
//! is the code that drives a GPU.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Mutex;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use ptx_emulator::config;
use ptx_emulator::count::LaunchCounts;
use ptx_emulator::driver::tally::Tally;
use ptx_emulator::driver::{embed, stand_in};
use ptx_emulator::finding::Finding;
use ptx_emulator::machine::Options;

use crate::{Error, Result};

/// How the emulator runs; what is `None` follows its environment variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Settings {
    /// Shuffles the order of warps and blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<bool>,
    /// How many GPUs there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}

/// Which driver this process uses: cudarc keeps the first it finds.
enum Driver {
    Real,
    Emulated(#[allow(dead_code, reason = "stays loaded")] Library),
}

struct State {
    driver: Option<Driver>,
    settings: Settings,
}

static STATE: Mutex<State> =
    Mutex::new(State { driver: None, settings: Settings { seed: None, checks: None, counters: None, devices: None } });

/// Says how the emulator is to run, before `--device emulated` opens it.
pub fn configure(settings: Settings) {
    STATE.lock().expect("no panic while locked").settings = settings;
}

/// Says how many GPUs are emulated, before the first is opened.
pub(super) fn offer(devices: u32) {
    STATE.lock().expect("no panic while locked").settings.devices = Some(devices);
}

/// The process is about to use the real driver.
///
/// # Errors
/// [`Error::Device`] when it uses the stand-in already.
pub(super) fn choose_real() -> Result<()> {
    let mut state = STATE.lock().expect("no panic while locked");
    match state.driver {
        Some(Driver::Emulated(_)) => Err(Error::device("this process uses the emulated GPU already")),
        _ => {
            state.driver = Some(Driver::Real);
            Ok(())
        }
    }
}

/// Whether this process may still choose: the stand-in cannot be opened beside the real driver.
pub(super) fn choose_emulated() -> Result<()> {
    let mut state = STATE.lock().expect("no panic while locked");
    match state.driver {
        Some(Driver::Real) => return Err(Error::device("this process uses the real CUDA driver already")),
        Some(Driver::Emulated(_)) => return Ok(()),
        None => {}
    }
    let settings = serde_json::to_string(&state.settings).expect("numbers and switches");
    embed::configure(&settings).map_err(|why| Error::device(format!("the emulator refuses its settings: {why}")))?;
    let library = load(&stand_in::image()).map_err(|e| Error::Device {
        problem: "the emulated GPU cannot be loaded; it needs Linux with glibc 2.28 or later, and /proc".into(),
        source: Some(e),
    })?;
    state.driver = Some(Driver::Emulated(library));
    Ok(())
}

/// Loads a shared library from memory, so that later searches find its soname.
fn load(image: &[u8]) -> std::result::Result<Library, Box<dyn std::error::Error + Send + Sync>> {
    // SAFETY: the name is a C string; a descriptor that is not negative is new, and owned here alone.
    let mut file = unsafe {
        match libc::memfd_create(c"libcuda.so".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => return Err(std::io::Error::last_os_error().into()),
            fd => File::from_raw_fd(fd),
        }
    };
    file.write_all(image)?;
    // SAFETY: the image has no code and no initialisers; RTLD_GLOBAL makes its soname known to later searches.
    let library =
        unsafe { Library::open(Some(format!("/proc/self/fd/{}", file.as_raw_fd())), RTLD_NOW | RTLD_GLOBAL) }?;
    // SAFETY: never called: its address is compared.
    let found = unsafe { library.get::<unsafe extern "C" fn()>(b"cuInit") }?;
    let (found, meant) = (*found as usize, ptx_emulator::driver::device::cuInit as *const () as usize);
    if found != meant {
        return Err(format!("dlsym gives {found:#x} for a symbol of the absolute address {meant:#x}").into());
    }
    Ok(library)
}

/// How the emulator runs, its environment variables and [`configure`] taken together.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Effective {
    /// The GPU that is emulated.
    pub model: String,
    pub seed: u64,
    pub checks: bool,
}

/// # Errors
/// [`Error::Device`] for an environment variable with a value that the emulator refuses.
pub fn effective() -> Result<Effective> {
    let settings = STATE.lock().expect("no panic while locked").settings;
    let mut options = Options::default();
    config::apply_environment(&mut options, |name| std::env::var_os(name)).map_err(|e| Error::device(e.to_string()))?;
    let model = options.model.device().name.into();
    let (seed, checks) = (settings.seed.unwrap_or(options.seed), settings.checks.unwrap_or(options.checks));
    Ok(Effective { model, seed, checks })
}

/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
fn is_open() -> Result<()> {
    match STATE.lock().expect("no panic while locked").driver {
        Some(Driver::Emulated(_)) => Ok(()),
        _ => Err(Error::device("the emulated GPU is not open")),
    }
}

/// What the checkers found since the last call.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn findings() -> Result<Vec<Finding>> {
    is_open()?;
    Ok(embed::findings())
}

/// The launches counted since the last call.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn profile() -> Result<Vec<LaunchCounts>> {
    is_open()?;
    Ok(embed::profile())
}

/// What the program asked of the driver since the last call: copies, launches, waits.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn tally() -> Result<Tally> {
    is_open()?;
    Ok(embed::tally())
}
