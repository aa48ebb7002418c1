//! Axes with ticks that can be read.

use plotly::Layout;
use plotly::common::{Anchor, Font, Orientation, Title};
use plotly::layout::{Axis, AxisType, HoverMode, Legend, Margin};

use crate::report::number;

/// Room for the names of reference lines, as a share of the axis.
const NAME_SPACE: f64 = 0.16;

/// Whether a logarithmic axis shows these values better: all positive and over more than a factor of five.
pub fn wants_log(values: &[f64]) -> bool {
    let (low, high) = extent(values);
    low > 0.0 && high / low > 5.0
}

/// A linear axis.
pub fn linear(title: &str) -> Axis {
    Axis::new()
        .title(Title::with_text(title).font(Font::new().size(13)))
        .auto_margin(true)
        .zero_line(false)
        .show_line(true)
}

/// A logarithmic axis for positive values, with ticks at 1, 2 and 5 times the powers of ten, or at the powers alone
/// where they span many: Plotly's own ticks write "2" and "5" beside "0.1".
pub fn logarithmic(title: &str, values: &[f64]) -> Axis {
    let (low, high) = extent(values);
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let digits: &[f64] = if last - first > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let ticks: Vec<f64> = (first - 1..=last)
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
        .collect();
    let text = ticks.iter().map(|tick| short(*tick)).collect();
    linear(&format!("{title}, log scale")).type_(AxisType::Log).tick_values(ticks).tick_text(text)
}

/// Whichever of the two shows the values better.
pub fn fitting(title: &str, values: &[f64]) -> Axis {
    if wants_log(values) { logarithmic(title, values) } else { linear(title) }
}

/// Numbers of steps: every number that occurs is a tick. Also returns where reference lines begin: left of the first
/// number, so that their names stand clear of the curves.
pub fn steps(title: &str, ks: &[i64]) -> (Axis, f64) {
    let values: Vec<f64> = ks.iter().map(|k| *k as f64).collect();
    let (low, high) = extent(&values);
    let spread = wants_log(&values);
    let axis = linear(title).tick_values(values).tick_text(ks.iter().map(|k| k.to_string()).collect());
    match spread {
        true => (axis.type_(AxisType::Log), low * (low / high).powf(NAME_SPACE)),
        false => (axis, low - NAME_SPACE * (high - low).max(1.0)),
    }
}

fn short(value: f64) -> String {
    match value {
        ..1e-4 | 1e7.. => format!("{value:.0e}"),
        ..1.0 => number::trimmed(value),
        _ => number::count(value.round() as i64),
    }
}

fn extent(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// The layout that all charts share; colours come from the page's theme when it is opened.
pub fn layout(x: Axis, y: Axis) -> Layout {
    Layout::new()
        .auto_size(true)
        .hover_mode(HoverMode::Closest)
        .margin(Margin::new().left(64).right(80).top(30).bottom(48))
        .legend(
            Legend::new()
                .orientation(Orientation::Horizontal)
                .x(0.0)
                .y(0.0)
                .y_anchor(Anchor::Bottom)
                .font(Font::new().size(12)),
        )
        .x_axis(x)
        .y_axis(y)
}

/// Keeps names in a chart from covering each other: a name is drawn only where there is room.
pub struct Labels {
    log: bool,
    /// The least distance, in units of the axis.
    gap: f64,
    placed: Vec<f64>,
}

impl Labels {
    /// For an axis that shows these values.
    pub fn new(values: &[f64]) -> Self {
        let log = wants_log(values);
        let heights = values.iter().map(|value| if log { value.log10() } else { *value });
        let (low, high) = heights.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        Self { log, gap: (high - low) * 0.055, placed: Vec::new() }
    }

    /// Whether there is room for a name at this value; takes it if so.
    pub fn place(&mut self, value: f64) -> bool {
        let height = if self.log { value.log10() } else { value };
        let free = self.placed.iter().all(|other| (other - height).abs() >= self.gap);
        if free {
            self.placed.push(height);
        }
        free
    }
}
