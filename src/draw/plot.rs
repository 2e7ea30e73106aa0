//! Accuracy over epsilon as a figure: SVG, and PNG and PDF made of it.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Point, Series, picture};
use crate::error::{Error, Result};
use crate::number::eps_label;
use crate::shown::plain;
use crate::stats::wilson;

/// Where the axes stand: the pixels of epsilon 0, accuracy 1, the largest epsilon and accuracy 0.
#[derive(Clone, Copy)]
struct Frame {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
    height: u32,
    /// Pixels of a letter's height.
    letters: i32,
    /// Whether title and legend stand above and to the right.
    words: bool,
}

/// A figure that stands alone.
const ALONE: Frame = Frame { left: 88, top: 92, right: 858, bottom: 482, height: 560, letters: 18, words: true };
/// Within a page that has title and legend itself, for a wide and for a narrow screen.
const WIDE: Frame = Frame { left: 76, top: 18, right: 840, bottom: 372, height: 446, letters: 18, words: false };
const NARROW: Frame = Frame { left: 66, top: 16, right: 344, bottom: 280, height: 346, letters: 16, words: false };
/// How far the axes reach beyond these.
const OVERHANG: i32 = 10;
/// Width of a curve; no other line is as wide.
const CURVE: u32 = 3;
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(226, 226, 226);

/// Colours that stay apart for colour-blind readers (Okabe & Ito 2008), darkest first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(80, 80, 80),
];

/// A figure in all its formats.
pub struct Figure {
    pub svg: String,
    pub png: Vec<u8>,
    pub pdf: Vec<u8>,
}

/// One curve per series with its Wilson 95 % band, over a linear axis with ticks at the epsilons. The same input gives
/// the same bytes.
///
/// # Errors
/// [`Error::Failed`] when the figure cannot be drawn.
pub fn accuracy(title: &str, subtitle: &str, x_axis: &str, series: &[Series]) -> Result<Figure> {
    let failed = |e: Box<dyn std::error::Error>| Error::Failed(format!("plots/accuracy: {e}"));
    let longest = series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0) as u32;
    let size = ((ALONE.right + OVERHANG + 90) as u32 + 9 * longest, ALONE.height);
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), ALONE, title, subtitle, x_axis, series)
        .map_err(failed)?;
    let svg = dashed(&svg, series);
    let tree = picture::tree(&svg)?;
    Ok(Figure { png: picture::raster(&tree)?, pdf: picture::pdf(&tree)?, svg })
}

/// The figure as SVG for a page, without title and legend: for a wide and for a narrow screen. Its greys and white are those of
/// this module's constants, for a style sheet to exchange in the dark.
///
/// # Errors
/// [`Error::Failed`] when the figure cannot be drawn.
pub fn inline(x_axis: &str, series: &[Series]) -> Result<[String; 2]> {
    let draw_in = |frame: Frame| {
        let mut svg = String::new();
        let size = ((frame.right + OVERHANG + 14) as u32, frame.height);
        draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), frame, "", "", x_axis, series)
            .map_err(|e| Error::Failed(format!("the page's figure: {e}")))?;
        let svg = dashed(&svg, series);
        // Scales with its column instead of keeping its size.
        let fixed = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
        let svg = svg.replacen(&fixed, "<svg role=\"img\" aria-label=\"accuracy over the size of a perturbation\"", 1);
        // Inside a page it needs no namespace.
        Ok(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
    };
    Ok([draw_in(WIDE)?, draw_in(NARROW)?])
}

