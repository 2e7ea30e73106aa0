//! The machine that a driver drives: memory, modules, launches.
#![allow(clippy::result_large_err)] // a finding is rare, and the calls that return one are long

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::address;
use crate::compile::{compile, compile_function, uncalled};
use crate::count::LaunchCounts;
use crate::device::Model;
use crate::exec::cta::{Output, Shape};
use crate::exec::grid;
use crate::finding::{Finding, Kind};
use crate::memory::{Memory, Use};
use crate::program::Program;
use crate::ptx::ast::{self, Initial, Space};
use crate::ptx::{self, PtxError};
use crate::registers::Level;

/// CUDA's error numbers for a launch that is refused.
const INVALID_VALUE: i32 = 1;
const OUT_OF_RESOURCES: i32 = 701;

/// Bytes of the variables of one module.
const MAX_VARIABLES: usize = 128 << 20;

/// More threads of the host than a machine has; each keeps what it saw of memory.
pub const MAX_THREADS: usize = 1024;

/// What is emulated and how strictly.
#[derive(Clone, Debug)]
pub struct Options {
    pub model: Model,
    /// Memory, race, initialisation and synchronisation checks.
    pub checks: bool,
    /// Count instructions, sectors, bank conflicts.
    pub counters: bool,
    /// Shuffles the order of warps and blocks; 0 keeps them in order.
    pub seed: u64,
    /// Threads of the host that run blocks, at most [`MAX_THREADS`]; 0 takes all.
    pub threads: usize,
    /// For the driver: how many devices there are.
    pub devices: u32,
    /// Report what is legal but seldom meant: a barrier of the whole block after some of its warps have exited.
    pub lints: bool,
    /// For the driver: compile a kernel when it is asked for, not when its module is loaded.
    pub lazy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            model: Model::A100,
            checks: true,
            counters: false,
            seed: 0,
            threads: 0,
            devices: 1,
            lints: false,
            lazy: false,
        }
    }
}

pub struct Machine {
    options: Options,
    memory: Memory,
    workers: Vec<grid::Worker>,
    output: Mutex<Output>,
    /// Launches since [`Machine::take_profile`], when they are counted.
    profile: Vec<LaunchCounts>,
}

/// A parsed module whose variables have addresses.
pub struct Module {
    ptx: ast::Module,
    variables: HashMap<String, (u64, usize)>,
    compiled: HashMap<String, Arc<Kernel>>,
}

/// A compiled entry.
pub struct Kernel {
    pub name: String,
    /// Offset and bytes of each parameter.
    pub parameters: Vec<(usize, usize)>,
    /// Bytes of all parameters.
    pub parameter_bytes: usize,
    /// Shared memory declared with a size.
    pub static_shared: u32,
    pub local_bytes: u32,
    /// `.maxntid` or `.reqntid`, or 1024.
    pub max_threads: u32,
    /// 32-bit registers per thread that are live at once: an estimate of what ptxas would use.
    pub registers: u32,
    pub program: Program,
}

/// One launch.
pub struct Launch<'a> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// The opt-in limit set for this function (`MAX_DYNAMIC_SHARED_SIZE_BYTES`), or 0.
    pub shared_limit: u32,
    pub parameters: &'a [u8],
}

#[derive(Debug)]
pub enum LaunchError {
    /// The launch is illegal: CUDA error number, and why.
    Refused(i32, String),
    /// A checker stopped it.
    Found(Box<Finding>),
}

impl Machine {
    pub fn new(options: Options) -> Machine {
        Machine::numbered(options, 0)
    }

