//! Device memory: buffers behind addresses that are never handed out twice.
#![allow(clippy::result_large_err)] // a finding is rare, and the calls that return one are long

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::address;
use crate::finding::{BufferName, Finding, Kind};

/// Alignment of every buffer, as the driver promises.
const ALIGN: usize = 256;
/// Unused addresses behind every buffer, so that a step past its end meets nothing.
const GAP: u64 = 64 << 10;
/// Addresses of each of several devices: addresses are never handed out twice, and 2^43 last for all that is ever allocated.
const APART: u64 = 1 << 43;
/// Freed buffers remembered for reports.
const REMEMBERED: usize = 4096;

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The program allocated it.
    Allocation,
    /// A `.global` or `.const` variable of a module.
    Variable,
    /// Physical memory at an address of the program's choice.
    Mapping,
}

/// Who gives the bytes of a buffer back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Buffer,
    /// The data are the host's; what is kept of them is the buffer's.
    Host,
    /// Both are a chunk's, which may be mapped more than once.
    Chunk,
}

/// Host pointers to data and to what is kept of them, and how many bytes.
type Piece = (*mut u8, *mut u8, usize);

/// Memory without an address.
struct Chunk {
    bytes: usize,
    data: *mut u8,
    written: *mut u8,
}

struct Buffer {
    bytes: usize,
    number: u64,
    used_for: Use,
    data: *mut u8,
    /// One byte per byte: 1 where something was written. Null without checks.
    written: *mut u8,
    owner: Owner,
}

/// All buffers of a device.
pub struct Memory {
    total: usize,
    used: usize,
    next: u64,
    count: u64,
    checks: bool,
    live: BTreeMap<u64, Buffer>,
    freed: VecDeque<BufferName>,
    chunks: BTreeMap<u64, Chunk>,
}

// SAFETY: the pointers own their memory, and nothing else refers to it.
unsafe impl Send for Memory {}

/// A buffer as a launch sees it.
#[derive(Clone, Copy)]
pub struct View {
    pub base: u64,
    pub end: u64,
    pub number: u64,
    data: *mut u8,
    written: *mut u8,
}

// SAFETY: the pointers lead to buffers that outlive the launch, on whichever thread.
unsafe impl Send for View {}
// SAFETY: blocks on several threads share device memory as they do on a GPU; races are the kernel's, and reported.
unsafe impl Sync for View {}

impl View {
    /// Host address of a device address within the view.
    #[inline(always)]
    pub fn data(&self, at: u64) -> *mut u8 {
        self.data.wrapping_add((at - self.base) as usize)
    }

    pub fn name(&self) -> BufferName {
        BufferName { base: self.base, bytes: self.end - self.base, number: self.number, freed: false }
    }

    /// # Safety
    /// The bytes lie within the view, and the memory was made with checks.
    #[inline(always)]
    pub unsafe fn all_written(&self, at: usize, bytes: usize) -> bool {
        // SAFETY: with checks there is a written-byte for every byte of the view, within which the caller stays.
        unsafe {
            let p = self.written.add(at);
            match bytes {
                1 => *p == 1,
                2 => p.cast::<u16>().read_unaligned() == 0x0101,
                4 => p.cast::<u32>().read_unaligned() == 0x0101_0101,
                8 => p.cast::<u64>().read_unaligned() == 0x0101_0101_0101_0101,
                16 => p.cast::<u128>().read_unaligned() == u128::from_ne_bytes([1; 16]),
                _ => (0..bytes).all(|i| *p.add(i) == 1),
            }
        }
    }

    /// # Safety
    /// As for [`View::all_written`].
    #[inline(always)]
    pub unsafe fn mark_written(&self, at: usize, bytes: usize) {
        // SAFETY: as for `all_written`: one written-byte for each byte of the view.
        unsafe { self.written.add(at).write_bytes(1, bytes) };
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), ALIGN).ok()
}

/// Zeroed memory, or null.
fn fresh(bytes: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    layout(bytes).map_or(std::ptr::null_mut(), |l| unsafe { alloc_zeroed(l) })
}

/// Memory of [`fresh`], with the same size, once; nothing for null.
fn give_back(memory: *mut u8, bytes: usize) {
    if let (Some(l), false) = (layout(bytes), memory.is_null()) {
        // SAFETY: allocated by `fresh` with this layout, and given back once.
        unsafe { dealloc(memory, l) };
    }
}

