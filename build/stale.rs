//! Whether prebuilt PTX belongs to the sources at hand. `kernels/prebuilt/SOURCES` says what each file was made from.
//!
//! A line is `conv: args.h=1a2b3c4d block.cuh=...`: every file of `kernels/` that nvcc read, with the CRC-32 of its bytes.
//! `args.h` counts only as far as the other files see it, so that a new struct leaves the PTX of other kernels valid.
//! `digest` in tools/cuda/prebuilt.py does the same.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use flate2::Crc;

/// Written for people: which of the files behind the PTX of `stem` are others than in `record`, the text of SOURCES.
///
/// # Errors
/// A line that is no record.
pub fn changed(folder: &Path, stem: &str, record: &str) -> Result<Option<String>, String> {
    let line = record.lines().find_map(|line| line.strip_prefix(stem)?.strip_prefix(": "));
    let Some(line) = line else { return Ok(Some("a source that SOURCES does not list".into())) };
    let mut entries = Vec::new();
    for entry in line.split_whitespace() {
        let parsed = entry.split_once('=').and_then(|(file, crc)| Some((file, u32::from_str_radix(crc, 16).ok()?)));
        entries.push(parsed.ok_or_else(|| format!("`{entry}` of {stem}: expected FILE=CRC"))?);
    }
    let texts: Vec<Option<String>> =
        entries.iter().map(|(file, _)| fs::read_to_string(folder.join(file)).ok()).collect();
    let words: HashSet<&str> = entries
        .iter()
        .zip(&texts)
        .filter(|((file, _), _)| *file != "args.h")
        .flat_map(|(_, text)| words(text.as_deref().unwrap_or_default()))
        .collect();
    let differs = |file: &str, text: &Option<String>, wanted: u32| match text {
        Some(text) if file == "args.h" => crc(&visible(text, words.clone())) != wanted,
        Some(text) => crc(text) != wanted,
        None => true,
    };
    let files: Vec<&str> = entries
        .iter()
        .zip(&texts)
        .filter(|((file, wanted), text)| differs(file, text, *wanted))
        .map(|((file, _), _)| *file)
        .collect();
    Ok((!files.is_empty()).then(|| files.join(", ")))
}

/// `args.h` as files with these words see it: without comments, blank lines, and structs that nothing names.
pub fn visible<'a>(args: &'a str, mut named: HashSet<&'a str>) -> String {
    // (name of the struct, "" between structs; its lines)
    let mut parts: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
    for line in args.lines().map(|line| line.split("//").next().unwrap_or("").trim_end()).filter(|l| !l.is_empty()) {
        if let Some(name) = line.strip_prefix("struct ").and_then(|l| l.strip_suffix(" {")) {
            parts.push((name, Vec::new()));
        }
        parts.last_mut().expect("it has one").1.push(line);
        if line == "};" {
            parts.push(("", Vec::new()));
        }
    }
    // A struct holds earlier ones only.
    let mut kept: Vec<Vec<&str>> = Vec::new();
    for (name, lines) in parts.into_iter().rev() {
        if name.is_empty() || named.contains(name) {
            named.extend(lines.iter().flat_map(|line| words(line)));
            kept.push(lines);
        }
    }
    kept.into_iter().rev().flatten().collect::<Vec<_>>().join("\n")
}

pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn crc(text: &str) -> u32 {
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}
