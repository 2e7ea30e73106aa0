//! The table of kernels and their argument structs, written by `build.rs` from `kernels/`.

use std::marker::PhantomData;

/// Runs blocks `first..last` of a grid on the calling thread.
pub(crate) type HostEntry = unsafe extern "C" fn(*const u8, *const [u32; 3], u64, u64, *mut u8);

/// What a device needs to launch a kernel.
#[derive(Debug)]
pub struct KernelInfo {
    pub name: &'static str,
    /// Stem of the source file in `kernels/`.
    pub file: &'static str,
    /// Threads per block on CUDA.
    pub threads: u32,
    /// Dynamic shared memory per block on CUDA, bytes.
    pub shared: u32,
    /// Position in [`KERNELS`].
    pub index: usize,
    pub(crate) host: HostEntry,
}

/// A kernel that takes one argument struct `A`.
#[derive(Debug)]
pub struct Kernel<A> {
    info: KernelInfo,
    args: PhantomData<fn(A)>,
}

impl<A> Kernel<A> {
    const fn new(info: KernelInfo) -> Self {
        Kernel { info, args: PhantomData }
    }

    pub const fn info(&self) -> &KernelInfo {
        &self.info
    }
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

impl Divisor {
    /// Prepares division by `value`, exact for every dividend below 2^31.
    ///
    /// Source: Granlund & Montgomery 1994, round-up method.
    pub fn new(value: usize) -> Self {
        let value = value.max(1) as u32;
        let shift = 32 - (value - 1).leading_zeros();
        let magic = ((1u64 << 32) * ((1u64 << shift) - u64::from(value)) / u64::from(value) + 1) as u32;
        Divisor { value, magic, shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_compilers_lay_the_argument_structs_out_alike() {
        let rust = layout_of_rust();
        let cpp = unsafe { &rampart_layout };
        assert_eq!(rust.len(), cpp.len());
        for ((what, rust), cpp) in rust.iter().zip(cpp) {
            assert_eq!(*rust as u64, *cpp, "{what}");
        }
    }

    #[test]
    fn division_by_multiplication_is_exact() {
        for value in [1usize, 2, 3, 5, 7, 16, 31, 1000, 1024, 65535, 1 << 20, (1 << 30) + 1] {
            let d = Divisor::new(value);
            for n in (0..1000u64).chain((0..1000).map(|i| i * 2_147_483)).chain([(1 << 31) - 1]) {
                let quotient = (((n * u64::from(d.magic)) >> 32) + n) >> d.shift;
                assert_eq!(quotient, n / value as u64, "{n} / {value}");
            }
        }
    }
}
