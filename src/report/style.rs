//! One look for all charts: the same colour for the same method, dash and marker for the solver.

use plotly::common::{DashType, MarkerSymbol};

/// Skip baselines and other references: readable on white and on black.
pub const REFERENCE: &str = "#808080";

/// The colours of Okabe and Ito ("Color Universal Design", 2008), which colour-blind readers tell apart;
/// those that are faint on white come last, and yellow and black, which vanish in one of the themes, not at all.
const PALETTE: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];

/// The methods of this program, which keep their colours in every report.
const METHODS: [&str; 4] = ["fm", "fw", "hybrid", "regression"];

/// The colour of a method; others get the remaining colours by their position among `others`.
pub fn colour(method: &str, others: &[String]) -> &'static str {
    let at = METHODS.iter().position(|known| *known == method).unwrap_or_else(|| {
        let rank = others.iter().filter(|other| !METHODS.contains(&other.as_str())).position(|o| o == method);
        METHODS.len() + rank.unwrap_or(0)
    });
    PALETTE[at % PALETTE.len()]
}

/// A colour `#rrggbb` seen through: for bands under curves, which may lie over each other.
pub fn faint(colour: &str) -> String {
    let part =
        |at: usize| colour.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(128);
    format!("rgba({},{},{},0.18)", part(1), part(3), part(5))
}

/// The colour of the series at a position, where series are no methods.
pub fn nth(at: usize) -> &'static str {
    PALETTE[at % PALETTE.len()]
}

/// The dash and the marker of a solver.
pub fn stroke(solver: &str) -> (DashType, MarkerSymbol) {
    match solver {
        "" | "euler" => (DashType::Solid, MarkerSymbol::Circle),
        "midpoint" => (DashType::Dash, MarkerSymbol::Square),
        "heun" => (DashType::Dot, MarkerSymbol::Diamond),
        "ralston" => (DashType::DashDot, MarkerSymbol::TriangleUp),
        "rk4" => (DashType::LongDash, MarkerSymbol::Cross),
        "bosh3" => (DashType::LongDashDot, MarkerSymbol::TriangleDown),
        "tsit5" => (DashType::LongDashDot, MarkerSymbol::Star),
        _ => (DashType::LongDashDot, MarkerSymbol::X),
    }
}

/// Text for Plotly, which reads a few HTML tags in labels: user text must stay text.
pub fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_keep_their_colours() {
        let others = ["mine".to_string(), "fw".to_string(), "yours".to_string()];
        assert_eq!(colour("fw", &[]), colour("fw", &others));
        let drawn: Vec<_> =
            ["fm", "fw", "hybrid", "regression", "mine", "yours"].map(|m| colour(m, &others)).into();
        assert!(drawn.iter().enumerate().all(|(i, c)| !drawn[..i].contains(c)), "six different colours");
    }

    #[test]
    fn bands_are_seen_through() {
        assert_eq!(faint("#0072B2"), "rgba(0,114,178,0.18)");
    }

    #[test]
    fn labels_hold_no_tags() {
        assert_eq!(plain("<a href=\"x\">&"), "&lt;a href=\"x\"&gt;&amp;");
    }
}