impl Memory {
    /// Of one of several devices, counted from 0: their addresses lie far apart, so that no buffer of one is one of another.
    pub fn new(total: usize, checks: bool, device: u32) -> Self {
        Memory {
            total,
            used: 0,
            next: address::GLOBAL + (1 << 30) + u64::from(device) * APART,
            count: 0,
            checks,
            live: BTreeMap::new(),
            freed: VecDeque::new(),
            chunks: BTreeMap::new(),
        }
    }

    /// Bytes free and in all.
    pub fn sizes(&self) -> (usize, usize) {
        (self.total - self.used, self.total)
    }

    /// A new buffer, or `None` when the device or the host has no more.
    pub fn allocate(&mut self, bytes: usize, used_for: Use) -> Option<u64> {
        let taken = bytes.checked_next_multiple_of(ALIGN)?.max(ALIGN);
        if taken > self.total - self.used || self.next + taken as u64 + GAP > address::GLOBAL_END {
            return None;
        }
        let (data, written) = self.pair(taken)?;
        let base = self.next;
        self.next = (base + taken as u64 + GAP).next_multiple_of(ALIGN as u64);
        self.used += taken;
        self.count += 1;
        self.live.insert(base, Buffer { bytes, number: self.count, used_for, data, written, owner: Owner::Buffer });
        Some(base)
    }

    /// Data and, with checks, what is kept of them.
    fn pair(&self, taken: usize) -> Option<(*mut u8, *mut u8)> {
        let data = fresh(taken);
        let written = if self.checks && !data.is_null() { fresh(taken) } else { std::ptr::null_mut() };
        if data.is_null() || self.checks && written.is_null() {
            give_back(data, taken);
            return None;
        }
        Some((data, written))
    }

    /// Addresses that no buffer will have; `None` when there are no more.
    pub fn reserve(&mut self, bytes: usize, alignment: u64) -> Option<u64> {
        let base = self.next.checked_next_multiple_of(alignment.max(ALIGN as u64))?;
        let end = base.checked_add(bytes as u64)?.checked_add(GAP)?;
        if end > address::GLOBAL_END {
            return None;
        }
        self.next = end.next_multiple_of(ALIGN as u64);
        Some(base)
    }

    /// Memory that has no address until it is mapped: a number for it, or `None` when the device or the host has no more.
    pub fn chunk(&mut self, bytes: usize) -> Option<u64> {
        if bytes > self.total - self.used {
            return None;
        }
        let (data, written) = self.pair(bytes)?;
        self.used += bytes;
        self.count += 1;
        self.chunks.insert(self.count, Chunk { bytes, data, written });
        Some(self.count)
    }

    /// Gives a chunk back, which must not be mapped any more.
    pub fn drop_chunk(&mut self, chunk: u64) {
        if let Some(chunk) = self.chunks.remove(&chunk) {
            self.used -= chunk.bytes;
            give_back(chunk.data, chunk.bytes);
            give_back(chunk.written, chunk.bytes);
        }
    }

    /// Makes the first bytes of a chunk a buffer at an address that was reserved.
    pub fn map(&mut self, address: u64, bytes: usize, chunk: u64) {
        let Some(&Chunk { bytes: size, data, written }) = self.chunks.get(&chunk) else { return };
        debug_assert!(bytes <= size);
        self.count += 1;
        let buffer = Buffer { bytes, number: self.count, used_for: Use::Mapping, data, written, owner: Owner::Chunk };
        self.live.insert(address, buffer);
    }

    /// Memory of the host as a buffer at its own address. The host may write it at any time: all of it counts as written.
    pub fn share(&mut self, address: u64, bytes: usize) -> bool {
        let taken = bytes.next_multiple_of(ALIGN).max(ALIGN);
        let written = if self.checks { fresh(taken) } else { std::ptr::null_mut() };
        if self.checks && written.is_null() {
            return false;
        }
        if self.checks {
            // SAFETY: just allocated with at least this size.
            unsafe { written.write_bytes(1, bytes) };
        }
        self.count += 1;
        let (number, data) = (self.count, address as *mut u8);
        self.live
            .insert(address, Buffer { bytes, number, used_for: Use::Allocation, data, written, owner: Owner::Host });
        true
    }

