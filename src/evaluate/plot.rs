//! Curves as SVG pictures.

use crate::error::{Error, Result};
use crate::evaluate::comparison::Row;
use crate::files;
use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, WithKeyPoints};
use plotters::coord::ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

const SIZE: (u32, u32) = (900, 600);

/// Told apart by most eyes (M. Okabe, K. Ito, "Color Universal Design", 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 140),
];

/// A curve with its name in the legend.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// Points in the order in which they are joined. Those that are not positive in both coordinates are left out.
    pub points: Vec<(f64, f64)>,
}

/// Refuses names of files that are no SVG pictures; `flag` is what the name was given with.
///
/// # Errors
/// Another extension.
pub fn check_name(path: &Path, flag: &str) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "svg") {
        return Ok(());
    }
    Err(Error::parameter(flag, path.display(), "a file name that ends in .svg"))
}

/// Draws curves on two logarithmic axes.
///
/// # Errors
/// A file that cannot be written.
pub fn curves(path: &Path, horizontal: &str, vertical: &str, curves: &[Curve]) -> Result<()> {
    panels(path, &[logarithmic(horizontal, vertical, curves)])
}

/// Curves of different colours on logarithmic axes.
fn logarithmic(horizontal: &str, vertical: &str, curves: &[Curve]) -> Panel {
    let line = |(colour, curve): (usize, &Curve)| Line { curve: curve.clone(), colour, dashed: false };
    Panel {
        title: String::new(),
        horizontal: Axis::logarithmic(horizontal),
        vertical: Axis::logarithmic(vertical),
        lines: curves.iter().enumerate().map(line).collect(),
    }
}

/// Draws error against non-zeros: every list of rows is a curve with its pursuit's name.
///
/// # Errors
/// A file that cannot be written.
pub fn error_against_nonzeros(path: &Path, rows: &[Vec<Row>]) -> Result<()> {
    let of = |rows: &Vec<Row>| {
        let point = |row: &Row| (row.measures.nonzeros.last().copied().unwrap_or(0.0), row.measures.residual);
        Some(Curve { name: rows.first()?.pursuit.to_string(), points: rows.iter().map(point).collect() })
    };
    let all: Vec<Curve> = rows.iter().filter_map(of).collect();
    curves(path, "mean non-zeros of the deepest codes", "mean ‖y − D^(L) γ_L‖", &all)
}

/// An axis with what it says.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Its description.
    pub label: String,
    /// What its steps are.
    pub scale: Scale,
}

/// The steps of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Powers of ten: points that are not positive are left out.
    Logarithmic,
    /// Equal.
    Linear,
    /// Equal, and named at whole numbers only.
    Whole,
}

impl Axis {
    /// In powers of ten.
    pub fn logarithmic(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Logarithmic }
    }

    /// In equal steps.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear }
    }

    /// Of numbers that count something.
    pub fn whole(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Whole }
    }

    fn is_logarithmic(&self) -> bool {
        self.scale == Scale::Logarithmic
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (value > 0.0 || !self.is_logarithmic())
    }
}

/// A curve in its colour.
#[derive(Debug, Clone)]
pub struct Line {
    /// The curve; one without a name has no place in the legend.
    pub curve: Curve,
    /// A number from which its colour follows; lines of the same number have the same.
    pub colour: usize,
    /// Whether it is dashed, as bounds are.
    pub dashed: bool,
}

/// One picture, or one of several side by side.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What stands above it; may be empty.
    pub title: String,
    /// To the right.
    pub horizontal: Axis,
    /// Upwards.
    pub vertical: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// Draws pictures side by side, each as wide as a picture of [`curves`] is high, and to their right one legend, which is that of the
/// first.
///
/// # Errors
/// A file that cannot be written.
pub fn panels(path: &Path, panels: &[Panel]) -> Result<()> {
    let width = if panels.len() == 1 { SIZE.0 } else { SIZE.1 * panels.len() as u32 };
    let drawn = draw((width, SIZE.1), panels).map_err(|reason| Error::format(path, reason))?;
    files::write_bytes(path, drawn.as_bytes())
}

/// Width of a letter of the legend: no more than what it is in common fonts.
const LETTER: u32 = 9;

/// Height of a line of the legend.
const ENTRY: i32 = 24;

