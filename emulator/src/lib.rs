//! Executes NVIDIA PTX on the CPU, checks what it does, and counts it; behind a stand-in for the CUDA driver.
//!
//! A program that opens the driver by `dlopen`, as cudarc does, runs on it unchanged: see [`driver`]. Rust code can also drive a
//! [`machine::Machine`] itself:
//!
//! ```
//! use ptx_emulator::machine::{Launch, Machine, Options};
//!
//! let mut machine = Machine::new(Options::default());
//! let mut module = machine.load(
//!     ".version 9.0 .target sm_80 .address_size 64
//!      .visible .entry ids(.param .u64 out) {
//!        .reg .b32 %r; .reg .b64 %rd<3>;
//!        ld.param.u64 %rd0, [out];
//!        mov.u32 %r, %tid.x;
//!        mul.wide.u32 %rd1, %r, 4;
//!        add.u64 %rd2, %rd0, %rd1;
//!        st.global.u32 [%rd2], %r;
//!        ret;
//!      }",
//! )?;
//! let kernel = module.kernel("ids").expect("it is there")?;
//! let out = machine.allocate(4 * 64).expect("memory");
//! let parameters = out.to_le_bytes();
//! let launch =
//!     Launch { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 0, shared_limit: 0, parameters: &parameters };
//! machine.launch(&kernel, &launch).expect("no checker finds anything");
//! let mut bytes = [0; 4 * 64];
//! machine.read(out, &mut bytes)?;
//! assert_eq!(bytes[4..8], 1u32.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Text becomes a syntax tree in [`ptx`]; [`compile`] resolves names, inlines calls and looks each opcode up in [`ops`], which gives
//! a [`program::Program`] over the rows of [`registers`]; [`exec`] runs it a warp at a time, asks [`check`] about every access and
//! tells [`count`]; [`driver`] puts the functions of `libcuda` in front.
#![deny(clippy::undocumented_unsafe_blocks)]

// From text to a program.
pub mod fatbin;
pub mod ptx;

pub mod compile;
pub mod ops;
pub mod program;
pub mod registers;

// What runs it.
pub mod address;
pub mod exec;
pub mod machine;
pub mod memory;

// What is said about it.
pub mod check;
pub mod count;
pub mod finding;

// The GPU that is emulated, and what programs see of it.
pub mod config;
pub mod device;
pub mod driver;
