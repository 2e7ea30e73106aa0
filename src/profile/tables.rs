//! What the emulator counted, summed and as tables.

use std::collections::BTreeMap;

use ptx_emulator::count::{Footprint, LaunchCounts, MatrixFormat, Totals};
use ptx_emulator::ops::Class;
use serde::Serialize;

use super::roofline::{Estimate, GPUS, SECTOR, estimate};

/// Classes that take less than this share are summed up as the rest.
const SMALL_SHARE: f64 = 0.01;

/// Launches of one kernel, summed.
#[derive(Clone, Debug, Serialize)]
pub struct Sum {
    pub kernel: String,
    pub launches: usize,
    /// Of the launch that takes most.
    pub registers: u32,
    pub shared_bytes: u32,
    pub barriers: u64,
    pub total: Totals,
    pub footprint: Footprint,
    /// Warp instructions by class.
    pub classes: BTreeMap<Class, u64>,
    pub flops: BTreeMap<MatrixFormat, u64>,
    pub estimates: Vec<Estimate>,
}

impl Sum {
    /// # Panics
    /// Without launches.
    pub fn of(launches: &[&LaunchCounts]) -> Sum {
        let mut sum = Sum {
            kernel: launches[0].kernel.clone(),
            launches: launches.len(),
            registers: 0,
            shared_bytes: 0,
            barriers: 0,
            total: Totals::default(),
            footprint: Footprint::default(),
            classes: BTreeMap::new(),
            flops: BTreeMap::new(),
            estimates: GPUS.iter().map(|&(gpu, model)| estimate(launches.iter().copied(), gpu, model)).collect(),
        };
        for launch in launches {
            sum.registers = sum.registers.max(launch.registers);
            sum.shared_bytes = sum.shared_bytes.max(launch.shared_bytes);
            sum.barriers += launch.barriers;
            sum.total += &launch.total;
            sum.footprint += launch.footprint;
            launch.classes.iter().for_each(|(&class, n)| *sum.classes.entry(class).or_default() += n);
            launch.flops.iter().for_each(|(&format, n)| *sum.flops.entry(format).or_default() += n);
        }
        sum
    }
}

/// One sum per kernel, the one with most instructions first.
pub fn by_kernel(launches: &[LaunchCounts]) -> Vec<Sum> {
    let mut kernels: BTreeMap<&str, Vec<&LaunchCounts>> = BTreeMap::new();
    for launch in launches {
        kernels.entry(&launch.kernel).or_default().push(launch);
    }
    let mut sums: Vec<Sum> = kernels.values().map(|launches| Sum::of(launches)).collect();
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.total.instructions));
    sums
}

/// The source lines of one kernel over all its launches, the one with most instructions first.
pub fn by_line(launches: &[LaunchCounts], kernel: &str) -> Vec<((String, u32), Totals)> {
    let mut lines: BTreeMap<(String, u32), Totals> = BTreeMap::new();
    for launch in launches.iter().filter(|launch| launch.kernel == kernel) {
        launch.lines.iter().for_each(|(line, totals)| *lines.entry(line.clone()).or_default() += totals);
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.instructions));
    lines
}

/// Lanes of a warp that took part, on average.
fn lanes(t: &Totals) -> String {
    format!("{:.1}", t.threads as f64 / t.instructions.max(1) as f64)
}

/// Bytes asked for over those of the sectors they lie in: below 100 % where accesses do not coalesce, above where lanes share
/// bytes.
fn coalescing(t: &Totals) -> String {
    match t.global_load_sectors + t.global_store_sectors {
        0 => "-".into(),
        sectors => {
            let bytes = t.global_load_bytes + t.global_store_bytes;
            format!("{:.0}%", 100.0 * bytes as f64 / (SECTOR * sectors) as f64)
        }
    }
}

