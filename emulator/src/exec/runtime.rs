//! What device code calls of the CUDA runtime without bringing its body: `assert` and `printf`.

use std::io::Write;

use super::cta::{Cta, Outcome};
use super::format::{Arguments, format};
use super::touch::lanes;
use super::warp::Warp;
use crate::address::{LOCAL, LOCAL_FIRST, PARAM, SHARED, SHARED_FIRST, WINDOW};
use crate::finding::Kind;
use crate::program::Ins;
use crate::registers::Value;

/// Bytes of a string that are looked at; a longer one is taken to have no end.
const MAX_STRING: usize = 64 << 10;

/// `__assertfail(message, file, line, function, char size)`: rows 0 to 4.
pub fn assert_fail(warp: &mut Warp, cta: &mut Cta, ins: &Ins, (): &(), mask: u32) -> Outcome {
    let l = mask.trailing_zeros() as usize;
    let text = |slot: usize| {
        // SAFETY: the argument is one of the 64-bit rows that the compiler gave this call.
        let at = unsafe { u64::read(&warp.registers, ins.operands.slot[slot]) }[l];
        let found = string(warp, cta, l, at, MAX_STRING);
        found.map_or_else(|_| format!("(unreadable at {at:#x})"), |s| String::from_utf8_lossy(&s).into_owned())
    };
    // SAFETY: the line, argument 2, is a row of 32 bits.
    let line = unsafe { u32::read(&warp.registers, ins.operands.slot[2]) }[l];
    let what = format!("`{}` at {}:{line} in {}", text(0), text(1), text(3));
    Err(warp.finding(cta, ins, Kind::Assertion, l, what))
}

/// `vprintf(format, arguments)`: the number of arguments printed into row 0, rows 1 and 2. Lanes print in ascending order.
pub fn print(warp: &mut Warp, cta: &mut Cta, ins: &Ins, (): &(), mask: u32) -> Outcome {
    let slot = ins.operands.slot;
    // SAFETY: the compiler gave this call two 64-bit rows for its arguments.
    let (formats, lists) = unsafe { (u64::read(&warp.registers, slot[1]), u64::read(&warp.registers, slot[2])) };
    let mut results = [0u32; 32];
    for l in lanes(mask) {
        if formats[l] == 0 {
            results[l] = -1i32 as u32;
            continue;
        }
        let mut list = List { warp, cta, lane: l, next: lists[l] };
        let done = string(warp, cta, l, formats[l], MAX_STRING).and_then(|template| format(&template, &mut list));
        let (text, taken) = done.map_err(|why| warp.finding(cta, ins, Kind::Printf, l, format!("printf: {why}")))?;
        let mut output = cta.shape.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // As on a GPU, a kernel does not fail when nobody can hear it.
        let _ = output.write_all(&text);
        results[l] = taken;
    }
    // SAFETY: the compiler gave this call a 32-bit row for its result.
    unsafe { u32::write(&mut warp.registers, slot[0], mask, results) };
    Ok(())
}

/// The arguments of one lane, where it put them.
struct List<'a> {
    warp: &'a Warp,
    cta: &'a Cta<'a>,
    lane: usize,
    next: u64,
}

impl Arguments for List<'_> {
    fn next(&mut self, bytes: usize) -> Result<u64, String> {
        let at = self.next.next_multiple_of(bytes as u64);
        self.next = at + bytes as u64;
        (0..bytes as u64).try_fold(0, |bits, i| match byte(self.warp, self.cta, self.lane, at.wrapping_add(i)) {
            Some(b) => Ok(bits | u64::from(b) << (8 * i)),
            None => Err(format!("the argument of {bytes} bytes at {at:#x} is unreadable")),
        })
    }

    fn string(&mut self, address: u64, limit: usize) -> Result<Vec<u8>, String> {
        if address == 0 { Ok(b"(null)".to_vec()) } else { string(self.warp, self.cta, self.lane, address, limit) }
    }
}

/// The bytes from a generic address up to a zero, at most `limit`.
fn string(warp: &Warp, cta: &Cta, lane: usize, at: u64, limit: usize) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    while text.len() < limit {
        match byte(warp, cta, lane, at.wrapping_add(text.len() as u64)) {
            Some(0) => break,
            Some(_) if text.len() >= MAX_STRING => return Err(format!("the string at {at:#x} has no end")),
            Some(b) => text.push(b),
            None => return Err(format!("the string at {at:#x} is unreadable")),
        }
    }
    Ok(text)
}

/// The byte at a generic address, if there is one.
fn byte(warp: &Warp, cta: &Cta, lane: usize, at: u64) -> Option<u8> {
    let window = |first: u64| at.checked_sub(first).filter(|&offset| offset < WINDOW);
    if let Some(at) = window(SHARED) {
        let offset = at.checked_sub(SHARED_FIRST).filter(|&o| o < cta.shape.shared_bytes as u64)?;
        // SAFETY: the offset was just found to be less than the block's `shared_bytes`.
        return Some(unsafe { *cta.shared().add(offset as usize) });
    }
    if let Some(at) = window(LOCAL) {
        let size = cta.shape.program.local_bytes as usize;
        let offset = at.checked_sub(LOCAL_FIRST).filter(|&o| o < size as u64)?;
        return warp.local.get(lane * size + offset as usize).copied();
    }
    if let Some(at) = window(PARAM) {
        return cta.shape.parameters.get(at as usize).copied();
    }
    let views = cta.shape.views;
    let view = &views[views.partition_point(|v| v.base <= at).checked_sub(1)?];
    // SAFETY: the view begins at or before the address, and ends behind it.
    (at < view.end).then(|| unsafe { *view.data(at) })
}
