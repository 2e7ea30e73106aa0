//! Where things are. How generic addresses are divided: no window holds an address that a 64-bit host hands out, so that one
//! mistaken for the other is seen at once. And what names a place in a program.

/// Device memory: 256 TiB from here. Within the 49 bits of a GPU's address, outside the 47 bits of a host program's.
pub const GLOBAL: u64 = 1 << 47;
pub const GLOBAL_END: u64 = GLOBAL + (1 << 47);
/// Generic addresses of shared, local and parameter space begin at these.
pub const SHARED: u64 = 1 << 48;
pub const LOCAL: u64 = SHARED + (1 << 40);
pub const PARAM: u64 = SHARED + (2 << 40);
/// Functions, by their place in the module: nothing can be read there.
pub const CODE: u64 = SHARED + (3 << 40);
pub const WINDOW: u64 = 1 << 40;
/// The first shared address of a block: hardware keeps 1 KiB for itself, and an address of 0 stays wrong.
pub const SHARED_FIRST: u64 = 1024;
/// The first local address of a thread.
pub const LOCAL_FIRST: u64 = 16;

/// Position of an instruction in [`Program::code`](crate::program::Program::code).
pub type Pc = u32;
/// No such position: a branch whose sides never meet again.
pub const NOWHERE: Pc = Pc::MAX;