/// A count in at most five characters.
fn short(n: u64) -> String {
    let n = n as f64;
    let Some((unit, letter)) = [(1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')].into_iter().find(|(u, _)| n >= *u)
    else {
        return n.to_string();
    };
    let n = n / unit;
    let digits = if n < 9.995 { 2 } else { usize::from(n < 99.95) };
    format!("{n:.digits$}{letter}")
}

/// Totals in the columns of [`TOTALS`].
fn totals(t: &Totals) -> Vec<String> {
    vec![
        short(t.instructions),
        lanes(t),
        short(t.divergent_branches),
        short(t.flops),
        short(t.global_load_bytes + t.global_store_bytes),
        short(t.global_load_sectors + t.global_store_sectors),
        coalescing(t),
        short(t.shared_turns),
        short(t.shared_conflicts),
    ]
}

/// Instructions but moves, which ptxas removes, for one of the tensor cores.
fn per_mma(classes: &BTreeMap<Class, u64>) -> String {
    let of = |class| classes.get(&class).copied().unwrap_or(0);
    match of(Class::Matrix) {
        0 => "-".into(),
        mma => format!("{:.2}", (classes.values().sum::<u64>() - of(Class::Move)) as f64 / mma as f64),
    }
}

const TOTALS: [&str; 9] =
    ["instr", "lanes", "diverged", "matrix-flop", "global-B", "sectors", "coalesced", "sh-turns", "conflicts"];

const LAST: [&str; 3] = ["barriers", "regs", "per-mma"];

/// The first column to the left, the others to the right.
fn columns(header: Vec<&str>, rows: Vec<Vec<String>>) -> String {
    let all: Vec<Vec<String>> = std::iter::once(header.into_iter().map(str::to_owned).collect()).chain(rows).collect();
    let width = |c: usize| all.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..all[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(c, (cell, &w))| if c == 0 { format!("{cell:<w$}") } else { format!("  {cell:>w$}") });
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

/// A row per kernel.
pub fn kernels(sums: &[Sum]) -> String {
    let row = |s: &Sum| {
        let mut row = vec![s.kernel.clone(), s.launches.to_string()];
        row.extend(totals(&s.total));
        row.extend([short(s.barriers), s.registers.to_string(), per_mma(&s.classes)]);
        row
    };
    let header = [&["kernel", "launches"][..], &TOTALS, &LAST].concat();
    columns(header, sums.iter().map(row).collect())
}

/// A row per launch, in their order.
pub fn launches(launches: &[LaunchCounts]) -> String {
    let row = |(i, l): (usize, &LaunchCounts)| {
        let blocks = |n: [u32; 3]| n.map(|n| n.to_string()).join("x");
        let mut row = vec![format!("{} {}", i + 1, l.kernel), blocks(l.grid), blocks(l.block)];
        row.extend(totals(&l.total));
        row.extend([short(l.barriers), l.registers.to_string(), per_mma(&l.classes)]);
        let sum = Sum::of(&[l]);
        row.extend(sum.estimates.iter().flat_map(time));
        row
    };
    let header = [&["launch", "grid", "block"][..], &TOTALS, &LAST, &ESTIMATES].concat();
    columns(header, launches.iter().enumerate().map(row).collect())
}

/// Per kernel what it reads and writes: each byte once, what the buffers of its arguments hold, and what moves in sectors.
pub fn bytes(sums: &[Sum]) -> String {
    let row = |s: &Sum| {
        let (Footprint { read, written }, t) = (&s.footprint, &s.total);
        let moved = [t.global_load_sectors, t.global_store_sectors].map(|sectors| SECTOR * sectors);
        let times = (moved[0] + moved[1]) as f64 / (read.bytes + written.bytes).max(1) as f64;
        let mut row = vec![s.kernel.clone()];
        for (once, moved) in [(read, moved[0]), (written, moved[1])] {
            row.extend([once.bytes, once.buffers, moved].map(short));
        }
        row.push(format!("{times:.2}"));
        row
    };
    let header = vec!["kernel", "read", "of", "moved", "written", "of", "moved", "moved/once"];
    columns(header, sums.iter().map(row).collect())
}

/// Per kernel the share of each class of instructions.
pub fn classes(sums: &[Sum]) -> String {
    let wide = sums.iter().map(|s| s.kernel.len()).max().unwrap_or(0);
    let line = |s: &Sum| {
        let share = |n: u64| n as f64 / s.total.instructions.max(1) as f64;
        let mut all: Vec<(String, f64)> = s.classes.iter().map(|(class, &n)| (name(class), share(n))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (large, small): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, share)| *share >= SMALL_SHARE);
        let mut parts: Vec<String> =
            large.iter().map(|(class, share)| format!("{class} {:.0}", 100.0 * share)).collect();
        if !small.is_empty() {
            parts.push(format!("rest {:.0}", 100.0 * small.iter().map(|(_, share)| share).sum::<f64>()));
        }
        format!("{:<wide$}  {}\n", s.kernel, parts.join(", "))
    };
    sums.iter().map(line).collect()
}

/// As in JSON: `global-load`.
fn name(class: &Class) -> String {
    serde_json::to_value(class).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Two columns for each GPU.
const ESTIMATES: [&str; 4] = ["est. A100", "bound by", "est. H100", "bound by"];

fn time(e: &Estimate) -> [String; 2] {
    [format!("{:.2} us", 1e6 * e.estimated_s), e.bound_by.name().into()]
}

/// The estimates per kernel and of all together.
pub fn estimates(sums: &[Sum], all: &[LaunchCounts]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for s in sums {
        rows.push(std::iter::once(s.kernel.clone()).chain(s.estimates.iter().flat_map(time)).collect());
    }
    let whole = GPUS.iter().map(|&(gpu, model)| estimate(all.iter(), gpu, model));
    rows.push(std::iter::once("all".to_owned()).chain(whole.flat_map(|e| time(&e))).collect());
    columns([&["kernel"][..], &ESTIMATES].concat(), rows)
}

/// A row per source line.
pub fn lines(lines: &[((String, u32), Totals)]) -> String {
    let all: u64 = lines.iter().map(|(_, t)| t.instructions).sum();
    let row = |((file, line), t): &((String, u32), Totals)| {
        let file = file.rsplit('/').next().unwrap_or(file);
        let mut row = vec![format!("{file}:{line}")];
        row.push(format!("{:.1}%", 100.0 * t.instructions as f64 / all.max(1) as f64));
        row.extend(totals(t));
        row
    };
    columns([&["line", "share"][..], &TOTALS].concat(), lines.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::count::Touched;

    fn launch(kernel: &str, instructions: u64) -> LaunchCounts {
        let mut l = LaunchCounts { kernel: kernel.into(), grid: [2, 1, 1], block: [64, 1, 1], ..Default::default() };
        l.total = Totals { instructions, threads: 16 * instructions, ..Default::default() };
        l.total.global_load_bytes = 256;
        l.total.global_load_sectors = 16;
        l.footprint.read = Touched { bytes: 200, sectors: 8, buffers: 1024 };
        l.classes = [(Class::Integer, instructions - 1), (Class::Branch, 1)].into();
        l.lines = [(("kernels/a.cu".to_owned(), 7), l.total.clone())].into();
        l
    }

    #[test]
    fn sums_and_tables_read_like_this() {
        let mut all = [launch("a", 1000), launch("b", 5000), launch("a", 2000)];
        all[1].classes = [(Class::Integer, 4200), (Class::Move, 400), (Class::Matrix, 400)].into();
        let sums = by_kernel(&all);
        let expected = "\
kernel  launches  instr  lanes  diverged  matrix-flop  global-B  sectors  coalesced  sh-turns  conflicts  barriers  regs  per-mma
b              1  5.00k   16.0         0            0       256       16        50%         0          0         0     0    11.50
a              2  3.00k   16.0         0            0       512       32        50%         0          0         0     0        -
";
        assert_eq!(kernels(&sums), expected);
        let expected = "\
kernel  read     of  moved  written  of  moved  moved/once
b        200  1.02k    512        0   0      0        2.56
a        400  2.05k  1.02k        0   0      0        2.56
";
        assert_eq!(bytes(&sums), expected);
        assert_eq!(classes(&sums), "b  integer 84, move 8, matrix 8\na  integer 100, rest 0\n");
        let lines_of_a = by_line(&all, "a");
        assert_eq!(lines_of_a[0].1.instructions, 3000);
        assert!(lines(&lines_of_a).contains("a.cu:7  100.0%  3.00k"));
        let table = launches(&all);
        assert!(table.contains("3 a     2x1x1  64x1x1  2.00k"), "{table}");
        assert!(estimates(&sums, &all).starts_with("kernel  est. A100  bound by  est. H100  bound by\nb "));
    }

    #[test]
    fn counts_are_short() {
        let cases = [(0, "0"), (999, "999"), (1000, "1.00k"), (9_994, "9.99k"), (9_996, "10.0k"), (99_960, "100k")];
        for (n, text) in cases {
            assert_eq!(short(n), text);
        }
        assert_eq!(short(123_456_789), "123M");
        assert_eq!(short(2_500_000_000_000), "2.50T");
    }
}
