//! Title and reading of a chart whose script gives none.

use super::{Kind, Plot};
use crate::report::number::count;

/// `kl against k by method`.
pub fn title(plot: &Plot) -> String {
    let of = |column: &Option<String>| column.clone().unwrap_or_default();
    let by = plot.group.as_ref().map(|group| format!(" by {group}")).unwrap_or_default();
    match plot.kind {
        Kind::Heatmap => format!("{} over {} and {}", of(&plot.value), of(&plot.x), of(&plot.y)),
        Kind::Parallel => plot.columns.join(", "),
        Kind::Box if plot.x.is_none() => format!("{}{by}", of(&plot.y)),
        _ => format!("{} against {}{by}", of(&plot.y), of(&plot.x)),
    }
}

/// A sentence on how to read this kind of chart; `thinned` is how many points a series has that is not drawn in full.
pub fn reading(plot: &Plot, thinned: usize) -> String {
    let sentence = match plot.kind {
        Kind::Line => {
            "rows of equal x are averaged; where there are several, the band is the 95 % interval of the mean by \
             Student's t (of two, their range)."
        }
        Kind::Scatter => "every point is one row; hover to see all of it.",
        Kind::Bar => {
            "a bar is the mean of its rows; where there are several, the line on it is the 95 % interval of the mean by \
             Student's t (of two, their range)."
        }
        Kind::Heatmap => "the brighter a cell, the larger the mean of its rows; an empty cell has no rows.",
        Kind::Box => {
            "the box holds the middle half of the rows, the line in it is the median, the whiskers reach to the last row \
             within 1.5 boxes, and points are rows."
        }
        Kind::Parallel => {
            "every line is one row; drag along an axis to keep only the rows that pass there, drag a name to move its \
             axis. The last axis gives the colour."
        }
    };
    match thinned {
        0 => sentence.to_string(),
        rows => format!(
            "{sentence} The largest series has {} points, of which a part is drawn.",
            count(rows as i64)
        ),
    }
}
