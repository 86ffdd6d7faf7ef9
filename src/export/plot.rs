//! Curves as SVG pictures.

use crate::error::{Error, Result};
use crate::files;
use crate::pursuit::comparison::Row;
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
    let drawn = draw(horizontal, vertical, curves).map_err(|reason| Error::format(path, reason))?;
    files::write_bytes(path, drawn.as_bytes())
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

fn draw(horizontal: &str, vertical: &str, curves: &[Curve]) -> Result<String, String> {
    let shown: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|curve| {
            let shows = |(x, y): &(f64, f64)| *x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite();
            curve.points.iter().copied().filter(shows).collect()
        })
        .collect();
    let all = || shown.iter().flatten();
    let (across, up) = (range(all().map(|point| point.0)), range(all().map(|point| point.1)));
    let mut svg = String::new();
    let drawing = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(20)
            .x_label_area_size(50)
            .y_label_area_size(75)
            .build_cartesian_2d(across.log_scale(), up.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(horizontal)
            .y_desc(vertical)
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 18))
            .x_label_formatter(&|value| format!("{value}"))
            .y_label_formatter(&|value| format!("{value}"))
            .draw()?;
        for (index, (curve, points)) in curves.iter().zip(shown.iter()).enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4))?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 16))
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    };
    drawing().map_err(|error| format!("not drawn: {error}"))?;
    Ok(svg)
}

/// A range with some room around positive values.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) =
        values.fold((f64::INFINITY, 0.0f64), |(least, most), value| (least.min(value), most.max(value)));
    if most == 0.0 { 0.1..10.0 } else { least / 1.2..most * 1.2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_have_axes_and_a_legend() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
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
}