    /// Gives a buffer back; its number.
    ///
    /// # Errors
    /// A finding when `base` is not the start of a live buffer.
    pub fn free(&mut self, base: u64) -> Result<u64, Finding> {
        match self.live.remove(&base) {
            Some(buffer) => {
                if self.freed.len() == REMEMBERED {
                    self.freed.pop_front();
                }
                self.freed.push_back(BufferName { freed: true, ..name(base, &buffer) });
                self.release(&buffer);
                Ok(buffer.number)
            }
            None => {
                let freed = self.freed.iter().rev().find(|b| b.base == base).copied();
                let mut f = match freed {
                    Some(_) => Finding::new(Kind::DoubleFree, "this buffer was freed before"),
                    None => match self.around(base) {
                        Some(_) => {
                            Finding::new(Kind::InvalidFree, "this address lies inside a buffer, not at its start")
                        }
                        None => Finding::new(Kind::InvalidFree, "no allocation returned this address"),
                    },
                };
                f.address = Some(base);
                f.buffer = freed.or_else(|| self.around(base).map(|(base, b)| name(base, b)));
                Err(f)
            }
        }
    }

    fn release(&mut self, buffer: &Buffer) {
        let taken = buffer.bytes.next_multiple_of(ALIGN).max(ALIGN);
        if buffer.owner == Owner::Buffer {
            self.used -= taken;
            give_back(buffer.data, taken);
        }
        if buffer.owner != Owner::Chunk {
            give_back(buffer.written, taken);
        }
    }

    fn around(&self, at: u64) -> Option<(u64, &Buffer)> {
        let (&base, buffer) = self.live.range(..=at).next_back()?;
        (at < base + buffer.bytes as u64).then_some((base, buffer))
    }

    /// Base and bytes of the live buffer around an address.
    pub fn buffer_at(&self, at: u64) -> Option<(u64, usize)> {
        self.around(at).map(|(base, b)| (base, b.bytes))
    }

    /// All live buffers, ascending.
    pub fn views(&self) -> Vec<View> {
        let view = |(&base, b): (&u64, &Buffer)| View {
            base,
            end: base + b.bytes as u64,
            number: b.number,
            data: b.data,
            written: b.written,
        };
        self.live.iter().map(view).collect()
    }

    /// Names of the program's buffers that are still there.
    pub fn allocations(&self) -> Vec<BufferName> {
        self.live.iter().filter(|(_, b)| b.used_for == Use::Allocation).map(|(&base, b)| name(base, b)).collect()
    }

    /// Host pointers to the data and the written-map of `bytes` bytes at `at`, and how many bytes: one piece, or several where memory
    /// was mapped side by side.
    fn pieces(&self, at: u64, bytes: usize, what: &str) -> Result<Vec<Piece>, Finding> {
        let mut pieces = Vec::new();
        let (mut at, mut left) = (at, bytes);
        loop {
            let here = match self.around(at) {
                Some((base, buffer)) if buffer.owner == Owner::Chunk => {
                    let end = base + buffer.bytes as u64;
                    let beside = self.live.get(&end).is_some_and(|next| next.owner == Owner::Chunk);
                    if beside { left.min((end - at) as usize) } else { left }
                }
                _ => left,
            };
            let (data, written) = self.range(at, here, what)?;
            pieces.push((data, written, here));
            (at, left) = (at + here as u64, left - here);
            if left == 0 {
                return Ok(pieces);
            }
        }
    }

    /// Host pointers to the data and the written-map of `bytes` bytes at `at`, in one buffer.
    fn range(&self, at: u64, bytes: usize, what: &str) -> Result<(*mut u8, *mut u8), Finding> {
        let failed = |kind, text: String, buffer| {
            let mut f = Finding::new(kind, text);
            f.address = Some(at);
            f.buffer = buffer;
            f
        };
        let Some((base, buffer)) = self.around(at) else {
            let (kind, text, buffer) = explain_with(&self.views(), &self.freed, at, bytes as u64, what);
            return Err(failed(kind, text, buffer));
        };
        let offset = (at - base) as usize;
        if bytes > buffer.bytes - offset {
            let text = format!("{what} of {bytes} bytes, but only {} are left in the buffer", buffer.bytes - offset);
            return Err(failed(Kind::CopySize, text, Some(name(base, buffer))));
        }
        // SAFETY: the offset lies within the allocation.
        unsafe {
            let written = if self.checks { buffer.written.add(offset) } else { std::ptr::null_mut() };
            Ok((buffer.data.add(offset), written))
        }
    }

