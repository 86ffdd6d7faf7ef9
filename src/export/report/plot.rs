//! Curves as pages draw them.

use super::shown;
use serde_json::{Value, json};

/// Where the plot lies in its picture: left, right, top and bottom.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 352.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 160.0;

/// Most numbers along a logarithmic axis.
const TICKS: usize = 8;

/// The steps of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Whole numbers, as epochs are.
    Whole,
    /// Equal ones.
    Linear,
    /// Powers of ten: points that are not positive are left out.
    Logarithmic,
}

/// A point with what is said of it besides its place; may be empty.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    pub note: String,
}

/// Points in the order in which they are joined.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

impl Line {
    /// Of points of which nothing more is said.
    pub fn new(name: String, points: Vec<(f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| Point { x, y, note: String::new() }).collect();
        Self { name, points }
    }
}

/// One axis laid over pixels.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Around some values, with room of that part of their range on both sides; `None` where there are none.
    fn new(scale: Scale, values: impl Iterator<Item = f64>, room: f64, [from, to]: [f64; 2]) -> Option<Self> {
        let bent = values.map(|value| bend(scale, value));
        let (low, high) =
            bent.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !(low.is_finite() && high.is_finite()) {
            return None;
        }
        let least = low;
        let (low, high) = match (high > low, scale) {
            (true, _) => (low - room * (high - low), high + room * (high - low)),
            (false, Scale::Whole) => (low, low + 1.0),
            // A line that is level lies in the middle.
            (false, Scale::Logarithmic) => (low - 0.3, high + 0.3),
            (false, Scale::Linear) if high == 0.0 => (0.0, 1.0),
            (false, Scale::Linear) => (low - 0.5 * high.abs(), high + 0.5 * high.abs()),
        };
        // Of what is never negative no negative number is named.
        let low = if scale == Scale::Linear && least >= 0.0 { low.max(0.0) } else { low };
        Some(Self { scale, low, high, from, to })
    }

    fn place(&self, value: f64) -> f64 {
        (self.from + (self.to - self.from) * (bend(self.scale, value) - self.low) / (self.high - self.low)).round()
    }

    fn ticks(&self) -> Vec<Value> {
        let (low, high) = (self.low, self.high);
        let values: Vec<f64> = match self.scale {
            Scale::Whole => {
                let steps = (high - low).round().clamp(1.0, 5.0) as i32;
                (0..=steps).map(|step| (low + (high - low) * f64::from(step) / f64::from(steps)).round()).collect()
            }
            Scale::Linear => multiples(low, high),
            Scale::Logarithmic => powers(low, high),
        };
        values.into_iter().map(|value| json!({ "at": self.place(value), "text": plain(value) })).collect()
    }
}

/// A value as far along as its axis has it.
fn bend(scale: Scale, value: f64) -> f64 {
    if scale == Scale::Logarithmic { value.log10() } else { value }
}

/// A number without digits that say nothing.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-3..1e5).contains(&size) => format!("{value:.0e}"),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// Multiples of a round number between two numbers.
fn multiples(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let between = |step: f64| (low / step).ceil() as i64..=(high / step).floor() as i64;
    // The largest of which there are three: fewer say nothing of the scale.
    let steps = [10.0, 5.0, 2.0, 1.0, 0.5, 0.2].into_iter().map(|times| times * power);
    let step = steps.clone().find(|step| between(*step).count() >= 3).unwrap_or(rough);
    let all = between(step).map(|times| times as f64 * step);
    all.take(TICKS).collect()
}

/// Round numbers between two powers of ten: as many as can be read.
fn powers(low: f64, high: f64) -> Vec<f64> {
    let between = |times: &[f64]| -> Vec<f64> {
        let all = (low.floor() as i32..=high.ceil() as i32)
            .flat_map(|power| times.iter().map(move |times| times * 10f64.powi(power)));
        all.filter(|value| (low..=high).contains(&value.log10())).collect()
    };
    let all = [&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0][..], &[1.0, 2.0, 5.0], &[1.0]].map(between);
    let found = all.iter().find(|found| found.len() <= TICKS).unwrap_or(&all[2]);
    let every = found.len().div_ceil(TICKS).max(1);
    found.iter().copied().step_by(every).collect()
}

