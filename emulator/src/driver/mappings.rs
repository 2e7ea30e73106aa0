//! What virtual memory there is: reserved addresses, created memory, and which lies where.

use std::collections::BTreeMap;

use super::failure::{Outcome, fail, failure};
use super::types::*;

/// Memory that was created, whose handle is its number.
pub struct Physical {
    pub bytes: usize,
    pub properties: CUmemAllocationProp,
    /// The context that was current, if any.
    pub context: Option<usize>,
    /// How often it must still be released, and how often it is mapped.
    pub handles: usize,
    pub mappings: usize,
}

#[derive(Clone, Copy)]
pub struct Mapping {
    pub bytes: usize,
    pub handle: CUmemHandle,
    pub accessible: bool,
}

#[derive(Default)]
pub struct VirtualMemory {
    /// Bytes by first address.
    pub reserved: BTreeMap<CUdeviceptr, usize>,
    pub mapped: BTreeMap<CUdeviceptr, Mapping>,
    pub memory: BTreeMap<CUmemHandle, Physical>,
}

impl VirtualMemory {
    pub fn physical(&mut self, handle: CUmemHandle) -> Outcome<&mut Physical> {
        let found = self.memory.get_mut(&handle).filter(|memory| memory.handles > 0);
        found.ok_or_else(|| failure(ERROR_INVALID_VALUE, "no such memory: the handle is stale or foreign"))
    }

    /// Whether an address lies in mapped memory, accessible or not.
    pub fn is_mapped(&self, address: CUdeviceptr) -> bool {
        self.around(address).is_some()
    }

    pub fn around(&self, address: CUdeviceptr) -> Option<(CUdeviceptr, Mapping)> {
        let (&at, &mapping) = self.mapped.range(..=address).next_back()?;
        (address - at < mapping.bytes as u64).then_some((at, mapping))
    }

    /// The mappings that a range consists of, whole and side by side.
    pub fn covering(&self, at: CUdeviceptr, bytes: usize) -> Outcome<Vec<(CUdeviceptr, Mapping)>> {
        let (mut next, mut left) = (at, bytes);
        let mut found = Vec::new();
        while left > 0 {
            let Some(mapping) = self.mapped.get(&next).filter(|mapping| mapping.bytes <= left) else {
                let why = match self.around(next) {
                    Some((base, m)) => format!("the range cuts the {} bytes that are mapped at {base:#x}", m.bytes),
                    None => format!("nothing is mapped at {next:#x}"),
                };
                return fail(ERROR_INVALID_VALUE, format!("{bytes} bytes at {at:#x}: {why}"));
            };
            found.push((next, *mapping));
            (next, left) = (next + mapping.bytes as u64, left - mapping.bytes);
        }
        if found.is_empty() {
            return fail(ERROR_INVALID_VALUE, "a range of 0 bytes");
        }
        Ok(found)
    }

    /// Bytes that a context created and did not release.
    pub fn never_released(&self, context: usize) -> Vec<usize> {
        let own = |m: &&Physical| m.context == Some(context) && m.handles > 0;
        self.memory.values().filter(own).map(|m| m.bytes).collect()
    }
}
