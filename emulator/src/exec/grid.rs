//! Runs a launch: blocks are dealt to the workers in a fixed way, so that what is found does not depend on timing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::block::{self, shuffle};
use super::cta::{Cta, Shape};
use super::warp::Warp;
use crate::check::clock::Clock;
use crate::check::global::GlobalShadow;
use crate::count::Counts;
use crate::finding::{Finding, Kind};

/// What a worker keeps between launches.
#[derive(Default)]
pub struct Worker {
    pub clock: Clock,
    /// By buffer number.
    pub shadows: HashMap<u64, GlobalShadow>,
}

/// A finding, and the turn of the schedule in which its block ran.
type Found = (u64, Box<Finding>);

/// Runs every block of the grid.
///
/// # Errors
/// The finding of the block that comes first in the order of the schedule.
pub fn run(shape: &Shape, workers: &mut [Worker]) -> Result<Counts, Box<Finding>> {
    let blocks: u64 = shape.grid.iter().map(|&n| u64::from(n)).product();
    // A list of numbers only where the order is shuffled.
    let order: Option<Vec<u64>> = (shape.seed != 0).then(|| {
        let mut order: Vec<u64> = (0..blocks).collect();
        shuffle(&mut order, &mut (shape.seed.wrapping_mul(0xd134_2543_de82_ef95) | 1));
        order
    });
    let many = if shape.program.serial { 1 } else { workers.len().min(blocks as usize).max(1) };
    let workers = &mut workers[..many];
    let failed = AtomicU64::new(u64::MAX);
    let one = |(k, worker): (usize, &mut Worker)| {
        if worker.clock.is_late() {
            *worker = Worker::default();
        }
        let mut clock = std::mem::take(&mut worker.clock);
        clock.begin_launch(shape.warps(), shape.checks && shape.program.ordering);
        let mut cta = Cta::new(shape, clock, std::mem::take(&mut worker.shadows), k as u32);
        let mut warps: Vec<Warp> = (0..shape.warps()).map(|w| Warp::new(w, &cta)).collect();
        let mut found = None;
        let mut turn = k as u64;
        while turn < blocks && turn < failed.load(Ordering::Relaxed) {
            let number = order.as_ref().map_or(turn, |o| o[turn as usize]);
            if let Err(finding) = block::run(&mut cta, &mut warps, number) {
                failed.fetch_min(turn, Ordering::Relaxed);
                found = Some((turn, finding));
                break;
            }
            turn += many as u64;
        }
        let (clock, shadows, counts) = cta.finish();
        *worker = Worker { clock, shadows };
        (found, counts)
    };
    let results: Vec<(Option<Found>, Counts)> = if many == 1 {
        vec![one((0, &mut workers[0]))]
    } else {
        workers.par_iter_mut().enumerate().with_max_len(1).map(one).collect()
    };
    let mut counts = Counts::new(if shape.counters { shape.program.code.len() } else { 0 }, shape.views.len());
    let mut first: Option<Found> = None;
    for (found, c) in results {
        counts.add(&c);
        if let Some(found) = found
            && first.as_ref().is_none_or(|f| found.0 < f.0)
        {
            first = Some(found);
        }
    }
    if let Some((_, finding)) = first {
        return Err(finding);
    }
    if shape.checks && many > 1 {
        between(shape, workers)?;
    }
    Ok(counts)
}

/// Races between blocks that ran on different workers.
fn between(shape: &Shape, workers: &[Worker]) -> Result<(), Box<Finding>> {
    for view in shape.views {
        for (i, mine) in workers.iter().enumerate() {
            for (j, other) in workers.iter().enumerate() {
                let (Some(a), Some(b)) = (mine.shadows.get(&view.number), other.shadows.get(&view.number)) else {
                    continue;
                };
                if i == j {
                    continue;
                }
                if let Some(c) = a.collision(&mine.clock, b, &other.clock) {
                    let program = shape.program;
                    let (source, inlined_at) = program.source(c.writer_pc);
                    let did = if c.other_wrote { "wrote" } else { "read" };
                    let at = c.other_pc.map(|pc| format!(" at {}", program.place(pc))).unwrap_or_default();
                    let what = format!(
                        "write; block {:?} {did} the same bytes{at} in this launch",
                        shape.block_index(c.other_block)
                    );
                    return Err(Box::new(Finding {
                        kernel: Some(program.name.clone()),
                        source: Some(source),
                        inlined_at,
                        block: Some(shape.block_index(c.writer_block)),
                        thread: Some(shape.thread_index(c.writer)),
                        address: Some(view.base + c.at as u64),
                        buffer: Some(view.name()),
                        ..Finding::new(Kind::BlockRace, what)
                    }));
                }
            }
        }
    }
    Ok(())
}
