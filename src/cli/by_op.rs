//! `rampart bench --by-op`: where the time goes, and how much of it the processor or its memory needs at least.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use super::workload::Workload;
use crate::Result;
use crate::device::{DType, Device};
use crate::ops::Activation;
use crate::ops::elementwise::{Binary, Operand, binary};
use crate::ops::gemm::{Linear, linear};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// One kernel's part of a run.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Row {
    pub kernel: &'static str,
    pub launches: f64,
    pub seconds: f64,
    /// 1e9 per second, of products; a convolution counts as if it were done directly
    pub gflops: f64,
    /// 1e9 per second, every buffer that a launch names counted once
    pub gbytes: f64,
    /// what its products or its bytes take at least, over what it took
    pub of_limit: f64,
}

/// Operations and bytes per second that all threads reach together.
#[derive(Clone, Copy)]
struct Limits {
    flops: f64,
    bytes: f64,
}

/// Does the work again, `runs` times, and adds up what its launches take; the longest first.
pub fn measure(work: &Workload, runs: usize) -> Result<Vec<Row>> {
    let device = &work.device;
    let limits = limits(device)?;
    device.watch_launches();
    let ran = (0..runs).try_for_each(|_| work.once());
    let spent = device.launches_watched();
    ran?;
    let mut rows: Vec<Row> = spent
        .into_iter()
        .map(|(kernel, s)| {
            let seconds = s.thread_seconds / device.parallelism() as f64;
            Row {
                kernel,
                launches: s.launches as f64 / runs as f64,
                seconds: seconds / runs as f64,
                gflops: s.flops / seconds / 1e9,
                gbytes: s.bytes / seconds / 1e9,
                of_limit: (s.flops / limits.flops).max(s.bytes / limits.bytes) / seconds,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(rows)
}

/// The rows as text. `median` is of the runs that nobody watched.
pub fn table(rows: &[Row], median: f64) -> String {
    let total: f64 = rows.iter().map(|row| row.seconds).sum();
    let width = rows.iter().map(|row| row.kernel.len()).max().unwrap_or(0).max("between launches".len());
    let mut s = format!("{:width$}  launches        ms  share  GFLOP/s   GB/s  of limit\n", "kernel");
    for r in rows {
        let _ = writeln!(
            s,
            "{:width$}  {:8.0}  {:8.2}  {:4.1}%  {:7.1}  {:5.1}  {:7.0}%",
            r.kernel,
            r.launches,
            1e3 * r.seconds,
            100.0 * r.seconds / total.max(median),
            r.gflops,
            r.gbytes,
            100.0 * r.of_limit
        );
    }
    let rest = (median - total).max(0.0);
    let _ = writeln!(
        s,
        "{:width$}  {:8}  {:8.2}  {:4.1}%",
        "between launches",
        "",
        1e3 * rest,
        100.0 * rest / total.max(median)
    );
    s
}

/// Measured with our own kernels: a product that stays in cache, and a sum that does not.
fn limits(device: &Device) -> Result<Limits> {
    const SIDE: usize = 768;
    const VALUES: usize = 16 << 20;
    const TRIES: usize = 5;
    let best = |f: &dyn Fn() -> Result<Tensor>| -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..TRIES {
            let start = Instant::now();
            f()?;
            least = least.min(start.elapsed().as_secs_f64());
        }
        Ok(least)
    };
    let g = Graph::inference(device, Precision::F32);
    let weight = vec![0.5; SIDE * SIDE];
    let layer = Arc::new(Linear::new(device, Precision::F32, &weight, [SIDE, SIDE], None)?);
    let x = Tensor::from_f32(device, &[SIDE, SIDE], DType::F32, &weight)?;
    let product = best(&|| linear(&g, &x, &layer, Activation::None))?;
    let long = Tensor::from_f32(device, &[VALUES], DType::F32, &vec![1.0; VALUES])?;
    let other = Tensor::from_f32(device, &[VALUES], DType::F32, &vec![1.0; VALUES])?;
    let sum = best(&|| binary(&g, Binary::Add, Operand::Constant(&long), Operand::Constant(&other)))?;
    device.trim();
    Ok(Limits { flops: 2.0 * (SIDE * SIDE * SIDE) as f64 / product, bytes: (3 * 4 * VALUES) as f64 / sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_like_this() {
        let row =
            |kernel, seconds, gflops, of_limit| Row { kernel, launches: 3.0, seconds, gflops, gbytes: 2.5, of_limit };
        let text = table(&[row("conv_f32", 0.06, 80.0, 0.9), row("group_norm_f32", 0.03, 0.0, 0.75)], 0.1);
        let expected = "\
kernel            launches        ms  share  GFLOP/s   GB/s  of limit
conv_f32                 3     60.00  60.0%     80.0    2.5       90%
group_norm_f32           3     30.00  30.0%      0.0    2.5       75%
between launches               10.00  10.0%
";
        assert_eq!(text, expected);
    }
}
