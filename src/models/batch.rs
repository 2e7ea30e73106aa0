//! How a network walks over a batch.

use std::ops::Range;

use rayon::prelude::*;

use crate::Result;
use crate::device::Device;

/// Images at once on the host. Few keep activations in cache; but each chunk streams all the weights through it, so that the
/// larger of the two should be the activations: between 4 and 32 MiB of the widest one, a third of the weights if in between.
pub(crate) fn chunk(device: &Device, widest: usize, parameters: usize) -> usize {
    if device.plan().serial {
        (4 * parameters / 3).clamp(4 << 20, 32 << 20).div_ceil(4 * widest.max(1))
    } else {
        usize::MAX
    }
}

/// Runs `f` on ranges of `n` images, on the host one range per thread at a time: each then works in its own cache, and no op waits for
/// another thread, which is faster from one image per thread on. Of fewer each op runs on all threads. Results may not depend on it.
pub(crate) fn in_chunks<R: Send>(
    device: &Device,
    chunk: usize,
    n: usize,
    f: impl Fn(Range<usize>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = device.parallelism();
    let even = n.div_ceil(threads.max(1));
    if !device.plan().serial || threads == 1 || n < threads {
        let chunk = chunk.min(n.max(1));
        return (0..n).step_by(chunk).map(|first| f(first..(first + chunk).min(n))).collect();
    }
    // As many ranges as threads, or a multiple, so that they end together.
    let rounds = even.div_ceil(chunk);
    let count = (threads * rounds).min(n);
    (0..count).into_par_iter().map(|i| f(n * i / count..n * (i + 1) / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other_and_none_is_empty() {
        let device = Device::host().unwrap();
        for n in 0..20 {
            for chunk in 1..6 {
                let ranges = in_chunks(&device, chunk, n, Ok).unwrap();
                let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
                assert_eq!(all, (0..n).collect::<Vec<_>>(), "{n} in {chunk}");
                assert!(ranges.iter().all(|range| !range.is_empty()), "{n} in {chunk}: {ranges:?}");
            }
        }
    }
}