/// The colour of a curve as `#rrggbb`.
pub fn css_colour(i: usize) -> String {
    let RGBColor(r, g, b) = colour(i);
    format!("#{r:02X}{g:02X}{b:02X}")
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Canvas<DB> = DrawingArea<DB, Shift>;
type Pixel = (i32, i32);

fn draw<DB: DrawingBackend>(
    root: &Canvas<DB>,
    frame: Frame,
    title: &str,
    subtitle: &str,
    x_axis: &str,
    series: &[Series],
) -> Drawn
where
    DB::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let Frame { left, top, right, bottom, .. } = frame;
    if frame.words {
        root.draw_text(&plain(title), &text(28, INK), (left - OVERHANG, 16))?;
        root.draw_text(&plain(subtitle), &text(18, FAINT), (left - OVERHANG, 51))?;
    }

    let eps: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.eps)).collect();
    let largest = eps.iter().copied().fold(0.0, f64::max);
    let largest = if largest > 0.0 { largest } else { 1.0 };
    let at = |eps: f64, share: f64| {
        let (width, height) = (f64::from(right - left), f64::from(bottom - top));
        (left + (width * eps / largest).round() as i32, bottom - (height * share).round() as i32)
    };
    // Of steps, which stand anywhere, the ends are labelled.
    let labelled = series.iter().flat_map(|s| {
        let inner = 1..s.points.len().saturating_sub(1);
        s.points.iter().enumerate().filter(move |(i, _)| !(s.steps && inner.contains(i))).map(|(_, p)| p.eps)
    });
    let labelled: Vec<f64> = labelled.collect();
    // What is certified reaches anywhere: round numbers tell more than ends.
    let labelled = if series.iter().any(|s| s.unsure > 0.0) { round_numbers(largest) } else { labelled };
    axes(root, frame, x_axis, &ticks(labelled, largest, frame), at)?;
    for curve in series {
        let bound = |upper: bool| {
            let of = |p: &Point| {
                let interval = wilson(p.correct, p.n);
                if upper { interval.hi } else { interval.lo }
            };
            path(curve, of).into_iter().map(|(eps, share)| at(eps, share))
        };
        let outline: Vec<Pixel> = bound(true).chain(bound(false).rev()).collect();
        root.draw(&Polygon::new(outline, colour(curve.colour).mix(0.12).filled()))?;
    }
    for curve in series {
        let points: Vec<Pixel> = path(curve, Point::accuracy).into_iter().map(|(eps, share)| at(eps, share)).collect();
        if curve.unsure > 0.0 {
            let sure = |point: &Point| (point.accuracy() - curve.unsure).max(0.0);
            let points: Vec<Pixel> = path(curve, sure).into_iter().map(|(eps, share)| at(eps, share)).collect();
            root.draw(&PathElement::new(points, colour(curve.colour).stroke_width(1)))?;
        }
        line(root, &points, curve)?;
        for at in points.into_iter().filter(|_| !curve.steps) {
            marker(root, at, curve)?;
        }
    }
    if frame.words {
        legend(root, frame, series)?;
    }
    root.present()?;
    Ok(())
}

/// Four to ten round numbers from 0 on.
fn round_numbers(largest: f64) -> Vec<f64> {
    let tens = 10f64.powf(largest.log10().floor());
    let step = [0.1, 0.2, 0.25, 0.5].map(|share| share * tens).into_iter().find(|step| largest / step <= 8.0);
    let step = step.unwrap_or(tens);
    (0..=(largest / step + 1e-9) as usize).map(|i| (i as f64 * step * 1e9).round() / 1e9).collect()
}

/// Where a line goes through values of the points: epsilon and share.
fn path(curve: &Series, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut path: Vec<(f64, f64)> = Vec::new();
    for point in &curve.points {
        if let Some(&(_, before)) = path.last().filter(|_| curve.steps) {
            path.push((point.eps, before));
        }
        path.push((point.eps, value(point)));
    }
    path
}

/// A curve, solid for now: see [`dashed`].
fn line<DB: DrawingBackend>(root: &Canvas<DB>, points: &[Pixel], curve: &Series) -> Drawn
where
    DB::ErrorType: 'static,
{
    root.draw(&PathElement::new(points.to_vec(), colour(curve.colour).stroke_width(CURVE)))?;
    Ok(())
}

