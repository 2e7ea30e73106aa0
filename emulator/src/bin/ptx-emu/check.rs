//! Compiles every kernel of PTX files and every function that none calls, and says what it takes or why it does not compile.

use std::ffi::OsString;
use std::process::ExitCode;

use ptx_emulator::device::Model;
use ptx_emulator::fatbin;
use ptx_emulator::machine::{Machine, Options};
use ptx_emulator::ptx::PtxError;
use serde::Serialize;

use super::Failure;

/// One kernel, one function that no kernel calls, or a file without either.
#[derive(Serialize)]
struct Line {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    /// One that no kernel calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<PtxError>,
}

pub fn check(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let json = arguments.iter().any(|a| a == "--json");
    let files: Vec<&OsString> = arguments.iter().filter(|a| *a != "--json").collect();
    if let Some(option) = files.iter().find(|f| f.to_string_lossy().starts_with('-')) {
        return Err(Failure::Usage(format!("no option {}", option.to_string_lossy())));
    }
    if files.is_empty() {
        return Err(Failure::Usage("no file to check".into()));
    }
    let mut failed = false;
    for path in files {
        let file = path.to_string_lossy().into_owned();
        let bytes = std::fs::read(path).map_err(|e| Failure::Failed(format!("{file}: {e}")))?;
        // Of a fatbin the newest that any model loads.
        let newest = Model::ALL.into_iter().map(|model| model.device().compute_capability).max().unwrap_or_default();
        let text = fatbin::ptx_of_bytes(&bytes, newest).map_err(|e| Failure::Failed(format!("{file}: {e}")))?;
        for line in lines(&file, &text) {
            failed |= line.error.is_some();
            match json {
                true => println!("{}", serde_json::to_string(&line).unwrap_or_default()),
                false => tell(&line),
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn lines(file: &str, text: &str) -> Vec<Line> {
    let empty = |kernel, error| Line {
        file: file.into(),
        kernel,
        function: None,
        registers: None,
        shared_bytes: None,
        local_bytes: None,
        parameter_bytes: None,
        error,
    };
    let mut machine = Machine::new(Options { checks: false, threads: 1, ..Options::default() });
    let mut module = match machine.load(text) {
        Ok(module) => module,
        Err(e) => return vec![empty(None, Some(e))],
    };
    let names = module.kernel_names();
    let one = |name: String| match module.kernel(&name)? {
        Ok(kernel) => Some(Line {
            registers: Some(kernel.registers),
            shared_bytes: Some(kernel.static_shared),
            local_bytes: Some(kernel.local_bytes),
            parameter_bytes: Some(kernel.parameter_bytes),
            ..empty(Some(name), None)
        }),
        Err(e) => Some(empty(Some(name), Some(e))),
    };
    let mut lines: Vec<Line> = names.into_iter().filter_map(one).collect();
    let uncalled = module.check_uncalled().into_iter();
    lines.extend(uncalled.map(|(name, done)| Line { function: Some(name), ..empty(None, done.err()) }));
    if lines.is_empty() { vec![empty(None, None)] } else { lines }
}

fn tell(line: &Line) {
    if let Some(name) = &line.function {
        let said = line.error.as_ref().map_or("compiles".into(), PtxError::to_string);
        return println!("{}: function {name}, which no kernel calls: {said}", line.file);
    }
    let name = line.kernel.as_deref().unwrap_or("no kernel");
    match (&line.error, line.registers) {
        (Some(e), _) => println!("{}: {name}: {e}", line.file),
        (None, Some(registers)) => println!(
            "{}: {name}: {registers} registers, {} bytes of shared, {} of local memory, {} of parameters",
            line.file,
            line.shared_bytes.unwrap_or(0),
            line.local_bytes.unwrap_or(0),
            line.parameter_bytes.unwrap_or(0)
        ),
        (None, None) => println!("{}: {name}", line.file),
    }
}
