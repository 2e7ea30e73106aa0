//! The order of an undivided run's records, and which part each of its units of work falls to.

use super::super::ledger::Ledger;
use super::super::records::{Found, Record};
use super::super::results;
use super::super::shard::Shard;
use crate::config::Config;

/// Cells are counted as in `results.csv`, images as in the dataset; what is attacked together, a model within a budget, is a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub groups: usize,
    channels: usize,
    budgets: usize,
    images: usize,
    /// Whether an image's outcome within a budget depends on that within smaller ones.
    nest: bool,
}

impl Order {
    pub fn of(config: &Config, images: usize) -> Order {
        let budgets = config.attack.eps.len();
        Order {
            groups: config.models.len() * budgets,
            channels: results::channels(config).len(),
            budgets,
            images,
            nest: config.attack.nest,
        }
    }

    /// The number of an image within a group among all units of work. Parts take every N-th of them: each has as many of every group as the
    /// others, but for one, so that they end together whatever a group takes.
    pub fn unit(self, group: usize, image: usize) -> usize {
        // The budgets of one image follow from each other.
        if self.nest { image } else { group * self.images + image }
    }

    /// The group of a cell.
    pub fn group(self, cell: usize) -> usize {
        cell / self.budgets / self.channels * self.budgets + cell % self.budgets
    }

    /// Of two records that with the smaller key comes first.
    pub fn key(self, cell: usize, image: usize, found: &Found) -> u64 {
        let group = self.group(cell);
        let channel = cell / self.budgets % self.channels;
        // What was known from a smaller budget is recorded before anything of the group is attacked.
        let attacked = !matches!(found, Found::Attacked(outcome) if outcome.nested.is_some());
        (((group * 2 + usize::from(attacked)) * self.images + image) * self.channels + channel) as u64
    }

    /// Records of one unit, and of all.
    pub fn records(self) -> (usize, usize) {
        (self.channels, self.groups * self.images * self.channels)
    }
}

impl Order {
    /// Records that a part still lacks.
    pub fn left(self, run: &Ledger, shard: Shard) -> u64 {
        let mut left = 0;
        for cell in 0..run.cells.len() {
            let mine = |&image: &usize| shard.takes(self.unit(self.group(cell), image));
            left += (0..self.images).filter(mine).filter(|&image| run.found[cell][image].is_none()).count() as u64;
        }
        left
    }
}

/// Whether records come in the order of an undivided run.
#[derive(Clone, Copy, Debug)]
pub struct Follows {
    order: Order,
    last: Option<u64>,
    pub so_far: bool,
}

impl Follows {
    pub fn new(order: Order) -> Follows {
        Follows { order, last: None, so_far: true }
    }

    pub fn take(&mut self, (cell, image): (usize, usize), record: &Record) {
        let key = self.order.key(cell, image, &record.found);
        self.so_far &= self.last < Some(key);
        self.last = Some(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn parts_have_as_many_images_of_every_group() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        for (images, of) in [(256, 6), (50_000, 64), (5, 7), (64, 64)] {
            let order = Order::of(&config, images);
            let mut all = vec![0; of];
            for group in 0..order.groups {
                let mut counts = vec![0; of];
                for image in 0..images {
                    let taken: Vec<usize> = (0..of)
                        .filter(|i| Shard { number: *i as u32 + 1, of: of as u32 }.takes(order.unit(group, image)))
                        .collect();
                    assert_eq!(taken.len(), 1);
                    counts[taken[0]] += 1;
                }
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 1, "{counts:?}");
                all.iter_mut().zip(&counts).for_each(|(sum, n)| *sum += n);
            }
            assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1, "{all:?}");
        }
    }

    #[test]
    fn a_cell_is_of_the_group_that_is_attacked_together() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        let order = Order::of(&config, 4);
        for (at, cell) in results::cells(&config).iter().enumerate() {
            let eps = config.attack.eps.iter().position(|&eps| eps == cell.eps).unwrap();
            assert_eq!(order.group(at), cell.model * config.attack.eps.len() + eps);
        }
    }
}
