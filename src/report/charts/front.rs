//! The Pareto front: what nothing else beats in both cost and KL.

use plotly::Scatter;
use plotly::common::{HoverInfo, Line, LineShape, Mode};

use crate::report::style;

/// Positions of the points that no other point beats: none costs no more and is no worse, and better in one. By cost.
///
/// A cost of which more is better, such as parameters removed, is passed with its sign turned.
pub fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0).then(points[a].1.total_cmp(&points[b].1)));
    let mut best = f64::INFINITY;
    order.retain(|&at| {
        let better = points[at].1 < best;
        best = best.min(points[at].1);
        better
    });
    order
}

/// The front as a step line, to be drawn under the points; `None` for fewer than two points.
pub fn line(points: Vec<(f64, f64)>, shape: LineShape) -> Option<Box<Scatter<f64, f64>>> {
    (points.len() > 1).then(|| {
        let (x, y) = points.into_iter().unzip();
        Scatter::new(x, y)
            .name("Pareto front")
            .mode(Mode::Lines)
            .line(Line::new().color(style::REFERENCE).width(1.0).shape(shape))
            .hover_info(HoverInfo::Skip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_beaten_is_left_out() {
        let points = [(3.0, 0.1), (1.0, 0.5), (2.0, 0.5), (2.0, 0.3), (4.0, 0.2)];
        assert_eq!(front(&points), [1, 3, 0]);
        assert!(front(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn exactly_the_unbeaten_values_stay(points in prop::collection::vec((0u8..20, 0u8..20), 1..40)) {
            let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
            let beats = |a: &(f64, f64), b: &(f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
            let kept = front(&points);
            for (at, point) in points.iter().enumerate() {
                let beaten = points.iter().any(|other| beats(other, point));
                // Equal points are drawn once.
                let there = kept.iter().any(|&other| points[other] == *point);
                prop_assert_eq!(there, !beaten, "point {}", at);
            }
        }
    }
}