    /// One of several devices, counted from 0.
    pub fn numbered(options: Options, device: u32) -> Machine {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n.min(MAX_THREADS),
        };
        Machine {
            memory: Memory::new(options.model.device().memory, options.checks, device),
            workers: (0..threads).map(|_| grid::Worker::default()).collect(),
            output: Mutex::new(Box::new(std::io::stdout())),
            profile: Vec::new(),
            options,
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where the `printf` of kernels goes from now on; standard output unless set.
    pub fn print_to(&mut self, output: impl Write + Send + 'static) {
        self.output = Mutex::new(Box::new(output));
    }

    /// Device memory, 256-byte aligned, contents undefined; `None` when there is no more.
    pub fn allocate(&mut self, bytes: usize) -> Option<u64> {
        self.memory.allocate(bytes, Use::Allocation)
    }

    /// # Errors
    /// A finding when `address` is not the start of a live buffer.
    pub fn free(&mut self, address: u64) -> Result<(), Finding> {
        let number = self.memory.free(address)?;
        for worker in &mut self.workers {
            worker.shadows.remove(&number);
        }
        Ok(())
    }

    /// Host to device.
    ///
    /// # Errors
    /// A finding when the bytes do not fit the buffer, or there is none.
    pub fn write(&mut self, to: u64, from: &[u8]) -> Result<(), Finding> {
        self.memory.write(to, from)
    }

    /// Device to host.
    ///
    /// # Errors
    /// As for [`Machine::write`], and when nothing ever wrote any of the bytes.
    pub fn read(&mut self, from: u64, to: &mut [u8]) -> Result<(), Finding> {
        self.memory.read(from, to)
    }

    /// Within the device.
    ///
    /// # Errors
    /// As for [`Machine::write`].
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Finding> {
        self.memory.copy(to, from, bytes)
    }

    /// From another machine.
    ///
    /// # Errors
    /// As for [`Machine::write`].
    pub fn copy_from(&mut self, to: u64, other: &Machine, from: u64, bytes: usize) -> Result<(), Finding> {
        self.memory.copy_from(to, &other.memory, from, bytes)
    }

    /// `count` times the 1, 2 or 4 bytes of `pattern`.
    ///
    /// # Errors
    /// As for [`Machine::write`].
    pub fn fill(&mut self, to: u64, pattern: &[u8], count: usize) -> Result<(), Finding> {
        self.memory.fill(to, pattern, count)
    }

    /// Lets kernels reach memory of the host, at its own address, until it is freed here; false when there is no memory for what is
    /// kept of it.
    pub fn share(&mut self, address: u64, bytes: usize) -> bool {
        self.memory.share(address, bytes)
    }

    /// Addresses that no buffer will have; `None` when there are no more.
    pub fn reserve(&mut self, bytes: usize, alignment: u64) -> Option<u64> {
        self.memory.reserve(bytes, alignment)
    }

    /// Memory that has no address until it is mapped: a number for it, or `None` when there is no more.
    pub fn chunk(&mut self, bytes: usize) -> Option<u64> {
        self.memory.chunk(bytes)
    }

    /// Gives a chunk back, which must not be mapped any more.
    pub fn drop_chunk(&mut self, chunk: u64) {
        self.memory.drop_chunk(chunk);
    }

    /// Makes the first bytes of a chunk a buffer at an address that was reserved, until it is freed there.
    pub fn map(&mut self, address: u64, bytes: usize, chunk: u64) {
        self.memory.map(address, bytes, chunk);
    }

    /// Free and total bytes.
    pub fn memory(&self) -> (usize, usize) {
        self.memory.sizes()
    }

    /// The live buffer around an address: base and bytes.
    pub fn buffer_at(&self, address: u64) -> Option<(u64, usize)> {
        self.memory.buffer_at(address)
    }

    /// Whether an address lies in the range that device addresses come from, live or not.
    pub fn is_device_address(address: u64) -> bool {
        (address::GLOBAL..address::GLOBAL_END).contains(&address)
    }

    /// Parses a module and allocates its global and constant variables.
    ///
    /// # Errors
    /// [`PtxError`] with the line; variables of more than 128 MiB among them, which a few bytes of text can ask for.
    pub fn load(&mut self, text: &str) -> Result<Module, PtxError> {
        let ptx = ptx::parse(text)?;
        let mut variables: HashMap<String, (u64, usize)> = HashMap::new();
        let kept = |v: &&ast::Variable| matches!(v.space, Space::Global | Space::Const) && !v.external;
        let mut left = MAX_VARIABLES;
        for v in ptx.variables.iter().filter(kept) {
            let rest = left.checked_sub(v.bytes);
            let problem =
                || format!("{}: its {} bytes take the variables of a module beyond {MAX_VARIABLES}", v.name, v.bytes);
            left = rest.ok_or_else(|| PtxError::new(v.line, problem()))?;
        }
        for v in ptx.variables.iter().filter(kept) {
            let address = self
                .memory
                .allocate(v.bytes, Use::Variable)
                .ok_or_else(|| PtxError::new(v.line, format!("no memory for the {} bytes of {}", v.bytes, v.name)))?;
            variables.insert(v.name.clone(), (address, v.bytes));
        }
        for v in ptx.variables.iter().filter(kept) {
            let (address, bytes) = variables[&v.name];
            let size = v.ty.bytes();
            // What has no initial value is zero, as the memory is.
            let given = v.initial.as_ref().map_or(0, Vec::len).saturating_mul(size);
            if given > bytes {
                return Err(PtxError::new(v.line, format!("{}: too many initial values", v.name)));
            }
            let mut contents = vec![0u8; given];
            for (n, initial) in v.initial.iter().flatten().enumerate() {
                let bits = match initial {
                    Initial::Bits(bits) => *bits,
                    Initial::Address(name, offset) => {
                        let base = variables.get(name).map(|&(at, _)| at);
                        let base = base.or_else(|| crate::compile::function_address(&ptx, name));
                        let base = base.ok_or_else(|| PtxError::new(v.line, format!("unknown variable {name}")))?;
                        base.wrapping_add(*offset as u64)
                    }
                };
                let to = contents.get_mut(n * size..(n + 1) * size);
                let to = to.ok_or_else(|| PtxError::new(v.line, format!("{}: too many initial values", v.name)))?;
                to.copy_from_slice(&bits.to_le_bytes()[..size]);
            }
            let written = self.memory.write(address, &contents).and_then(|()| self.memory.initialized(address, bytes));
            written.map_err(|f| PtxError::new(v.line, f.to_string()))?;
        }
        Ok(Module { ptx, variables, compiled: HashMap::new() })
    }

    pub fn unload(&mut self, module: Module) {
        for (address, _) in module.variables.into_values() {
            // Each was allocated by `load` and is freed once.
            let _ = self.free(address);
        }
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] for what this GPU would refuse, [`LaunchError::Found`] for what a checker found.
    pub fn launch(&mut self, kernel: &Kernel, launch: &Launch) -> Result<(), LaunchError> {
        self.check(kernel, launch)?;
        let static_shared = kernel.static_shared;
        let views = self.memory.views();
        let shape = Shape {
            program: &kernel.program,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: (static_shared + launch.shared_bytes) as usize,
            dynamic_shared: launch.shared_bytes as usize,
            parameters: launch.parameters,
            views: &views,
            output: &self.output,
            checks: self.options.checks,
            counters: self.options.counters,
            lints: self.options.lints,
            seed: self.options.seed,
            multiprocessors: self.options.model.device().multiprocessors,
        };
        let done = grid::run(&shape, &mut self.workers);
        if kernel.program.serial {
            // As far as anyone listens.
            let _ = self.output.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).flush();
        }
        match done {
            Ok(counts) => {
                if self.options.counters {
                    let shared = static_shared + launch.shared_bytes;
                    let counted = counts.launch(&kernel.program, launch.grid, launch.block, shared);
                    let footprint = counts.footprint(&views, launch.parameters);
                    self.profile.push(LaunchCounts { footprint, ..counted });
                }
                Ok(())
            }
            Err(mut finding) => {
                self.memory.recall(&mut finding);
                Err(LaunchError::Found(finding))
            }
        }
    }