/// Pictures of that size together, and the legend.
fn draw(size: (u32, u32), panels: &[Panel]) -> Result<String, String> {
    let mut svg = String::new();
    let named: Vec<&Line> =
        panels.iter().take(1).flat_map(|panel| &panel.lines).filter(|line| !line.curve.name.is_empty()).collect();
    let letters = named.iter().map(|line| line.curve.name.chars().count()).max();
    let beside = letters.map_or(0, |letters| 50 + LETTER * letters as u32);
    let mut drawing = || -> Drawn {
        let area = SVGBackend::with_string(&mut svg, (size.0 + beside, size.1)).into_drawing_area();
        area.fill(&WHITE)?;
        let (area, side) = area.split_horizontally(size.0);
        legend(&side, &named)?;
        for (panel, area) in panels.iter().zip(area.split_evenly((1, panels.len()))) {
            let shown: Vec<Vec<(f64, f64)>> = panel
                .lines
                .iter()
                .map(|line| {
                    let shows = |(x, y): &(f64, f64)| panel.horizontal.shows(*x) && panel.vertical.shows(*y);
                    line.curve.points.iter().copied().filter(shows).collect()
                })
                .collect();
            let all = || shown.iter().flatten();
            let (horizontal, vertical) = (panel.horizontal.scale, panel.vertical.scale);
            let across = range(all().map(|point| point.0), panel.horizontal.is_logarithmic());
            let up = range(all().map(|point| point.1), panel.vertical.is_logarithmic());
            match (panel.horizontal.is_logarithmic(), panel.vertical.is_logarithmic()) {
                (true, true) => paint(&area, panel, &shown, logarithmic_scale(across), logarithmic_scale(up)),
                (true, false) => paint(&area, panel, &shown, logarithmic_scale(across), EqualSteps::new(up, vertical)),
                (false, true) => {
                    paint(&area, panel, &shown, EqualSteps::new(across, horizontal), logarithmic_scale(up))
                }
                (false, false) => {
                    paint(&area, panel, &shown, EqualSteps::new(across, horizontal), EqualSteps::new(up, vertical))
                }
            }?;
        }
        area.present()?;
        Ok(())
    };
    drawing().map_err(|error| format!("not drawn: {error}"))?;
    Ok(svg)
}

/// Points of a line from which on they are not marked.
const MANY: usize = 40;

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn paint<X, Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    shown: &[Vec<(f64, f64)>],
    across: X,
    up: Y,
) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.margin(20).x_label_area_size(50).y_label_area_size(75);
    if !panel.title.is_empty() {
        builder.caption(&panel.title, ("sans-serif", 20));
    }
    let mut chart = builder.build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .x_desc(&panel.horizontal.label)
        .y_desc(&panel.vertical.label)
        .label_style(("sans-serif", 16))
        .axis_desc_style(("sans-serif", 18))
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| tick(*value))
        .draw()?;
    for (line, points) in panel.lines.iter().zip(shown) {
        let colour = COLOURS[line.colour % COLOURS.len()];
        if line.dashed {
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 5, colour.stroke_width(2)))?;
        } else {
            // Points as close as beads on a string are no help.
            let size = if points.len() > MANY { 0 } else { 4 };
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(size))?;
        }
    }
    Ok(())
}

/// Names of lines, one below the other.
fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>, lines: &[&Line]) -> Drawn {
    for (place, line) in lines.iter().enumerate() {
        let y = 40 + ENTRY * place as i32;
        let colour = COLOURS[line.colour % COLOURS.len()];
        let pieces: &[(i32, i32)] = if line.dashed { &[(0, 6), (10, 16), (20, 26)] } else { &[(0, 26)] };
        for &(start, end) in pieces {
            area.draw(&PathElement::new(vec![(start, y), (end, y)], colour.stroke_width(3)))?;
        }
        area.draw(&Text::new(line.curve.name.clone(), (34, y - 9), ("sans-serif", 16)))?;
    }
    Ok(())
}

/// A number on an axis, without the digits that come from adding steps up.
fn tick(value: f64) -> String {
    let rounded = (value * 1e9).round() / 1e9;
    if rounded != 0.0 { format!("{rounded}") } else { format!("{value}") }
}

