//! PTX as text: without machine paths, compressed, and what its kernels look like from outside.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::generate::{Kernel, Struct};

/// PTX of ours without what depends on the machine, as `portable` in tools/cuda/cuda_toolkit.py does it.
///
/// Files get relative names (`kernels/conv.cu`; `cuda/NAME` for the toolkit's headers). The names of inlined functions, a
/// tenth of the text, shrink to an empty one: a `.loc` with `inlined_at` must name a function, nothing of ours reads it.
pub fn portable(ptx: &str) -> String {
    const DEBUG: &str = "\t.section\t.debug_str";
    const NAME: &str = "function_name $L__info_string";
    let mut out = String::with_capacity(ptx.len());
    let code = ptx.lines().take_while(|line| *line != DEBUG);
    for line in code.filter(|line| !line.trim().is_empty()) {
        if let Some((number, path)) = line.trim().strip_prefix(".file").and_then(|rest| rest.split_once('"')) {
            let path = path.trim_end_matches('"');
            let (folders, name) = path.rsplit_once(['/', '\\']).unwrap_or(("", path));
            let folder = if folders.rsplit(['/', '\\']).next() == Some("kernels") { "kernels" } else { "cuda" };
            let _ = writeln!(out, "\t.file{number}\"{folder}/{name}\"");
        } else if let Some((before, after)) = line.split_once(NAME) {
            let _ = writeln!(
                out,
                "{before}function_name $L__name{}",
                after.trim_start_matches(|c: char| c.is_ascii_digit())
            );
        } else {
            let _ = writeln!(out, "{line}");
        }
    }
    if ptx.lines().any(|line| line == DEBUG) {
        let _ = writeln!(out, "{DEBUG}\n\t{{\n$L__name:\n.b8 0\n\t}}");
    }
    out
}

pub fn compress(text: &str) -> Result<Vec<u8>, String> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(text.as_bytes()).and_then(|()| gz.finish()).map_err(|e| e.to_string())
}

pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// How the kernels of one source differ from those of its PTX in name, argument bytes or threads: the first difference.
pub fn mismatch(ptx: &str, kernels: &[&Kernel], structs: &[Struct]) -> Option<String> {
    let entries = entries(ptx);
    for kernel in kernels {
        let bytes = structs.iter().find(|s| s.name == kernel.args).map(|s| s.size);
        match entries.iter().find(|e| e.name == kernel.name) {
            None => return Some(format!("it has no {}", kernel.name)),
            Some(e) if Some(e.args) != bytes => return Some(format!("the arguments of {} have changed", kernel.name)),
            Some(e) if e.threads != kernel.threads => {
                return Some(format!("the threads of {} have changed", kernel.name));
            }
            Some(_) => {}
        }
    }
    let gone = entries.iter().find(|e| kernels.iter().all(|k| k.name != e.name))?;
    Some(format!("{} is no kernel any more", gone.name))
}

struct Entry<'a> {
    name: &'a str,
    /// bytes of its one parameter
    args: usize,
    threads: u32,
}

fn entries(ptx: &str) -> Vec<Entry<'_>> {
    ptx.split("\n.visible .entry ")
        .skip(1)
        .map(|text| {
            let (name, rest) = text.split_once('(').unwrap_or((text, ""));
            let number = |after: &str| {
                let digits = rest.split_once('{')?.0.split_once(after)?.1;
                digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
            };
            let args = number(&format!("{name}_param_0[")).unwrap_or(0) as usize;
            Entry { name, args, threads: number(".maxntid ").unwrap_or(0) }
        })
        .collect()
}