    /// Host to device.
    pub fn write(&mut self, to: u64, from: &[u8]) -> Result<(), Finding> {
        if from.is_empty() {
            return Ok(());
        }
        let mut from = from;
        for (data, written, bytes) in self.pieces(to, from.len(), "copy to the device")? {
            let (here, rest) = from.split_at(bytes);
            // SAFETY: `pieces` has checked the sizes, and host memory is not device memory.
            unsafe {
                data.copy_from_nonoverlapping(here.as_ptr(), bytes);
                if self.checks {
                    written.write_bytes(1, bytes);
                }
            }
            from = rest;
        }
        Ok(())
    }

    /// Takes what nobody wrote since it was allocated for the zeros that it is.
    pub fn initialized(&mut self, at: u64, bytes: usize) -> Result<(), Finding> {
        let (_, written) = self.range(at, bytes, "initial values")?;
        if self.checks {
            // SAFETY: `range` has checked the size: one written-byte for each byte of the buffer.
            unsafe { written.write_bytes(1, bytes) };
        }
        Ok(())
    }

    /// Device to host. Bytes that nothing wrote come along: padding is legal.
    pub fn read(&self, from: u64, to: &mut [u8]) -> Result<(), Finding> {
        if to.is_empty() {
            return Ok(());
        }
        let pieces = self.pieces(from, to.len(), "copy from the device")?;
        // SAFETY: `pieces` has checked the sizes of the written-bytes.
        let any = |&(_, written, bytes): &Piece| unsafe { (0..bytes).any(|i| *written.add(i) == 1) };
        if self.checks && !pieces.iter().any(any) {
            let text = format!("copy from the device of {} bytes, none of which was ever written", to.len());
            let mut f = Finding::new(Kind::UninitializedGlobal, text);
            f.address = Some(from);
            f.buffer = self.around(from).map(|(base, b)| name(base, b));
            return Err(f);
        }
        let mut to = to;
        for (data, _, bytes) in pieces {
            let (here, rest) = to.split_at_mut(bytes);
            // SAFETY: `pieces` has checked the sizes, and host memory is not device memory.
            unsafe { data.copy_to_nonoverlapping(here.as_mut_ptr(), bytes) };
            to = rest;
        }
        Ok(())
    }