    /// What hardware refuses before anything runs.
    ///
    /// # Errors
    /// [`LaunchError::Refused`], or [`LaunchError::Found`] for a wrong number of argument bytes.
    pub fn check(&self, kernel: &Kernel, launch: &Launch) -> Result<(), LaunchError> {
        let device = self.options.model.device();
        let refuse = |code, why: String| Err(LaunchError::Refused(code, format!("{}: {why}", kernel.name)));
        for axis in 0..3 {
            let (what, n, max) = (["x", "y", "z"][axis], launch.grid[axis], device.max_grid[axis]);
            if n == 0 || n > max {
                return refuse(INVALID_VALUE, format!("grid {what} of {n} blocks, expected 1 to {max}"));
            }
            let (n, max) = (launch.block[axis], device.max_block[axis]);
            if n == 0 || n > max {
                return refuse(INVALID_VALUE, format!("block {what} of {n} threads, expected 1 to {max}"));
            }
        }
        let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
        if threads > u64::from(device.max_threads) {
            return refuse(INVALID_VALUE, format!("{threads} threads per block, at most {}", device.max_threads));
        }
        if threads > u64::from(kernel.max_threads) {
            let why = format!("{threads} threads per block, but it was compiled for {}", kernel.max_threads);
            return refuse(INVALID_VALUE, why);
        }
        if kernel.program.required_threads.is_some_and(|r| r != launch.block) {
            let why = format!("block {:?}, but .reqntid is {:?}", launch.block, kernel.program.required_threads);
            return refuse(INVALID_VALUE, why);
        }
        let shared = u64::from(kernel.static_shared) + u64::from(launch.shared_bytes);
        let limit = match launch.shared_limit {
            0 => device.shared,
            asked => device.shared.max(asked.saturating_add(kernel.static_shared)).min(device.shared_optin),
        };
        if shared > u64::from(limit) {
            let why =
                format!("{shared} bytes of shared memory per block, at most {limit} (opt-in {})", device.shared_optin);
            return refuse(INVALID_VALUE, why);
        }
        // ptxas spills rather than take more than 255, and hands out 8 at a time.
        let registers = u64::from(kernel.registers.min(255).next_multiple_of(8)) * threads.next_multiple_of(32);
        if registers > u64::from(device.registers_per_block) && kernel.max_threads as u64 > threads {
            let why = format!("about {registers} registers per block, at most {}", device.registers_per_block);
            return refuse(OUT_OF_RESOURCES, why);
        }
        if launch.parameters.len() != kernel.parameter_bytes {
            let what = format!(
                "{} takes {} bytes of arguments, found {}",
                kernel.name,
                kernel.parameter_bytes,
                launch.parameters.len()
            );
            return Err(LaunchError::Found(Box::new(Finding {
                kernel: Some(kernel.name.clone()),
                ..Finding::new(Kind::ArgumentSize, what)
            })));
        }
        Ok(())
    }

