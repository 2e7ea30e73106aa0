//! Rows read as other types than `u32` and `u64`.
//!
//! Values of 8 and 16 bits are read from the low bits of a row, whatever lies above, and written zero-extended.

use std::marker::PhantomData;
use std::mem::transmute;

use crate::registers::{Registers, Value};

macro_rules! same_bits {
    ($($t:ty as $bits:ty),*) => {$(
        impl Value for $t {
            #[inline(always)]
            unsafe fn read(r: &Registers, slot: u16) -> [$t; 32] {
                // SAFETY: the caller names a row of this width; both types have its size, and every pattern of bits is a value.
                unsafe { transmute::<[$bits; 32], [$t; 32]>(<$bits>::read(r, slot)) }
            }
            #[inline(always)]
            unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [$t; 32]) {
                // SAFETY: the caller names a row of this width; both types have its size.
                unsafe { <$bits>::write(r, slot, mask, transmute::<[$t; 32], [$bits; 32]>(v)) }
            }
        }
    )*};
}
same_bits!(i32 as u32, f32 as u32, i64 as u64, f64 as u64);

macro_rules! narrow {
    ($($t:ty as $bits:ty),*) => {$(
        impl Value for $t {
            #[inline(always)]
            unsafe fn read(r: &Registers, slot: u16) -> [$t; 32] {
                // SAFETY: narrow values lie in a row of 32 bits, which the caller names.
                let row = unsafe { u32::read(r, slot) };
                let mut v = [0; 32];
                for l in 0..32 {
                    v[l] = row[l] as $t;
                }
                v
            }
            #[inline(always)]
            unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [$t; 32]) {
                let mut row = [0; 32];
                for l in 0..32 {
                    row[l] = u32::from(v[l] as $bits);
                }
                // SAFETY: narrow values lie in a row of 32 bits, which the caller names.
                unsafe { u32::write(r, slot, mask, row) }
            }
        }
    )*};
}
narrow!(u8 as u8, i8 as u8, u16 as u16, i16 as u16);

/// The bits of an IEEE half-precision number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// The upper half of the bits of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// Something of 16 bits.
pub trait Bits16: Copy + Default {
    fn from_bits16(bits: u16) -> Self;
    fn bits16(self) -> u16;
}

macro_rules! bits16 {
    ($($t:ty: $from:expr, $to:expr);*) => {$(
        impl Bits16 for $t {
            #[inline(always)]
            fn from_bits16(bits: u16) -> Self {
                $from(bits)
            }
            #[inline(always)]
            fn bits16(self) -> u16 {
                $to(self)
            }
        }
    )*};
}
bits16!(u16: |b| b, |v| v; i16: |b| b as i16, |v| v as u16; F16: F16, |v: F16| v.0; Bf16: Bf16, |v: Bf16| v.0);

macro_rules! half_value {
    ($($t:ident),*) => {$(
        impl Value for $t {
            #[inline(always)]
            unsafe fn read(r: &Registers, slot: u16) -> [$t; 32] {
                // SAFETY: the caller names a row; the type is a transparent `u16`.
                unsafe { transmute::<[u16; 32], [$t; 32]>(u16::read(r, slot)) }
            }
            #[inline(always)]
            unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [$t; 32]) {
                // SAFETY: the caller names a row; the type is a transparent `u16`.
                unsafe { u16::write(r, slot, mask, transmute::<[$t; 32], [u16; 32]>(v)) }
            }
        }
    )*};
}
half_value!(F16, Bf16);

/// A register that holds two values.
pub trait Halves: Value {
    type Part;
    /// Low part, high part.
    fn split(self) -> (Self::Part, Self::Part);
    fn join(low: Self::Part, high: Self::Part) -> Self;
}

/// `.f16x2`, `.bf16x2`, `.u16x2`, `.s16x2`: element 0 in the low bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Pair<T>(pub u32, PhantomData<T>);

impl<T: Bits16> Value for Pair<T> {
    #[inline(always)]
    unsafe fn read(r: &Registers, slot: u16) -> [Self; 32] {
        // SAFETY: both halves lie in a row of 32 bits, which the caller names.
        let row = unsafe { u32::read(r, slot) };
        let mut v = [Pair(0, PhantomData); 32];
        for l in 0..32 {
            v[l] = Pair(row[l], PhantomData);
        }
        v
    }
    #[inline(always)]
    unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [Self; 32]) {
        let mut row = [0; 32];
        for l in 0..32 {
            row[l] = v[l].0;
        }
        // SAFETY: both halves lie in a row of 32 bits, which the caller names.
        unsafe { u32::write(r, slot, mask, row) }
    }
}

impl<T: Bits16> Halves for Pair<T> {
    type Part = T;
    #[inline(always)]
    fn split(self) -> (T, T) {
        (T::from_bits16(self.0 as u16), T::from_bits16((self.0 >> 16) as u16))
    }
    #[inline(always)]
    fn join(low: T, high: T) -> Self {
        Pair(u32::from(low.bits16()) | u32::from(high.bits16()) << 16, PhantomData)
    }
}

/// `.f32x2`
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct F32x2(pub u64);

impl Value for F32x2 {
    #[inline(always)]
    unsafe fn read(r: &Registers, slot: u16) -> [Self; 32] {
        // SAFETY: the caller names a row of 64 bits; the type is a transparent `u64`.
        unsafe { transmute::<[u64; 32], [F32x2; 32]>(u64::read(r, slot)) }
    }
    #[inline(always)]
    unsafe fn write(r: &mut Registers, slot: u16, mask: u32, v: [Self; 32]) {
        // SAFETY: the caller names a row of 64 bits; the type is a transparent `u64`.
        unsafe { u64::write(r, slot, mask, transmute::<[F32x2; 32], [u64; 32]>(v)) }
    }
}

impl Halves for F32x2 {
    type Part = f32;
    #[inline(always)]
    fn split(self) -> (f32, f32) {
        (f32::from_bits(self.0 as u32), f32::from_bits((self.0 >> 32) as u32))
    }
    #[inline(always)]
    fn join(low: f32, high: f32) -> Self {
        F32x2(u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32)
    }
}