/// What a plot is of.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    /// What is to the right.
    pub across: &'a str,
    pub scales: [Scale; 2],
}

impl Plot<'_> {
    /// The plot of some lines; `None` where none has a point.
    pub fn draw(&self, lines: Vec<Line>) -> Option<Value> {
        let [horizontal, vertical] = self.scales;
        let shows = |scale: Scale, value: f64| bend(scale, value).is_finite();
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|Line { name, mut points }| {
                points.retain(|point| shows(horizontal, point.x) && shows(vertical, point.y));
                Line { name, points }
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        let room = if horizontal == Scale::Whole { 0.0 } else { 0.03 };
        let across = Axis::new(horizontal, points().map(|point| point.x), room, [LEFT, RIGHT])?;
        let up = Axis::new(vertical, points().map(|point| point.y), 0.06, [BOTTOM, TOP])?;
        Some(json!({
            "title": self.title,
            "across": self.across,
            "ups": up.ticks(),
            "acrosses": across.ticks(),
            "lines": lines.iter().map(|line| self.line(line, &across, &up)).collect::<Value>(),
        }))
    }

    fn line(&self, line: &Line, across: &Axis, up: &Axis) -> Value {
        let number = |value: f64| if value == value.round() { plain(value) } else { shown(value) };
        let dot = |point: &Point| {
            let note = if point.note.is_empty() { String::new() } else { format!(" ({})", point.note) };
            let text = format!("{}, {} {}: {}{note}", line.name, self.across, number(point.x), shown(point.y));
            json!({ "x": across.place(point.x), "y": up.place(point.y), "text": text })
        };
        let path = line.points.iter().map(|point| format!("{},{}", across.place(point.x), up.place(point.y)));
        json!({
            "name": line.name,
            "points": path.collect::<Vec<_>>().join(" "),
            "dots": line.points.iter().map(dot).collect::<Value>(),
        })
    }
}

/// Bars over counts by name, as high as the largest count allows.
pub(super) fn bars(counts: &[(String, usize)]) -> Value {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    counts.iter().map(|(name, count)| json!({ "count": count, "height": 100 * count / most, "name": name })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scales: [Scale; 2], points: Vec<(f64, f64)>) -> Option<Value> {
        Plot { title: "", across: "epoch", scales }.draw(vec![Line::new("a".into(), points)])
    }

    #[test]
    fn plots_of_odd_values() {
        let linear = [Scale::Whole, Scale::Linear];
        assert!(plot(linear, Vec::new()).is_none());
        assert!(plot(linear, vec![(1.0, f64::NAN)]).is_none());
        let level = plot(linear, vec![(1.0, 0.0), (2.0, 0.0)]).unwrap();
        assert_eq!(level["lines"][0]["dots"][0]["y"], 160.0);
        assert_eq!(level["lines"][0]["dots"][1]["text"], "a, epoch 2: 0");
        assert!(plot(linear, vec![(1.0, 3.0)]).is_some());
    }

    #[test]
    fn powers_of_ten_are_named() {
        let plot = plot([Scale::Logarithmic; 2], vec![(0.0, 1.0), (1.0, 10.0), (55.0, 10.0), (100.0, 1000.0)]).unwrap();
        assert_eq!(plot["lines"][0]["dots"].as_array().unwrap().len(), 3);
        let texts = |key: &str| -> Vec<String> {
            plot[key].as_array().unwrap().iter().map(|tick| tick["text"].as_str().unwrap().into()).collect()
        };
        assert_eq!(texts("acrosses"), ["1", "2", "5", "10", "20", "50", "100"]);
        assert_eq!(texts("ups"), ["10", "20", "50", "100", "200", "500", "1000"]);
        assert_eq!(powers(0.35, 0.72), [3.0, 4.0, 5.0]);
        assert_eq!(powers(-0.1, 2.3), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(multiples(-0.5, 136.3), [0.0, 50.0, 100.0]);
        assert_eq!(multiples(0.2, 0.31).len(), 3);
        assert!(powers(-9.0, 9.0).len() <= TICKS);
    }
}