    /// Within the device; what was never written stays so.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Finding> {
        if bytes == 0 {
            return Ok(());
        }
        let sources = self.pieces(from, bytes, "copy within the device")?;
        let targets = self.pieces(to, bytes, "copy within the device")?;
        if let ([(source, source_written, _)], [(target, target_written, _)]) = (&sources[..], &targets[..]) {
            // SAFETY: `pieces` has checked the size at both ends; the ranges may overlap, which `copy_to` allows.
            unsafe {
                source.copy_to(*target, bytes);
                if self.checks {
                    source_written.copy_to(*target_written, bytes);
                }
            }
            return Ok(());
        }
        // Pieces of both sides may be the same memory: all is read before anything is written.
        let all = self.gather(&sources);
        self.scatter(&targets, &all);
        Ok(())
    }

    /// From the memory of another device; what was never written stays so.
    pub fn copy_from(&mut self, to: u64, other: &Memory, from: u64, bytes: usize) -> Result<(), Finding> {
        if bytes == 0 {
            return Ok(());
        }
        let all = other.gather(&other.pieces(from, bytes, "copy between devices")?);
        let targets = self.pieces(to, bytes, "copy between devices")?;
        self.scatter(&targets, &all);
        Ok(())
    }

    /// Data and, with checks, what is kept of them.
    fn gather(&self, pieces: &[Piece]) -> [Vec<u8>; 2] {
        let side = |side: usize| -> Vec<u8> {
            let piece = |&(data, written, bytes): &Piece| -> &[u8] {
                // SAFETY: `pieces` has checked the sizes, and nothing writes while the slice is there.
                unsafe { std::slice::from_raw_parts([data, written][side], bytes) }
            };
            pieces.iter().flat_map(piece).copied().collect()
        };
        [side(0), if self.checks { side(1) } else { Vec::new() }]
    }

    /// The other way; both are of the same length.
    fn scatter(&mut self, pieces: &[Piece], [data, written]: &[Vec<u8>; 2]) {
        let mut at = 0;
        for &(target, target_written, bytes) in pieces {
            let kept = if self.checks { &written[at..at + bytes] } else { &[] };
            // SAFETY: `pieces` has checked the sizes, and what was gathered is other memory.
            unsafe {
                target.copy_from_nonoverlapping(data[at..at + bytes].as_ptr(), bytes);
                if self.checks {
                    target_written.copy_from_nonoverlapping(kept.as_ptr(), bytes);
                }
            }
            at += bytes;
        }
    }

    /// `count` times `pattern`.
    pub fn fill(&mut self, to: u64, pattern: &[u8], count: usize) -> Result<(), Finding> {
        let bytes = pattern.len().saturating_mul(count);
        if bytes == 0 {
            return Ok(());
        }
        for (data, written, bytes) in self.pieces(to, bytes, "fill")? {
            // SAFETY: `pieces` has checked the size; boundaries between pieces are multiples of every pattern's.
            unsafe {
                for i in 0..bytes / pattern.len() {
                    data.add(i * pattern.len()).copy_from_nonoverlapping(pattern.as_ptr(), pattern.len());
                }
                if self.checks {
                    written.write_bytes(1, bytes);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (_, buffer) in std::mem::take(&mut self.live) {
            self.release(&buffer);
        }
        let chunks: Vec<u64> = self.chunks.keys().copied().collect();
        chunks.into_iter().for_each(|chunk| self.drop_chunk(chunk));
    }
}

fn name(base: u64, b: &Buffer) -> BufferName {
    BufferName { base, bytes: b.bytes as u64, number: b.number, freed: false }
}

/// Why an address is in no view.
pub fn explain(views: &[View], at: u64, bytes: u64, access: &str) -> (Kind, String, Option<BufferName>) {
    explain_with(views, &VecDeque::new(), at, bytes, access)
}

fn explain_with(
    views: &[View],
    freed: &VecDeque<BufferName>,
    at: u64,
    bytes: u64,
    access: &str,
) -> (Kind, String, Option<BufferName>) {
    if at < 4096 {
        return (Kind::OutOfBounds, format!("{access} of {bytes} bytes through a null pointer"), None);
    }
    if !(address::GLOBAL..address::GLOBAL_END).contains(&at) {
        let text = format!("{access} of {bytes} bytes at an address of the host, where a device address belongs");
        return (Kind::HostPointer, text, None);
    }
    if let Some(b) = freed.iter().rev().find(|b| b.base <= at && at < b.base + b.bytes.max(1)) {
        return (Kind::UseAfterFree, format!("{access} of {bytes} bytes in a buffer that was freed"), Some(*b));
    }
    let before = views.iter().rev().find(|v| v.base <= at);
    if let Some(v) = before.filter(|v| at - v.base < v.end - v.base + GAP) {
        let text = if at < v.end {
            format!("{access} of {bytes} bytes that ends {} bytes behind the buffer", at + bytes - v.end)
        } else {
            format!("{access} of {bytes} bytes, {} bytes behind the end of the buffer", at - v.end)
        };
        return (Kind::OutOfBounds, text, Some(v.name()));
    }
    if let Some(v) = views.iter().find(|v| v.base > at).filter(|v| v.base - at < GAP) {
        let text = format!("{access} of {bytes} bytes, {} bytes before the buffer", v.base - at);
        return (Kind::OutOfBounds, text, Some(v.name()));
    }
    (Kind::OutOfBounds, format!("{access} of {bytes} bytes where no buffer is"), None)
}

impl Memory {
    /// Adds to a kernel's finding what only the memory knows: that the buffer was freed.
    pub fn recall(&self, f: &mut Finding) {
        if let (Kind::OutOfBounds, Some(at)) = (f.kind, f.address)
            && let Some(b) = self.freed.iter().rev().find(|b| b.base <= at && at < b.base + b.bytes.max(1))
        {
            f.kind = Kind::UseAfterFree;
            f.buffer = Some(*b);
            f.what = "access to a buffer that was freed".into();
        }
    }
}
