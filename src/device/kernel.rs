//! The table of kernels and their argument structs, written by `build.rs` from `kernels/`.

use std::io::Read;
use std::marker::PhantomData;

use crate::{Error, Result};

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
    /// Bytes of its argument struct.
    pub args: usize,
    /// Position in [`KERNELS`].
    pub index: usize,
    /// Whether CUDA has no code of it, and [`KERNELS`] does not list it.
    pub host_only: bool,
    /// One for each of [`LEVELS`].
    pub(crate) host: [HostEntry; LEVEL_COUNT],
}

/// How packed weights of a matrix product are cut, as `kernels/host.cpp` says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostTile {
    pub panel: i32,
    pub rows: i32,
    pub c_align: i32,
    pub element_bytes: i32,
}

/// The host kernels as they were compiled for one level of processor.
pub(crate) struct Level {
    /// `native`, or as `RAMPART_HOST_ARCH` and `RAMPART_HOST_LEVEL` name it.
    pub name: &'static str,
    /// How weights are packed and tiled, of (is bfloat16, output columns).
    pub tile: unsafe extern "C" fn(i32, i32) -> HostTile,
    /// The most tiles of a block of `winograd_f32`, of (channels, columns of a panel, bytes of scratch).
    pub winograd_tiles: unsafe extern "C" fn(i32, i32, i64) -> i32,
    /// Asks the system for what the kernels need of it; 0 when it is granted.
    pub init: unsafe extern "C" fn() -> i32,
    /// The instruction sets that must be there.
    pub features: unsafe extern "C" fn() -> *const std::ffi::c_char,
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

/// What the binary carries of one source file for CUDA.
#[derive(Debug)]
pub struct Image {
    /// Stem of the source file in `kernels/`.
    pub file: &'static str,
    /// PTX for compute capability 8.0 in gzip: by nvcc where the build found it, otherwise from `kernels/prebuilt/`.
    pub ptx: &'static [u8],
    /// Machine code for each generation, and PTX for later ones; only where the build found nvcc.
    pub fatbin: Option<&'static [u8]>,
    /// The files of `kernels/` that have changed since prebuilt PTX was made: it computes what they said then.
    pub stale: Option<&'static str>,
}

impl Image {
    /// # Errors
    /// [`Error::Device`] for PTX that is older than its source.
    pub fn current(&self) -> Result<()> {
        match self.stale {
            None => Ok(()),
            Some(what) => Err(Error::device(format!(
                "the PTX of kernels/{}.cu in this binary is older than {what}, and would compute what that said before; \
                 run tools/cuda/prebuilt.py and build again, or build where nvcc is; --device host has the new text",
                self.file
            ))),
        }
    }

    /// The PTX as text.
    ///
    /// # Errors
    /// [`Error::Device`] when the binary's copy is damaged.
    pub fn ptx_text(&self) -> Result<String> {
        let mut text = String::new();
        match flate2::read::GzDecoder::new(self.ptx).read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(e) => Err(Error::Device {
                problem: format!("the PTX of {}.cu in this binary is damaged", self.file),
                source: Some(Box::new(e)),
            }),
        }
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
        // SAFETY: a constant of the kernels' library, of the type that the build script wrote.
        let cpp = unsafe { &rampart_layout };
        assert_eq!(rust.len(), cpp.len());
        for ((what, rust), cpp) in rust.iter().zip(cpp) {
            assert_eq!(*rust as u64, *cpp, "{what}");
        }
    }

    /// Fails between a change of a kernel and the next run of tools/cuda/prebuilt.py.
    #[test]
    fn no_ptx_is_older_than_its_source() {
        for image in IMAGES {
            image.current().unwrap();
        }
        let stale = Image { file: "conv", ptx: &[], fatbin: None, stale: Some("conv.cu, tile.cuh") };
        let problem = stale.current().unwrap_err().to_string();
        for part in ["kernels/conv.cu", "older than conv.cu, tile.cuh", "tools/cuda/prebuilt.py", "--device host"] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }

    #[test]
    fn the_ptx_has_the_kernels_of_the_table() {
        let mut found = 0;
        for image in IMAGES {
            let text = image.ptx_text().unwrap();
            for entry in text.split(".visible .entry ").skip(1) {
                let (name, rest) = entry.split_once('(').unwrap();
                let info = KERNELS.iter().find(|k| k.name == name).unwrap_or_else(|| panic!("{name} is no kernel"));
                assert_eq!(info.file, image.file, "{name}");
                let (parameters, rest) = rest.split_once(')').unwrap();
                let declared: Vec<&str> = parameters.split_whitespace().collect();
                let [".param", ".align", align, ".b8", parameter] = declared[..] else {
                    panic!("{name} takes {parameters:?}, not one struct")
                };
                assert!(align == "4" || align == "8", "{name}: {align}");
                assert_eq!(parameter, format!("{name}_param_0[{}]", info.args));
                let threads = format!(".maxntid {}, 1, 1", info.threads);
                assert_eq!(rest.trim_start().lines().next(), Some(&threads[..]), "{name}");
                found += 1;
            }
        }
        assert_eq!(found, KERNELS.len(), "every kernel is in the PTX of its file, once");
    }

    #[test]
    fn the_ptx_names_no_path_of_the_machine_that_built_it() {
        for image in IMAGES {
            let text = image.ptx_text().unwrap();
            let files: Vec<&str> =
                text.lines().filter_map(|l| l.trim().strip_prefix(".file")?.split('"').nth(1)).collect();
            assert!(files.contains(&&*format!("kernels/{}.cu", image.file)), "{files:?}");
            for file in files {
                assert!(file.starts_with("kernels/") || file.starts_with("cuda/"), "{file}");
            }
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
