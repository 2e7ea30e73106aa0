//! The registers of one warp, and the decoded instruction that names them.

/// One register of 32 bits in all 32 lanes. Values of 8 and 16 bits lie zero-extended in one; values of 64 bits take two rows,
/// read as 32 words of 64 bits.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub [u32; 32]);

pub const ZERO: Row = Row([0; 32]);
/// Every lane.
pub const ALL: u32 = !0;
/// A predicate that is not there.
pub const NO_PREDICATE: u16 = u16::MAX;

/// Registers of one warp. Predicates are masks: bit `l` belongs to lane `l`. Immediates and special registers are rows as well.
pub struct Registers {
    pub rows: Vec<Row>,
    pub predicates: Vec<u32>,
}

/// A value that a register holds in every lane.
pub trait Value: Copy + Default {
    /// # Safety
    /// `slot` (and `slot + 1` for 64 bits) is a row of `r`.
    unsafe fn read(r: &Registers, slot: u16) -> [Self; 32];
    /// Writes the lanes of `mask`.
    ///
    /// # Safety
    /// As for `read`.
    unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [Self; 32]);
}

impl Value for u32 {
    #[inline(always)]
    unsafe fn read(r: &Registers, slot: u16) -> [u32; 32] {
        // SAFETY: the caller names a row of `r`.
        unsafe { r.rows.get_unchecked(slot as usize).0 }
    }
    #[inline(always)]
    unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [u32; 32]) {
        // SAFETY: the caller names a row of `r`.
        let to = unsafe { &mut r.rows.get_unchecked_mut(slot as usize).0 };
        if mask == ALL {
            *to = v;
        } else {
            for l in 0..32 {
                to[l] = if mask >> l & 1 == 1 { v[l] } else { to[l] };
            }
        }
    }
}

impl Value for u64 {
    #[inline(always)]
    unsafe fn read(r: &Registers, slot: u16) -> [u64; 32] {
        debug_assert!((slot as usize) + 1 < r.rows.len());
        // SAFETY: the caller names two neighbouring rows of `r`: as large as 32 words of 64 bits, and aligned to more.
        unsafe { *r.rows.as_ptr().add(slot as usize).cast::<[u64; 32]>() }
    }
    #[inline(always)]
    unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [u64; 32]) {
        debug_assert!((slot as usize) + 1 < r.rows.len());
        // SAFETY: the caller names two neighbouring rows of `r`, which this borrows alone; size and alignment as for `read`.
        let to = unsafe { &mut *r.rows.as_mut_ptr().add(slot as usize).cast::<[u64; 32]>() };
        if mask == ALL {
            *to = v;
        } else {
            for l in 0..32 {
                to[l] = if mask >> l & 1 == 1 { v[l] } else { to[l] };
            }
        }
    }
}

/// The instruction sets a function is compiled for; the best one of this processor is chosen when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Level {
    pub fn of_this_machine() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if wide && fma {
                return Level::Avx512;
            }
            if fma {
                return Level::Avx2;
            }
        }
        Level::Portable
    }
}

/// What an instruction does to registers: `mask` holds the lanes that take part (never 0).
///
/// # Safety
/// The operands name rows and predicates of the registers, as many and as wide as the function reads and writes, and this processor
/// has the instruction sets of the [`Level`] that the function was chosen for.
pub type Exec = unsafe fn(&mut Registers, &Operands, u32);

/// The operands of an instruction: destinations first, then sources, in the order of the PTX text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Operands {
    /// Rows.
    pub slot: [u16; 16],
    /// Predicates: destinations first, then sources.
    pub predicate: [u16; 4],
    /// Bit i: source predicate i is negated.
    pub negated: u16,
    /// A small constant that belongs to the opcode: the table of `lop3`, the number of a vote's kind.
    pub extra: u32,
}

impl Default for Operands {
    fn default() -> Self {
        Operands { slot: [0; 16], predicate: [NO_PREDICATE; 4], negated: 0, extra: 0 }
    }
}
