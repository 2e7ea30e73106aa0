//! What ONNX's Resize asks for, and its weights along one axis.

use super::ir::{Attr, Constant, Dim, Ir, Node};

/// What a node asks for along every axis of its input; an axis that it does not name keeps its length.
pub struct Asked {
    pub scales: Option<Vec<f32>>,
    pub sizes: Option<Vec<Option<Dim>>>,
}

/// Reads scales or sizes, which from opset 18 on may be those of some axes alone.
///
/// # Errors
/// Neither is known beforehand, their number is another than that of the axes, or a policy that is not understood.
pub fn asked(ir: &Ir, node: &Node, rank: usize) -> Result<Asked, String> {
    let policy = node.text("keep_aspect_ratio_policy").unwrap_or("stretch");
    if policy != "stretch" {
        return Err(format!(
            "keep_aspect_ratio_policy `{policy}` is not understood: export it with scales or whole sizes"
        ));
    }
    let axes = match node.ints("axes") {
        None => (0..rank).collect(),
        Some(axes) => {
            let place = |&axis: &i64| {
                let at = if axis < 0 { axis + rank as i64 } else { axis };
                usize::try_from(at).ok().filter(|&at| at < rank)
            };
            let found: Option<Vec<usize>> = axes.iter().map(place).collect();
            let once = |axes: &Vec<usize>| axes.iter().enumerate().all(|(i, a)| !axes[..i].contains(a));
            found.filter(once).ok_or_else(|| format!("axes: expected different ones of {rank}, found {axes:?}"))?
        }
    };
    let count = |what: &str, found: usize| match found == axes.len() {
        true => Ok(()),
        false => Err(format!("{what}: expected one for each of {} axes, found {found}", axes.len())),
    };
    let place = if node.op == "Upsample" || ir.opset < 11 { 1 } else { 2 };
    let scales = match node.attrs.get("scales") {
        Some(Attr::Floats(v)) => Some(v.clone()),
        _ => ir.known(node, place).and_then(Constant::as_floats).map(<[f32]>::to_vec),
    };
    if let Some(sizes) = ir.known(node, 3).and_then(Constant::as_dims) {
        count("sizes", sizes.len())?;
        let mut all = vec![None; rank];
        axes.iter().zip(sizes).for_each(|(&axis, &size)| all[axis] = Some(size));
        return Ok(Asked { scales: None, sizes: Some(all) });
    }
    let Some(own) = scales.filter(|scales| !scales.is_empty()) else {
        return Err("its sizes are not known beforehand".into());
    };
    count("scales", own.len())?;
    let mut all = vec![1.0; rank];
    axes.iter().zip(own).for_each(|(&axis, scale)| all[axis] = scale);
    Ok(Asked { scales: Some(all), sizes: None })
}

/// Weights of outputs `0..m` over inputs `0..n`. Source: the definition of Resize in ONNX's operators.
///
/// # Errors
/// A mode that is not understood.
pub fn rows(node: &Node, opset: i64, n: usize, m: usize, scale: f32) -> Result<Vec<Vec<(usize, f32)>>, String> {
    let mode = node.text("mode").unwrap_or("nearest");
    let usual = if node.op == "Upsample" || opset < 11 { "asymmetric" } else { "half_pixel" };
    let coordinates = node.text("coordinate_transformation_mode").unwrap_or(usual);
    if node.int("antialias") == Some(1) && m < n {
        return Err("antialias is not understood: resize before the network".into());
    }
    if node.int("exclude_outside") == Some(1) {
        return Err("exclude_outside is not understood".into());
    }
    let scale = f64::from(scale);
    // Which pixel is nearest is decided in float32 wherever such networks are trained and run: 8 / 1.6 is 5 there, and a little less in
    // float64. Weights are better in float64.
    let r = |v: f64| if mode == "nearest" { f64::from(v as f32) } else { v };
    let source = |i: usize| -> Result<f64, String> {
        let i = i as f64;
        let half_pixel = r(r((i + 0.5) / scale) - 0.5);
        Ok(match coordinates {
            "half_pixel" => half_pixel,
            "pytorch_half_pixel" if m > 1 => half_pixel,
            "pytorch_half_pixel" => 0.0,
            "asymmetric" => r(i / scale),
            "align_corners" if m > 1 => r(r(i * (n as f64 - 1.0)) / (m as f64 - 1.0)),
            "align_corners" => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = r(m as f64 / r(n as f64 * scale));
                let centre = r(n as f64 / 2.0);
                let offset = r(centre * r(1.0 - adjustment));
                r(r(offset + r((i + 0.5) / scale)) - 0.5)
            }
            other => return Err(format!("coordinate_transformation_mode `{other}` is not understood")),
        })
    };
    let inside = |j: f64| j.clamp(0.0, n as f64 - 1.0) as usize;
    let mut rows = Vec::with_capacity(m);
    for i in 0..m {
        let x = source(i)?;
        rows.push(match mode {
            "nearest" => {
                let usual = if node.op == "Upsample" || opset < 11 { "floor" } else { "round_prefer_floor" };
                let j = match node.text("nearest_mode").unwrap_or(usual) {
                    "floor" => x.floor(),
                    "ceil" => x.ceil(),
                    // Exact in float64, whatever float32 is rounded.
                    "round_prefer_ceil" => (x + 0.5).floor(),
                    _ => (x - 0.5).ceil(),
                };
                vec![(inside(j), 1.0)]
            }
            "linear" | "bilinear" => {
                let x = x.clamp(0.0, n as f64 - 1.0);
                let t = x - x.floor();
                vec![(inside(x.floor()), (1.0 - t) as f32), (inside(x.floor() + 1.0), t as f32)]
            }
            "cubic" => {
                let a = f64::from(node.float("cubic_coeff_a").unwrap_or(-0.75));
                let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
                let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
                let t = x - x.floor();
                let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
                weights.iter().enumerate().map(|(k, &w)| (inside(x.floor() - 1.0 + k as f64), w as f32)).collect()
            }
            other => return Err(format!("mode `{other}` is not understood")),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::graph::ir::Attr;

    #[test]
    fn modes_are_as_defined() {
        let mut node = Node { op: "Resize".into(), ..Node::default() };
        let places = |rows: Vec<Vec<(usize, f32)>>| rows.into_iter().map(|r| r[0].0).collect::<Vec<_>>();
        assert_eq!(places(rows(&node, 19, 2, 4, 2.0).unwrap()), [0, 0, 1, 1]);
        // Of 1.6 in float32, as PyTorch and ONNX Runtime have it: floor(8 / 1.6) is 5.
        node.set("coordinate_transformation_mode", Attr::Text("asymmetric".into()));
        node.set("nearest_mode", Attr::Text("floor".into()));
        assert_eq!(places(rows(&node, 19, 8, 12, 1.6).unwrap()), [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6]);
        let mut node = Node { op: "Resize".into(), ..Node::default() };
        node.set("mode", Attr::Text("linear".into()));
        let weights = rows(&node, 19, 2, 4, 2.0).unwrap();
        assert_eq!(weights[1], [(0, 0.75), (1, 0.25)]);
        assert_eq!(weights[0], [(0, 1.0), (1, 0.0)]);
        node.set("coordinate_transformation_mode", Attr::Text("align_corners".into()));
        assert_eq!(rows(&node, 19, 3, 5, 5.0 / 3.0).unwrap()[1], [(0, 0.5), (1, 0.5)]);
        node.set("mode", Attr::Text("other".into()));
        assert!(rows(&node, 19, 3, 5, 2.0).is_err());
    }
}