/// Multiples of a power of ten up to the next.
const MULTIPLES: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

/// A logarithmic axis with as many numbers as can be read: powers of ten, where the axis is short 2 and 5 times them, where it is
/// very short all multiples.
fn logarithmic_scale(range: Range<f64>) -> WithKeyPoints<LogCoord<f64>> {
    let (first, last) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    let between: &[f64] = match range.end / range.start {
        ..6.0 => &MULTIPLES,
        6.0..2e3 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let ticks = |times: &[f64]| -> Vec<f64> {
        let all = (first..=last).flat_map(|power| times.iter().map(move |times| times * 10f64.powi(power)));
        all.filter(|tick| range.contains(tick)).collect()
    };
    let (bold, light) = (ticks(between), ticks(&MULTIPLES));
    range.clone().log_scale().with_key_points(bold).with_light_points(light)
}

/// An axis of equal steps.
struct EqualSteps {
    axis: RangedCoordf64,
    whole: bool,
}

impl EqualSteps {
    fn new(range: Range<f64>, scale: Scale) -> Self {
        Self { axis: range.into(), whole: scale == Scale::Whole }
    }
}

impl Ranged for EqualSteps {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.axis.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let mut points = self.axis.key_points(hint);
        points.retain(|point| !self.whole || (point - point.round()).abs() < 1e-9);
        points
    }

    fn range(&self) -> Range<f64> {
        self.axis.range()
    }
}

/// A range with some room around the values.
fn range(values: impl Iterator<Item = f64>, logarithmic: bool) -> Range<f64> {
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
    match (least <= most, logarithmic) {
        (false, _) => 0.1..10.0,
        (true, true) => least / 1.2..most * 1.2,
        (true, false) => {
            let room = if most > least { 0.05 * (most - least) } else { 1.0 };
            least - room..most + room
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_have_axes_and_a_legend() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let draw = |horizontal: &str, vertical: &str, curves: &[Curve]| {
            super::draw(SIZE, &[logarithmic(horizontal, vertical, curves)])
        };
        let svg = draw(
            "non-zeros",
            "error",
            &[curve("first", &[(1.0, 2.0), (10.0, 0.5), (0.0, f64::NAN)]), curve("none", &[])],
        )
        .unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for word in ["non-zeros", "error", "first", "none", "polyline"] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        assert!(draw("x", "y", &[curve("a point", &[(1.0, 1.0)])]).is_ok());
    }

    #[test]
    fn what_is_counted_has_whole_numbers() {
        let points = vec![(1.0, 0.5), (2.0, 0.75), (3.0, 0.5)];
        let panel = |horizontal| Panel {
            title: String::new(),
            horizontal,
            vertical: Axis::linear("error"),
            lines: vec![Line {
                curve: Curve { name: String::new(), points: points.clone() },
                colour: 0,
                dashed: false,
            }],
        };
        let drawn = |horizontal| super::draw(SIZE, &[panel(horizontal)]).unwrap();
        let (whole, linear) = (drawn(Axis::whole("layer")), drawn(Axis::linear("layer")));
        let names = |svg: &str, number: &str| svg.lines().any(|line| line.trim() == number);
        assert!(["1", "2", "3"].iter().all(|number| names(&whole, number)), "{whole}");
        assert!(!names(&whole, "1.2") && names(&linear, "1.2"), "{linear}");
    }

    #[test]
    fn panels_stand_side_by_side() {
        let line = |name: &str, dashed| Line {
            curve: Curve { name: name.into(), points: vec![(0.0, 0.0), (1.0, 1.0)] },
            colour: 0,
            dashed,
        };
        let panel = |title: &str, vertical| Panel {
            title: title.into(),
            horizontal: Axis::linear("share"),
            vertical,
            lines: vec![line("measured", false), line("", true)],
        };
        let svg =
            super::draw((1200, 600), &[panel("left", Axis::linear("up")), panel("right", Axis::logarithmic("up"))]);
        let svg = svg.unwrap();
        for word in ["left", "right", "measured", "share", "width=\"1322\""] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
        // The dashed line is many short ones, and there is one legend.
        assert!(svg.matches("polyline").count() > 10);
        assert_eq!(svg.matches("measured").count(), 1);
    }
}
