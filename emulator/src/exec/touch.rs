//! One access of several lanes, and how functions over it are compiled.

use crate::check::clock::{Who, Write};
use crate::program::{Addressing, Ins};
use crate::registers::{Registers, Value};

/// What the lanes of an instruction do to memory.
#[derive(Clone, Copy)]
pub struct Touch<'a> {
    pub ins: &'a Ins,
    /// Lanes that take part, never 0.
    pub mask: u32,
    /// Addresses, by lane.
    pub at: &'a [u64; 32],
    /// Bytes of each lane.
    pub bytes: usize,
    /// How reports call it: "read", "write".
    pub access: &'static str,
}

impl Touch<'_> {
    /// The same for fewer lanes.
    #[inline(always)]
    pub fn of(&self, mask: u32) -> Self {
        Touch { mask, ..*self }
    }

    /// What the checkers hear of one lane's write at an offset.
    #[inline(always)]
    pub fn write(&self, at: usize, me: Who) -> Write {
        Write { at, bytes: self.bytes, me, pc: self.ins.pc }
    }

    /// Size as addresses are counted.
    #[inline(always)]
    pub fn size(&self) -> u64 {
        self.bytes as u64
    }
}

/// Compiles a memory instruction of one family once per [`Level`](crate::registers::Level) and picks one.
macro_rules! versions {
    ($level:expr, $family:ty, $body:path) => {{
        use crate::registers::Level;
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn avx512(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &$family, mask: u32) -> Outcome {
            $body(warp, cta, ins, memory, mask)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn avx2(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &$family, mask: u32) -> Outcome {
            $body(warp, cta, ins, memory, mask)
        }
        unsafe fn portable(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &$family, mask: u32) -> Outcome {
            $body(warp, cta, ins, memory, mask)
        }
        match $level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512 as $crate::program::Run<$family>,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2,
            _ => portable,
        }
    }};
}
pub(super) use versions;

/// The same for loads and stores of elements, whose body takes what the lanes touch.
macro_rules! with_addresses {
    ($level:expr, $access:literal, $body:path) => {{
        #[inline(always)]
        fn body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
            let a = $crate::exec::touch::addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
            // Without this the compiler keeps the 32 addresses apart, and nothing done with them is vectorised.
            let at = std::hint::black_box(&a);
            $body(warp, cta, memory, &Touch { ins, mask, at, bytes: memory.bytes(), access: $access })
        }
        $crate::exec::touch::versions!($level, Elements, body)
    }};
}
pub(super) use with_addresses;

/// The addresses in row `slot`, plus the offset.
#[inline(always)]
pub fn addresses(r: &Registers, slot: u16, how: &Addressing) -> [u64; 32] {
    // SAFETY: the slots of a compiled instruction are rows of its warp, two where the address is wide.
    let mut a = unsafe {
        if how.wide {
            u64::read(r, slot)
        } else {
            // No closure, as below.
            let (narrow, mut wide) = (u32::read(r, slot), [0; 32]);
            for l in 0..32 {
                wide[l] = u64::from(narrow[l]);
            }
            wide
        }
    };
    for a in &mut a {
        *a = a.wrapping_add(how.offset as u64);
    }
    a
}

/// The lanes of a mask, ascending. No closure: one is compiled for the plainest processor and called.
#[inline(always)]
pub fn lanes(mask: u32) -> Lanes {
    Lanes { left: mask }
}

#[derive(Clone, Copy)]
pub struct Lanes {
    left: u32,
}

impl Iterator for Lanes {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let l = self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(l)
    }
}
