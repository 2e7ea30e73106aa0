//! Attacks that ask for no gradient, on the images that the run's own attack left: points drawn at random, Square, and what broke
//! another model.

use super::found::Against;
use super::lab::{Lab, against};
use crate::Result;
use crate::attack::Said;

/// Points drawn for each image (Carlini et al. 2019).
pub(super) const POINTS: u32 = 1000;
/// Queries of Square for each image.
pub(super) const QUERIES: u32 = 300;
/// Images of either at most.
pub(super) const SEARCHED: usize = 4;

/// The first images that stand.
pub(super) fn standing(lab: &Lab) -> Vec<usize> {
    let stand = |&i: &usize| lab.attacked.as_ref().is_some_and(|attacked| attacked.right_later[i]);
    (0..lab.len()).filter(stand).take(SEARCHED).collect()
}

fn searched(lab: &Lab, method: &str, steps: u32) -> Result<Option<Against>> {
    if lab.attacked.is_none() {
        return Ok(None);
    }
    let places = standing(lab);
    if places.is_empty() {
        return Ok(Some(Against { asked: u64::from(steps), ..Against::default() }));
    }
    let said = Said {
        method: Some(method.into()),
        norm: Some(lab.own.norm),
        eps: Some(vec![lab.eps.into()]),
        steps: Some(steps),
        ..Said::default()
    };
    let mut spec = said.decided()?;
    spec.early_stop = true;
    let batch = lab.some(&places)?;
    let right = lab.stand(&spec, lab.net, &batch, lab.eps)?;
    Ok(Some(Against { asked: u64::from(steps), ..against(&batch.ids, &vec![true; right.len()], &right) }))
}

pub(super) fn random(lab: &Lab) -> Result<Option<Against>> {
    searched(lab, "random", POINTS)
}

pub(super) fn square(lab: &Lab) -> Result<Option<Against>> {
    searched(lab, "square", QUERIES)
}