    /// Buffers that are still allocated, module variables excepted.
    pub fn leaks(&self) -> Vec<Finding> {
        let leak = |buffer: crate::finding::BufferName| Finding {
            address: Some(buffer.base),
            buffer: Some(buffer),
            ..Finding::new(Kind::Leak, "never freed")
        };
        self.memory.allocations().into_iter().map(leak).collect()
    }

    /// The launches counted since the last call.
    pub fn take_profile(&mut self) -> Vec<LaunchCounts> {
        std::mem::take(&mut self.profile)
    }
}

impl Module {
    pub fn kernel_names(&self) -> Vec<String> {
        self.ptx.functions.iter().filter(|f| f.entry).map(|f| f.name.clone()).collect()
    }

    /// Compiles every entry, on all threads.
    ///
    /// # Errors
    /// That of the first entry that cannot be compiled, in the order of the text.
    pub fn compile_all(&mut self) -> Result<(), PtxError> {
        let names = self.kernel_names();
        let compiled: Vec<_> = names.par_iter().map(|name| self.compile(name)).collect();
        for (name, kernel) in names.into_iter().zip(compiled) {
            if let Some(kernel) = kernel {
                self.compiled.insert(name, kernel?);
            }
        }
        Ok(())
    }

    /// An entry, compiled when first asked for; `None` when the module has no such entry.
    pub fn kernel(&mut self, name: &str) -> Option<Result<Arc<Kernel>, PtxError>> {
        if let Some(kernel) = self.compiled.get(name) {
            return Some(Ok(kernel.clone()));
        }
        let kernel = self.compile(name)?;
        if let Ok(kernel) = &kernel {
            self.compiled.insert(name.into(), kernel.clone());
        }
        Some(kernel)
    }

    /// The functions that no kernel calls, each compiled alone.
    pub fn check_uncalled(&self) -> Vec<(String, Result<(), PtxError>)> {
        let addresses = self.addresses();
        let one = |f: &ast::Function| compile_function(&self.ptx, f, &addresses, Level::of_this_machine());
        uncalled(&self.ptx).into_iter().map(|f| (f.name.clone(), one(f))).collect()
    }

    fn addresses(&self) -> HashMap<String, u64> {
        self.variables.iter().map(|(name, &(at, _))| (name.clone(), at)).collect()
    }

    fn compile(&self, name: &str) -> Option<Result<Arc<Kernel>, PtxError>> {
        let entry = self.ptx.functions.iter().find(|f| f.entry && f.name == name)?;
        let addresses = self.addresses();
        Some(compile(&self.ptx, entry, &addresses, Level::of_this_machine()).map(|program| {
            Arc::new(Kernel {
                name: name.into(),
                parameters: program.parameters.clone(),
                parameter_bytes: program.parameter_bytes,
                static_shared: program.static_shared,
                local_bytes: program.local_bytes,
                max_threads: program.max_threads,
                registers: program.pressure,
                program,
            })
        }))
    }

    /// Device address and bytes of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, usize)> {
        self.variables.get(name).copied()
    }
}
