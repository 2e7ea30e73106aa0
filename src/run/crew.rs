//! Several devices on one run: a worker each, with networks of its own, that take batches from one queue. Images are decoded for all of them by
//! the one dataset.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::engine::AttackEngine;
use super::progress::Watch;
use super::runner::{Attacked, Engine};
use crate::Result;
use crate::config::Config;
use crate::data::Dataset;
use crate::device::{Device, level};

/// The first engine is the one that also makes the pictures and the checks.
pub struct Crew<'a> {
    pub lead: AttackEngine<'a>,
    others: Vec<AttackEngine<'a>>,
}

impl<'a> Crew<'a> {
    /// Opens every device that the config names, and loads the networks on each.
    ///
    /// # Errors
    /// As [`AttackEngine::new`]; [`crate::Error::Device`] for a device that is not there, [`crate::Error::Usage`] for a level of host
    /// kernels beside a GPU.
    pub fn new(config: &'a Config, dataset: &'a Dataset) -> Result<Self> {
        let devices = Device::open_all(config.device, &config.devices)?;
        devices.iter().try_for_each(|device| level::is_heard_by(device.kind()))?;
        let mut devices = devices.into_iter();
        let on = |device: Option<Device>| device.map(|device| AttackEngine::on(config, dataset, device)).transpose();
        let lead = match on(devices.next())? {
            Some(lead) => lead,
            None => AttackEngine::new(config, dataset)?,
        };
        let others = devices.map(|device| AttackEngine::on(config, dataset, device)).collect::<Result<_>>()?;
        Ok(Crew { lead, others })
    }

    /// Names of the devices, where there are several.
    pub fn names(&self) -> Option<Vec<String>> {
        let all = || std::iter::once(&self.lead).chain(&self.others);
        (!self.others.is_empty()).then(|| all().map(|engine| engine.device().name()).collect())
    }
}

impl Engine for Crew<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        self.lead.run(model, eps, images)
    }

    fn run_all(
        &mut self,
        group: (usize, f64),
        batches: &[&[usize]],
        take: &mut dyn FnMut(&[usize], Attacked) -> Result<()>,
    ) -> Result<()> {
        shared(&mut self.lead, &mut self.others, group, batches, take)
    }

    fn times(&self) -> Vec<(&'static str, f64)> {
        let mut times = self.lead.times();
        for other in &self.others {
            for (sum, (_, seconds)) in times.iter_mut().zip(other.times()) {
                sum.1 += seconds;
            }
        }
        times
    }

    fn processor(&self) -> String {
        self.lead.processor()
    }

    fn watched(&mut self, watch: Watch) {
        self.lead.watched(watch);
    }

    fn device_name(&self) -> String {
        self.lead.device_name()
    }
}

/// Hands the batches over in their order, whoever attacked them. The first is the lead's, which keeps its images for the pictures.
fn shared<E: Engine + Send>(
    lead: &mut E,
    others: &mut [E],
    (model, eps): (usize, f64),
    batches: &[&[usize]],
    take: &mut dyn FnMut(&[usize], Attacked) -> Result<()>,
) -> Result<()> {
    if others.is_empty() || batches.len() < 2 {
        return batches.iter().try_for_each(|batch| take(batch, lead.run(model, eps, batch)?));
    }
    let (queue, ended) = (AtomicUsize::new(1), AtomicBool::new(false));
    let next = || Some(queue.fetch_add(1, Ordering::Relaxed)).filter(|&at| at < batches.len());
    std::thread::scope(|scope| {
        let (send, done) = channel();
        for engine in others {
            let (send, ended, next) = (send.clone(), &ended, &next);
            scope.spawn(move || {
                while let Some(at) = next().filter(|_| !ended.load(Ordering::Relaxed)) {
                    let attacked = engine.run(model, eps, batches[at]);
                    let failed = attacked.is_err();
                    if send.send((at, attacked)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(send);
        let (mut own, mut handed, mut waiting) = (Some(0), 0, BTreeMap::new());
        let mut all = || -> Result<()> {
            while handed < batches.len() {
                match own {
                    Some(at) => drop(waiting.insert(at, lead.run(model, eps, batches[at]))),
                    // Nothing is left in the queue: what the others still work on is waited for.
                    None => match done.recv() {
                        Ok((at, attacked)) => drop(waiting.insert(at, attacked)),
                        Err(_) => break,
                    },
                }
                waiting.extend(done.try_iter());
                // An error stands where its batch would: what was done before it is recorded.
                while let Some(attacked) = waiting.remove(&handed) {
                    take(batches[handed], attacked?)?;
                    handed += 1;
                }
                own = next();
            }
            Ok(())
        };
        let result = all();
        ended.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Takes a while, and says which images it was given.
    struct Slow {
        milliseconds: u64,
        fails_at: usize,
    }

    impl Engine for Slow {
        fn run(&mut self, _: usize, _: f64, images: &[usize]) -> Result<Attacked> {
            std::thread::sleep(std::time::Duration::from_millis(self.milliseconds));
            match images[0] == self.fails_at {
                true => Err(Error::device("the plug was pulled")),
                false => Ok(Attacked { pixels: vec![vec![images[0] as f32]], ..Attacked::default() }),
            }
        }

        fn device_name(&self) -> String {
            "slow".into()
        }
    }

    fn run(speeds: &[u64], fails_at: usize) -> (Vec<usize>, Result<()>) {
        let images: Vec<[usize; 1]> = (0..40).map(|i| [i]).collect();
        let batches: Vec<&[usize]> = images.iter().map(|batch| &batch[..]).collect();
        let mut engines: Vec<Slow> = speeds.iter().map(|&milliseconds| Slow { milliseconds, fails_at }).collect();
        let (lead, others) = engines.split_first_mut().unwrap();
        let mut seen = vec![];
        let ended = shared(lead, others, (0, 0.0), &batches, &mut |batch, attacked| {
            assert_eq!(attacked.pixels[0][0] as usize, batch[0]);
            seen.push(batch[0]);
            Ok(())
        });
        (seen, ended)
    }

    #[test]
    fn batches_come_in_their_order_whoever_is_slow() {
        for speeds in [&[0, 0, 0][..], &[3, 0], &[0, 4, 1], &[2]] {
            let (seen, ended) = run(speeds, usize::MAX);
            ended.unwrap();
            assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{speeds:?}");
        }
    }

    #[test]
    fn what_was_done_before_a_failure_is_handed_over() {
        for speeds in [&[0, 1][..], &[1, 0], &[0, 0, 0]] {
            let (seen, ended) = run(speeds, 17);
            assert!(ended.unwrap_err().to_string().contains("plug"));
            assert_eq!(seen, (0..17).collect::<Vec<_>>(), "{speeds:?}");
        }
    }

    #[test]
    fn who_takes_may_end_it() {
        let images: Vec<[usize; 1]> = (0..40).map(|i| [i]).collect();
        let batches: Vec<&[usize]> = images.iter().map(|batch| &batch[..]).collect();
        let slow = || Slow { milliseconds: 1, fails_at: usize::MAX };
        let mut seen = 0;
        let ended = shared(&mut slow(), &mut [slow(), slow()], (0, 0.0), &batches, &mut |_, _| {
            seen += 1;
            if seen == 5 { Err(Error::Stopped { words: String::new(), code: 75 }) } else { Ok(()) }
        });
        assert_eq!((seen, ended.unwrap_err().exit_code()), (5, 75));
    }
}
