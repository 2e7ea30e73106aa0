//! The driver as a library of a program that has the emulator in itself: an ELF image whose symbols are the addresses of the functions
//! in this process, for a host of kernels that asks `dlopen` and `dlsym` for its driver.
//!
//! The image has no code. Its symbols are absolute (`SHN_ABS`), which `dlsym` gives as they stand: glibc does since 2.28.
//! Source: System V ABI, generic and the processor's supplement; chapters 4 and 5.

use super::proc_address::functions;

/// The name under which a loaded library is found by whoever looks for the driver.
const SONAME: &str = "libcuda.so";

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SYMBOL: usize = 24;
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// A shared library for this process alone. To be loaded with `dlopen`, from a file of any kind.
pub fn image() -> Vec<u8> {
    let functions = functions();
    let mut strings = vec![0u8];
    let mut name = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    let soname = name(SONAME);
    let mut symbols = vec![0u8; SYMBOL];
    for (function, address) in functions {
        const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
        const ABSOLUTE: u16 = 0xfff1;
        symbols.extend(name(function).to_le_bytes());
        symbols.extend([GLOBAL_FUNCTION, 0]);
        symbols.extend(ABSOLUTE.to_le_bytes());
        symbols.extend((address as u64).to_le_bytes());
        symbols.extend(0u64.to_le_bytes());
    }
    // One bucket, which chains all: a lookup compares names.
    let count = (symbols.len() / SYMBOL) as u32;
    let chain = (0..count).map(|i| if i == 0 || i + 1 == count { 0 } else { i + 1 });
    let hash: Vec<u8> = [1, count, u32::from(count > 1)].into_iter().chain(chain).flat_map(u32::to_le_bytes).collect();
    strings.resize(strings.len().next_multiple_of(8), 0);
    let hash_end = hash.len().next_multiple_of(8);

    let symbols_at = HEADER + 3 * SEGMENT;
    let strings_at = symbols_at + symbols.len();
    let hash_at = strings_at + strings.len();
    let dynamic_at = hash_at + hash_end;
    // (tag, value) of the dynamic section
    let dynamic: Vec<u8> = [
        (14, soname as usize), // DT_SONAME
        (4, hash_at),          // DT_HASH
        (5, strings_at),       // DT_STRTAB
        (6, symbols_at),       // DT_SYMTAB
        (10, strings.len()),   // DT_STRSZ
        (11, SYMBOL),          // DT_SYMENT
        (0, 0),
    ]
    .into_iter()
    .flat_map(|(tag, value)| [tag as u64, value as u64])
    .flat_map(u64::to_le_bytes)
    .collect();
    let size = dynamic_at + dynamic.len();

    // 64 bits, lowest byte first, version 1; a shared object of version 1 without entry or sections.
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([3u16, MACHINE].into_iter().flat_map(u16::to_le_bytes));
    image.extend(1u32.to_le_bytes());
    image.extend([0, HEADER as u64, 0].into_iter().flat_map(u64::to_le_bytes));
    image.extend(0u32.to_le_bytes());
    image.extend([HEADER as u16, SEGMENT as u16, 3, 64, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    // Readable and writable, for the loader adds its base to addresses of the dynamic section; nothing can be executed.
    const READ_WRITE: u32 = 6;
    const PAGE: usize = 1 << 16; // the largest of the machines
    let mut segment = |kind: u32, at: usize, size: usize, align: usize| {
        image.extend(kind.to_le_bytes());
        image.extend(READ_WRITE.to_le_bytes());
        image.extend([at, at, at, size, size, align].into_iter().flat_map(|v| (v as u64).to_le_bytes()));
    };
    segment(1, 0, size, PAGE); // PT_LOAD
    segment(2, dynamic_at, dynamic.len(), 8); // PT_DYNAMIC
    segment(0x6474_e551, 0, 0, 16); // PT_GNU_STACK: not to be executed either
    image.extend(symbols);
    image.extend(strings);
    image.extend(hash);
    image.resize(dynamic_at, 0);
    image.extend(dynamic);
    image
}
