//! Control flow: basic blocks, where the sides of a branch meet again (immediate post-dominators), and which registers are
//! live where.
//!
//! Source: Cooper, Harvey & Kennedy 2001, "A Simple, Fast Dominance Algorithm", on the reversed graph.

/// Instruction ranges and edges. Block `i` covers `first[i]..first[i + 1]`.
pub struct Blocks {
    pub first: Vec<usize>,
    pub next: Vec<Vec<usize>>,
}

/// How control leaves an instruction.
pub struct Leave<'a> {
    /// Instructions it may jump to.
    pub targets: &'a [usize],
    /// Whether the next instruction may follow.
    pub falls: bool,
}

impl Blocks {
    /// Cuts `n` instructions into blocks. `leave(i)` is `None` for instructions that just go on.
    pub fn new<'a>(n: usize, leave: impl Fn(usize) -> Option<Leave<'a>>) -> Self {
        let mut starts = vec![false; n + 1];
        starts[0] = true;
        for i in 0..n {
            if let Some(l) = leave(i) {
                starts[i + 1] = true;
                for &t in l.targets {
                    starts[t] = true;
                }
            }
        }
        let mut first: Vec<usize> = (0..n).filter(|&i| starts[i]).collect();
        let count = first.len();
        first.push(n);
        let block_at = |i: usize| first.partition_point(|&f| f <= i) - 1;
        let next = (0..count)
            .map(|b| {
                let last = first[b + 1] - 1;
                let mut out: Vec<usize> = Vec::new();
                let falls = match leave(last) {
                    Some(l) => {
                        out.extend(l.targets.iter().filter(|&&t| t < n).map(|&t| block_at(t)));
                        l.falls
                    }
                    None => true,
                };
                if falls && b + 1 < count {
                    out.push(b + 1);
                }
                out.sort_unstable();
                out.dedup();
                out
            })
            .collect();
        Blocks { first, next }
    }

    pub fn count(&self) -> usize {
        self.next.len()
    }

    /// For each block the block where all paths from it meet first, or `None` when they only meet at the end.
    pub fn post_dominators(&self) -> Vec<Option<usize>> {
        let n = self.count();
        let exit = n;
        // Predecessors in the reversed graph are successors here; blocks without successors go to the exit.
        let mut back: Vec<Vec<usize>> = vec![Vec::new(); n + 1];
        for (b, out) in self.next.iter().enumerate() {
            if out.is_empty() {
                back[exit].push(b);
            }
            for &s in out {
                back[s].push(b);
            }
        }
        // Post-order of the reversed graph from the exit.
        let mut order = Vec::with_capacity(n + 1);
        let mut rank = vec![usize::MAX; n + 1];
        let mut seen = vec![false; n + 1];
        let mut stack = vec![(exit, 0)];
        seen[exit] = true;
        while let Some((b, i)) = stack.pop() {
            if let Some(&p) = back[b].get(i) {
                stack.push((b, i + 1));
                if !seen[p] {
                    seen[p] = true;
                    stack.push((p, 0));
                }
            } else {
                rank[b] = order.len();
                order.push(b);
            }
        }
        let mut dominator = vec![usize::MAX; n + 1];
        dominator[exit] = exit;
        let meet = |dominator: &[usize], mut a: usize, mut b: usize| {
            while a != b {
                while rank[a] < rank[b] {
                    a = dominator[a];
                }
                while rank[b] < rank[a] {
                    b = dominator[b];
                }
            }
            a
        };
        let mut changed = true;
        while changed {
            changed = false;
            for &b in order.iter().rev().filter(|&&b| b != exit) {
                let out: &[usize] = if self.next[b].is_empty() { &[exit] } else { &self.next[b] };
                let mut new = usize::MAX;
                for &s in out.iter().filter(|&&s| dominator[s] != usize::MAX) {
                    new = if new == usize::MAX { s } else { meet(&dominator, s, new) };
                }
                if new != usize::MAX && dominator[b] != new {
                    dominator[b] = new;
                    changed = true;
                }
            }
        }
        (0..n).map(|b| Some(dominator[b]).filter(|&d| d < n)).collect()
    }

    /// Live-in and live-out sets of each block, as bit sets of `words` words; `uses` and `defines` per block.
    pub fn liveness(&self, uses: &[Vec<u64>], defines: &[Vec<u64>], words: usize) -> (Vec<Vec<u64>>, Vec<Vec<u64>>) {
        let n = self.count();
        let (mut live_in, mut live_out) = (vec![vec![0u64; words]; n], vec![vec![0u64; words]; n]);
        let mut changed = true;
        while changed {
            changed = false;
            for b in (0..n).rev() {
                for w in 0..words {
                    let out = self.next[b].iter().fold(0, |all, &s| all | live_in[s][w]);
                    let inside = uses[b][w] | (out & !defines[b][w]);
                    if out != live_out[b][w] || inside != live_in[b][w] {
                        live_out[b][w] = out;
                        live_in[b][w] = inside;
                        changed = true;
                    }
                }
            }
        }
        (live_in, live_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of one instruction each from an edge list.
    fn graph(edges: &[&[usize]]) -> Blocks {
        Blocks { first: (0..=edges.len()).collect(), next: edges.iter().map(|e| e.to_vec()).collect() }
    }

    #[test]
    fn the_sides_of_a_branch_meet_behind_it() {
        // 0 -> 1 | 2, both -> 3
        assert_eq!(graph(&[&[1, 2], &[3], &[3], &[]]).post_dominators(), [Some(3), Some(3), Some(3), None]);
    }

    #[test]
    fn a_loop_is_left_at_its_exit() {
        // 0 -> 1; 1 -> 1 | 2; 2 ends
        assert_eq!(graph(&[&[1], &[1, 2], &[]]).post_dominators(), [Some(1), Some(2), None]);
    }

    #[test]
    fn paths_that_end_apart_do_not_meet() {
        assert_eq!(graph(&[&[1, 2], &[], &[]]).post_dominators(), [None, None, None]);
        // An endless loop never reaches the end.
        assert_eq!(graph(&[&[1, 2], &[1], &[]]).post_dominators()[2], None);
    }

    #[test]
    fn a_cold_block_behind_the_join_still_joins() {
        // 0 -> 1 | 3; 1 -> 2; 3 -> 1 (laid out behind the end)
        assert_eq!(graph(&[&[1, 3], &[2], &[], &[1]]).post_dominators()[0], Some(1));
    }
}
