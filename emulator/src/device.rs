//! The GPUs that are emulated: limits as `cuDeviceGetAttribute` reports them, rates for the roofline.
//!
//! Source: CUDA C++ Programming Guide, "Compute Capabilities", and the data sheets of the A100 80GB SXM and the H100 SXM,
//! and the whitepaper of the RTX Blackwell architecture.

use crate::ops::formats::MatrixFormat;

/// Which GPU is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    A100,
    H100,
    Rtx5090,
}

/// The limits of a GPU.
#[derive(Debug)]
pub struct Device {
    pub name: &'static str,
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
    /// Bytes.
    pub memory: usize,
    pub max_threads: u32,
    pub max_block: [u32; 3],
    pub max_grid: [u32; 3],
    /// Bytes of shared memory per block without and with asking, and per multiprocessor.
    pub shared: u32,
    pub shared_optin: u32,
    pub shared_per_multiprocessor: u32,
    pub registers_per_block: u32,
    pub threads_per_multiprocessor: u32,
    pub clock_khz: u32,
    pub memory_clock_khz: u32,
    pub bus_bits: u32,
    pub l2_bytes: u32,
    /// Dense tensor-core rates, 1e12 operations a second: bf16 and f16, TF32, float64, 8-bit integers.
    pub bf16_tflops: f64,
    pub tf32_tflops: f64,
    pub f64_tflops: f64,
    pub int8_tops: f64,
    /// float32 outside the tensor cores, the same unit.
    pub f32_tflops: f64,
    /// Bytes a second.
    pub bandwidth: f64,
}

const A100: Device = Device {
    name: "NVIDIA A100-SXM4-80GB (emulated)",
    compute_capability: (8, 0),
    multiprocessors: 108,
    memory: 80 << 30,
    max_threads: 1024,
    max_block: [1024, 1024, 64],
    max_grid: [i32::MAX as u32, 65535, 65535],
    shared: 48 << 10,
    shared_optin: 163 << 10,
    shared_per_multiprocessor: 164 << 10,
    registers_per_block: 65536,
    threads_per_multiprocessor: 2048,
    clock_khz: 1_410_000,
    memory_clock_khz: 1_593_000,
    bus_bits: 5120,
    l2_bytes: 40 << 20,
    bf16_tflops: 312.0,
    tf32_tflops: 156.0,
    f64_tflops: 19.5,
    int8_tops: 624.0,
    f32_tflops: 19.5,
    bandwidth: 2.039e12,
};

const H100: Device = Device {
    name: "NVIDIA H100 80GB HBM3 (emulated)",
    compute_capability: (9, 0),
    multiprocessors: 132,
    shared_optin: 227 << 10,
    shared_per_multiprocessor: 228 << 10,
    clock_khz: 1_980_000,
    memory_clock_khz: 2_619_000,
    l2_bytes: 50 << 20,
    bf16_tflops: 989.4,
    tf32_tflops: 494.7,
    f64_tflops: 66.9,
    int8_tops: 1978.9,
    f32_tflops: 66.9,
    bandwidth: 3.352e12,
    ..A100
};

const RTX5090: Device = Device {
    name: "NVIDIA GeForce RTX 5090 (emulated)",
    compute_capability: (12, 0),
    multiprocessors: 170,
    memory: 32 << 30,
    shared_optin: 99 << 10,
    shared_per_multiprocessor: 100 << 10,
    threads_per_multiprocessor: 1536,
    clock_khz: 2_407_000,
    memory_clock_khz: 14_001_000,
    bus_bits: 512,
    l2_bytes: 96 << 20,
    bf16_tflops: 209.5,
    tf32_tflops: 104.8,
    f64_tflops: 1.64,
    int8_tops: 838.0,
    f32_tflops: 104.8,
    bandwidth: 1.792e12,
    ..A100
};

impl Device {
    /// Operations a second of the tensor cores.
    pub fn matrix_rate(&self, format: MatrixFormat) -> f64 {
        1e12 * match format {
            MatrixFormat::F16 | MatrixFormat::Bf16 => self.bf16_tflops,
            MatrixFormat::Tf32 => self.tf32_tflops,
            MatrixFormat::F64 => self.f64_tflops,
            // Where there are 8-bit floats, they are as fast as integers.
            MatrixFormat::Int8 | MatrixFormat::Float8 => self.int8_tops,
        }
    }

    /// Cycles of one multiprocessor per second.
    pub fn clock(&self) -> f64 {
        1e3 * f64::from(self.clock_khz)
    }
}

impl Model {
    pub const ALL: [Model; 3] = [Model::A100, Model::H100, Model::Rtx5090];

    /// As `PTX_EMULATOR_MODEL` names it.
    pub fn name(self) -> &'static str {
        match self {
            Model::A100 => "a100",
            Model::H100 => "h100",
            Model::Rtx5090 => "rtx5090",
        }
    }

    pub fn device(self) -> &'static Device {
        match self {
            Model::A100 => &A100,
            Model::H100 => &H100,
            Model::Rtx5090 => &RTX5090,
        }
    }
}
