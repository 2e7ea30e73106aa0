//! `mov` between registers, packing and unpacking (PTX ISA 9.7.9).

use crate::ops::shapes::{Op1, levels};
use crate::registers::{Exec, Level, Operands, Registers, Value};

pub struct Copy;
impl<T> Op1<T, T> for Copy {
    #[inline(always)]
    fn f(a: T) -> T {
        a
    }
}

/// Each bit twice: the mask of the 32 words that hold 16 lanes of 64 bits.
#[inline(always)]
fn doubled(mask: u32) -> u32 {
    let mut x = mask & 0xffff;
    for (shift, keep) in [(8, 0x00ff_00ff), (4, 0x0f0f_0f0f), (2, 0x3333_3333), (1, 0x5555_5555)] {
        x = (x | x << shift) & keep;
    }
    x | x << 1
}

/// `mov.b64`, row by row: as a loop over 64-bit lanes it would not become vectors.
pub fn copy64(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 and 1 begin two rows each: values of 64 bits.
        unsafe {
            let (low, high) = (u32::read(r, o.slot[1]), u32::read(r, o.slot[1] + 1));
            u32::write(r, o.slot[0], doubled(mask), low);
            u32::write(r, o.slot[0] + 1, doubled(mask >> 16), high);
        }
    }
    levels!(level, [], body)
}

/// One register made of several: element 0 in the low bits.
pub trait Packed<P>: Value {
    fn put(self, at: u32, part: P) -> Self;
    fn get(self, at: u32) -> P;
}
macro_rules! packed {
    ($($whole:ident of $part:ident),*) => {$(
        impl Packed<$part> for $whole {
            #[inline(always)]
            fn put(self, at: u32, part: $part) -> $whole {
                self | $whole::from(part) << (at * $part::BITS)
            }
            #[inline(always)]
            fn get(self, at: u32) -> $part {
                (self >> (at * $part::BITS)) as $part
            }
        }
    )*};
}
packed!(u16 of u8, u32 of u8, u32 of u16, u64 of u16, u64 of u32);

/// `mov d, {a, b, ..}`
pub fn pack<W: Packed<P>, P: Value>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<P: Value, W: Packed<P>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is as wide as `W`, and the parts behind it as wide as `P`.
        unsafe {
            let mut d = [W::default(); 32];
            for n in 0..size_of::<W>() / size_of::<P>() {
                let part = P::read(r, o.slot[1 + n]);
                for l in 0..32 {
                    d[l] = d[l].put(n as u32, part[l]);
                }
            }
            W::write(r, o.slot[0], mask, d);
        }
    }
    levels!(level, [P: Value, W: Packed<P>], body::<P, W>)
}

/// `mov {d, e, ..}, a`
pub fn unpack<W: Packed<P>, P: Value>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<P: Value, W: Packed<P>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that the parts are as wide as `P`, and the source behind them as wide as `W`.
        unsafe {
            let parts = size_of::<W>() / size_of::<P>();
            // Read first: a destination may be the source's own register.
            let a = W::read(r, o.slot[parts]);
            for n in 0..parts {
                let mut d = [P::default(); 32];
                for l in 0..32 {
                    d[l] = a[l].get(n as u32);
                }
                P::write(r, o.slot[n], mask, d);
            }
        }
    }
    levels!(level, [P: Value, W: Packed<P>], body::<P, W>)
}
