//! A roofline estimate of a launch from what the emulator counted: not a measurement, and no prediction of one.
//!
//! Each resource needs a least time for the work that was counted; the launch takes at least the longest of them. Blocks are as
//! heavy as one another here, so the busiest multiprocessor runs `ceil(blocks / multiprocessors)` of them. Left out: L2 (every
//! sector counts as one of device memory), latency, occupancy, launch overhead, and what ptxas makes of the PTX.

use ptx_emulator::count::LaunchCounts;
use ptx_emulator::device::{Device, Model};
use ptx_emulator::ops::Class;

/// The GPUs that are estimated, with the names in tables.
pub const GPUS: [(&str, Model); 2] = [("A100", Model::A100), ("H100", Model::H100)];

/// Bytes of a sector.
pub const SECTOR: u64 = 32;
/// Warp instructions that a multiprocessor issues a cycle: one for each of its four schedulers.
const ISSUES: f64 = 4.0;

/// What a launch may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Tensor cores.
    Matrix,
    /// Sectors over the bandwidth of device memory.
    Memory,
    /// Instructions issued, moves left out: ptxas removes most of them.
    Issue,
    /// Turns of shared memory, one a cycle.
    Shared,
}

impl Resource {
    const ALL: [Resource; 4] = [Resource::Matrix, Resource::Memory, Resource::Issue, Resource::Shared];

    pub fn name(self) -> &'static str {
        match self {
            Resource::Matrix => "matrix",
            Resource::Memory => "memory",
            Resource::Issue => "issue",
            Resource::Shared => "shared",
        }
    }
}

/// Estimated seconds of one launch or several in a row.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    pub gpu: &'static str,
    /// Sum of the longest time of each launch.
    pub estimated_s: f64,
    /// The resource that binds for most of it.
    pub bound_by: Resource,
}

/// The least time that each resource needs, in the order of [`Resource`].
fn needs(launch: &LaunchCounts, device: &Device) -> [f64; 4] {
    let blocks: f64 = launch.grid.iter().map(|&n| f64::from(n)).product();
    let multiprocessors = f64::from(device.multiprocessors);
    // The busiest multiprocessor's part of the work, and its part of the rates.
    let busiest = (blocks / multiprocessors).ceil() / blocks * multiprocessors;
    let cycles = multiprocessors * device.clock();
    let t = &launch.total;
    let matrix: f64 = launch.flops.iter().map(|(&format, &flops)| flops as f64 / device.matrix_rate(format)).sum();
    let moves = launch.classes.get(&Class::Move).copied().unwrap_or(0);
    let bytes = (SECTOR * (t.global_load_sectors + t.global_store_sectors)) as f64;
    [
        busiest * matrix,
        bytes / device.bandwidth,
        busiest * (t.instructions - moves) as f64 / (ISSUES * cycles),
        busiest * t.shared_turns as f64 / cycles,
    ]
}

/// Of launches that run one after another.
pub fn estimate<'a>(launches: impl Iterator<Item = &'a LaunchCounts>, gpu: &'static str, model: Model) -> Estimate {
    let mut bound = [0.0; 4];
    for launch in launches {
        let needs = needs(launch, model.device());
        let longest = longest(&needs);
        bound[longest] += needs[longest];
    }
    Estimate { gpu, estimated_s: bound.iter().sum(), bound_by: Resource::ALL[longest(&bound)] }
}

/// The place of the largest; the first of equals.
fn longest(times: &[f64; 4]) -> usize {
    (1..4).fold(0, |best, i| if times[i] > times[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::count::MatrixFormat;

    /// One full wave of an A100 in which every resource needs a time of its own.
    fn launch() -> LaunchCounts {
        let mut launch = LaunchCounts { grid: [108, 1, 1], ..Default::default() };
        launch.flops.insert(MatrixFormat::Bf16, 312_000_000_000); // 1 ms
        launch.total.global_load_sectors = 63_718_750; // 2.039e9 bytes: 1 ms
        launch.total.instructions = 4 * 108 * 1_410_000 + 12_345; // 1 ms and moves
        launch.classes.insert(Class::Move, 12_345);
        launch.total.shared_turns = 108 * 1_410_000; // 1 ms
        launch
    }

    fn on_a100(launches: &[LaunchCounts]) -> Estimate {
        estimate(launches.iter(), "A100", Model::A100)
    }

    #[test]
    fn each_resource_takes_what_the_data_sheet_says() {
        for (i, needs) in needs(&launch(), Model::A100.device()).into_iter().enumerate() {
            assert!((needs - 1e-3).abs() < 1e-9, "{:?}: {needs}", Resource::ALL[i]);
        }
    }

    #[test]
    fn the_longest_binds() {
        let double: [fn(&mut LaunchCounts); 4] = [
            |l| *l.flops.get_mut(&MatrixFormat::Bf16).unwrap() *= 2,
            |l| l.total.global_store_sectors = l.total.global_load_sectors,
            |l| l.total.instructions += 4 * 108 * 1_410_000,
            |l| l.total.shared_turns *= 2,
        ];
        for (double, resource) in double.into_iter().zip(Resource::ALL) {
            let mut launch = launch();
            double(&mut launch);
            let e = on_a100(&[launch]);
            assert_eq!(e.bound_by, resource);
            assert!((e.estimated_s - 2e-3).abs() < 1e-9, "{e:?}");
        }
    }

    #[test]
    fn tf32_takes_twice_as_long_as_bf16() {
        let with = |format| {
            let mut launch = LaunchCounts { grid: [108, 1, 1], ..Default::default() };
            launch.flops.insert(format, 1 << 40);
            on_a100(&[launch]).estimated_s
        };
        assert!((with(MatrixFormat::Tf32) / with(MatrixFormat::Bf16) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn few_blocks_leave_multiprocessors_idle() {
        let shared = |blocks: u32| {
            let mut launch = LaunchCounts { grid: [blocks, 1, 1], ..Default::default() };
            launch.total.shared_turns = 1_410_000 * u64::from(blocks);
            on_a100(&[launch]).estimated_s
        };
        // 1 ms a block: one wave, then two.
        for (blocks, ms) in [(1, 1.0), (108, 1.0), (109, 2.0), (216, 2.0)] {
            assert!((shared(blocks) - ms * 1e-3).abs() < 1e-9, "{blocks}");
        }
    }

    #[test]
    fn launches_add_up() {
        let mut second = launch();
        second.total.shared_turns *= 3;
        let e = on_a100(&[launch(), second]);
        assert!((e.estimated_s - 4e-3).abs() < 1e-9 && e.bound_by == Resource::Shared, "{e:?}");
        assert_eq!(on_a100(&[]).estimated_s, 0.0);
    }
}