/// Dashes the lines of all models but the first. SVG does it exactly; plotters would break a line into pieces that end at whole pixels,
/// and it would wobble. Only curves are as wide as [`CURVE`]; they come in the order of the series, and those of the legend once more.
fn dashed(svg: &str, series: &[Series]) -> String {
    let curve = format!("stroke-width=\"{CURVE}\"");
    let mut parts = svg.split("<polyline ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    let mut order = series.iter().cycle();
    for part in parts {
        whole.push_str("<polyline ");
        let is_curve = part.split("/>").next().is_some_and(|tag| tag.contains(&curve));
        if let Some(of) = is_curve.then(|| order.next()).flatten().filter(|of| of.mark > 0) {
            whole.push_str(&format!("stroke-dasharray=\"{}\" ", dash(of.mark)));
        }
        whole.push_str(part);
    }
    whole
}

/// How the line of a curve is dashed, as SVG says it.
pub fn dash(mark: usize) -> &'static str {
    ["none", "9 6", "3 6"][mark.min(2)]
}

/// Grid, labels and descriptions. `at` places an epsilon and an accuracy of 0 to 1.
fn axes<DB: DrawingBackend>(
    root: &Canvas<DB>,
    frame: Frame,
    x_axis: &str,
    eps: &[f64],
    at: impl Fn(f64, f64) -> Pixel,
) -> Drawn
where
    DB::ErrorType: 'static,
{
    let Frame { left, top, right, bottom, letters, .. } = frame;
    let line = |from, to, colour: RGBColor| root.draw(&PathElement::new(vec![from, to], colour.stroke_width(1)));
    let label =
        |text_at: Pixel, words: &str, h, v| root.draw_text(words, &text(letters, INK).pos(Pos::new(h, v)), text_at);
    for tenths in [0, 2, 4, 6, 8, 10] {
        let (_, y) = at(0.0, f64::from(tenths) / 10.0);
        line((left - OVERHANG, y), (right + OVERHANG, y), GRID)?;
        label((left - OVERHANG - 8, y), &(10 * tenths).to_string(), HPos::Right, VPos::Center)?;
    }
    for &tick in eps {
        let (x, _) = at(tick, 0.0);
        line((x, top), (x, bottom + OVERHANG), GRID)?;
        label((x, bottom + OVERHANG + 6), &eps_label(tick), HPos::Center, VPos::Top)?;
    }
    line((left - OVERHANG, bottom), (right + OVERHANG, bottom), FAINT)?;

    let name = text(letters + 1, INK).pos(Pos::new(HPos::Center, VPos::Center));
    root.draw_text(x_axis, &name, ((left + right) / 2, frame.height as i32 - 22))?;
    let upright = name.transform(FontTransform::Rotate270);
    root.draw_text(
        "accuracy in %, Wilson 95 % band",
        &upright,
        (if frame.words { 24 } else { 13 }, (top + bottom) / 2),
    )?;
    Ok(())
}

/// The names beside the figure, in the order of the curves at epsilon 0.
fn legend<DB: DrawingBackend>(root: &Canvas<DB>, frame: Frame, series: &[Series]) -> Drawn
where
    DB::ErrorType: 'static,
{
    let left = frame.right + OVERHANG + 14;
    for (i, curve) in series.iter().enumerate() {
        let y = frame.top + 10 + 28 * i as i32;
        line(root, &[(left, y), (left + 44, y)], curve)?;
        if !curve.steps {
            marker(root, (left + 22, y), curve)?;
        }
        let style = text(18, INK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw_text(&plain(&curve.name), &style, (left + 54, y))?;
    }
    Ok(())
}

/// A filled mark with a white rim; shapes tell models apart where colours cannot.
fn marker<DB: DrawingBackend>(root: &Canvas<DB>, (x, y): Pixel, curve: &Series) -> Drawn
where
    DB::ErrorType: 'static,
{
    let (fill, rim) = (colour(curve.colour).filled(), WHITE.stroke_width(1));
    match curve.mark % 3 {
        0 => {
            root.draw(&Circle::new((x, y), 6, fill))?;
            root.draw(&Circle::new((x, y), 6, rim))?;
        }
        1 => {
            let corners = [(x - 4, y - 4), (x + 4, y + 4)];
            root.draw(&Rectangle::new(corners, fill))?;
            root.draw(&Rectangle::new(corners, rim))?;
        }
        _ => {
            let corners = vec![(x, y - 7), (x + 7, y + 5), (x - 7, y + 5)];
            root.draw(&Polygon::new(corners.clone(), fill))?;
            root.draw(&PathElement::new([&corners[..], &corners[..1]].concat(), rim))?;
        }
    }
    Ok(())
}

/// The epsilons to label: all but those whose label would touch the one before or the last.
fn ticks(mut eps: Vec<f64>, largest: f64, frame: Frame) -> Vec<f64> {
    eps.sort_by(f64::total_cmp);
    eps.dedup();
    let characters = |eps| eps_label(eps).chars().count() as f64;
    let apart = |left: f64, right: f64| {
        let pixels = (right - left) / largest * f64::from(frame.right - frame.left);
        pixels >= f64::from(frame.letters) / 2.0 * (characters(left) + characters(right)) / 2.0 + 8.0
    };
    let mut kept: Vec<f64> = Vec::new();
    for &tick in &eps {
        let free = kept.last().is_none_or(|&before| apart(before, tick));
        if free && (tick == largest || apart(tick, largest)) {
            kept.push(tick);
        }
    }
    kept
}

fn text(size: i32, colour: RGBColor) -> TextStyle<'static> {
    (picture::FONT, size).into_font().color(&colour)
}

fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers_are_few_and_round() {
        assert_eq!(round_numbers(0.7), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]);
        assert_eq!(round_numbers(1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(round_numbers(4.2), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(round_numbers(0.034).len() <= 9 && round_numbers(0.034).len() >= 4);
    }

    fn series(name: &str, eps: &[f64], correct: &[u64]) -> Series {
        let points = eps.iter().zip(correct).map(|(&eps, &correct)| Point { eps, correct, n: 256 }).collect();
        Series {
            name: name.into(),
            points,
            colour: 0,
            mark: usize::from(name.contains("cbam")),
            steps: false,
            unsure: 0.0,
        }
    }

    #[test]
    fn same_input_same_bytes() {
        let eps = [0.0, 0.005, 0.01, 0.02, 0.03, 0.06];
        let models = [
            series("resnet50-w16", &eps, &[241, 191, 92, 2, 0, 0]),
            series("resnet50-cbam-w16", &eps, &[239, 190, 105, 9, 0, 0]),
        ];
        let draw = || accuracy("Accuracy under attack: x < y & z", "pgd L∞", "ε", &models).unwrap();
        let Figure { svg, png, pdf } = draw();
        let again = draw();
        assert!(svg == again.svg && png == again.png && pdf == again.pdf);
        assert!(pdf.starts_with(b"%PDF-") && pdf.len() < 200_000, "{} bytes", pdf.len());
        assert!(svg.starts_with("<svg width=\"") && svg.trim_end().ends_with("</svg>"));
        // The second model's curve, and its line in the legend.
        assert_eq!(svg.matches("stroke-dasharray=\"9 6\"").count(), 2);
        let decoded = image::load_from_memory(&png).unwrap();
        assert_eq!(decoded.height(), 2 * ALONE.height);
        for text in ["resnet50-cbam-w16", "x &lt; y &amp; z", "0.005", "0.06"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn steps_hold_until_the_next_point() {
        let curve = Series { steps: true, ..series("m", &[0.0, 0.01, 0.04], &[256, 128, 0]) };
        let expected = [(0.0, 1.0), (0.01, 1.0), (0.01, 0.5), (0.04, 0.5), (0.04, 0.0)];
        assert_eq!(path(&curve, Point::accuracy), expected);
        // Neither the curve nor its legend has a mark, and between its ends nothing is labelled.
        let Figure { svg, .. } = accuracy("t", "s", "x", &[curve]).unwrap();
        assert!(!svg.contains("<circle") && svg.contains("0.04") && !svg.contains("0.01"), "{svg}");
    }

    #[test]
    fn degenerate_figures_are_drawn() {
        for models in [vec![], vec![series("m", &[], &[])], vec![series("m", &[0.0], &[256])]] {
            accuracy("t", "s", "x", &models).unwrap();
        }
    }

    #[test]
    fn crowded_ticks_lose_their_labels() {
        assert_eq!(ticks(vec![0.0, 0.5, 1.0, 0.5], 1.0, ALONE), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(vec![0.0, 0.01, 0.1, 0.99, 1.0], 1.0, ALONE), [0.0, 0.1, 1.0]);
    }
}
