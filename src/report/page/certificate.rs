//! Certified accuracy over radius, drawn and as numbers.

use serde::Serialize;

use super::super::certificate::{AXIS, At, Certificates, Curve, RHO};
use super::figure::Legend;
use crate::draw::plot;
use crate::error::Result;
use crate::run::ledger::Ledger;

#[derive(Serialize)]
pub(super) struct Certificate {
    heading: String,
    /// What it comes to, and what attacks say of it.
    says: Vec<String>,
    figure: Drawn,
    caption: String,
    radii: Vec<String>,
    rows: Vec<Row>,
    /// L-infinity radii that those of the table hold.
    linf: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Drawn {
    wide: String,
    narrow: String,
    curves: Vec<Legend>,
    caption: String,
}

#[derive(Serialize)]
struct Row {
    name: String,
    points: Vec<Scored>,
}

#[derive(Serialize)]
struct Scored {
    radius: String,
    #[serde(flatten)]
    at: At,
}

pub(super) fn certificate(run: &Ledger) -> Result<Option<Certificate>> {
    let Some(all) = Certificates::of_run(run)? else { return Ok(None) };
    let drawn = all.series();
    let [wide, narrow] = plot::inline(AXIS, &drawn)?;
    let row = |curve: &Curve| Row {
        name: curve.name.clone(),
        points: all
            .radii()
            .iter()
            .map(|&radius| Scored {
                radius: all.column(radius, |radius| format!("r {radius}")),
                at: all.at(curve, radius),
            })
            .collect(),
    };
    let linf = all.linf_of(all.radii());
    let mut says: Vec<String> = all.unfinished().into_iter().chain(all.words().to_vec()).collect();
    if all.crossed.compared > 0 {
        says.extend(all.crossed.lines());
    }
    let heading = format!("{}{}", Certificates::heading(run), all.flaw());
    Ok(Some(Certificate {
        heading: heading.clone(),
        says,
        figure: Drawn {
            wide,
            narrow,
            curves: drawn.iter().map(Legend::of).collect(),
            caption: format!(
                "{heading} in %{}: {}. Bands: Wilson 95 % intervals; thin lines: at least that, but for a chance of {RHO}.",
                if all.predicts { "" } else { " over the L2 radius" },
                all.caption(run)
            ),
        },
        caption: format!(
            "The same as numbers: in %, images of n, [Wilson 95 % interval], and what the accuracy is at least but for a chance of {RHO} (Cohen et \
             al. 2019). Images that the smoothed classifier abstains on are errors."
        ),
        radii: all.radii().iter().map(|&radius| all.column(radius, |radius| format!("r {radius}"))).collect(),
        rows: all.curves.iter().map(row).collect(),
        linf: linf.map(|linf| linf.into_iter().map(|radius| format!("{radius:.4}")).collect()),
    }))
}
