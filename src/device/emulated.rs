//! The emulated GPU: opens the stand-in driver of the `ptx-emulator` crate before cudarc looks for the real one.
//!
//! The stand-in carries the soname `libcuda.so`. A library that is loaded already is found by that name, so cudarc's own search
//! ends there, and everything behind it is the code that drives a GPU.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::Mutex;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use ptx_emulator::config;
use ptx_emulator::count::LaunchCounts;
use ptx_emulator::driver::tally::Tally;
use ptx_emulator::finding::Finding;
use ptx_emulator::machine::Options;

use crate::{Error, Result};

/// Names the library outright.
const VARIABLE: &str = "RAMPART_EMULATOR";
const FILE: &str = "libptx_emulator.so";

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
}

/// Which driver this process uses: cudarc keeps the first it finds.
enum Driver {
    Real,
    Emulated(Library),
}

struct State {
    driver: Option<Driver>,
    settings: Settings,
}

static STATE: Mutex<State> =
    Mutex::new(State { driver: None, settings: Settings { seed: None, checks: None, counters: None } });

/// Says how the emulator is to run, before `--device emulated` opens it.
pub fn configure(settings: Settings) {
    STATE.lock().expect("no panic while locked").settings = settings;
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
    let path = find()?;
    // SAFETY: the stand-in has no initialisers; RTLD_GLOBAL makes its soname known to later searches.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|e| Error::file(&path, format!("the emulator cannot be loaded: {e}")))?;
    let settings = serde_json::to_string(&state.settings).map_err(|e| Error::file(&path, e.to_string()))?;
    let settings = CString::new(settings).expect("JSON has no NUL");
    // SAFETY: the function has this signature and copies the text.
    let refused = unsafe {
        let configure: Symbol<unsafe extern "C" fn(*const c_char) -> i32> = symbol(&library, "ptx_emulator_configure")?;
        configure(settings.as_ptr())
    };
    if refused != 0 {
        return Err(Error::file(&path, format!("the emulator refuses its settings (error {refused})")));
    }
    state.driver = Some(Driver::Emulated(library));
    Ok(())
}

/// # Safety
/// The function must have the type `T`.
unsafe fn symbol<T>(library: &Library, name: &str) -> Result<Symbol<T>> {
    // SAFETY: the caller knows the type.
    unsafe { library.get(name.as_bytes()) }
        .map_err(|e| Error::device(format!("the emulator lacks {name}: {e}; rebuild it with this binary")))
}

/// The library lies beside this program, where cargo puts it.
pub fn find() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return Ok(given.into());
    }
    let program = std::env::current_exe().map_err(|e| Error::Device {
        problem: "the emulator is looked for beside this program, whose place is unknown".into(),
        source: Some(Box::new(e)),
    })?;
    let beside = program.parent().unwrap_or(&program);
    let places = [beside.join(FILE), beside.join("deps").join(FILE), beside.join("..").join(FILE)];
    places.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
        Error::device(format!(
            "{FILE} is not in {} or its folder deps; `cargo build` makes it, {VARIABLE} names another place",
            beside.display()
        ))
    })
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

/// Asks the open stand-in for a JSON text.
fn ask<T: serde::de::DeserializeOwned>(function: &str) -> Result<T> {
    let state = STATE.lock().expect("no panic while locked");
    let Some(Driver::Emulated(library)) = &state.driver else {
        return Err(Error::device("the emulated GPU is not open"));
    };
    // SAFETY: the functions have these signatures; the text is theirs until it is given back.
    let text = unsafe {
        let get: Symbol<unsafe extern "C" fn() -> *mut c_char> = symbol(library, function)?;
        let free: Symbol<unsafe extern "C" fn(*mut c_char)> = symbol(library, "ptx_emulator_free_string")?;
        let at = get();
        if at.is_null() {
            return Err(Error::device(format!("{function} gave nothing")));
        }
        let text = CStr::from_ptr(at).to_string_lossy().into_owned();
        free(at);
        text
    };
    serde_json::from_str(&text).map_err(|e| Error::device(format!("{function}: {e}")))
}

/// What the checkers found since the last call.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn findings() -> Result<Vec<Finding>> {
    ask("ptx_emulator_findings")
}

/// The launches counted since the last call.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn profile() -> Result<Vec<LaunchCounts>> {
    ask("ptx_emulator_profile")
}

/// What the program asked of the driver since the last call: copies, launches, waits.
///
/// # Errors
/// [`Error::Device`] unless the emulated GPU is open.
pub fn tally() -> Result<Tally> {
    ask("ptx_emulator_tally")
}
