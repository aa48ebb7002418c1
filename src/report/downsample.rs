//! Fewer points for the same picture.

/// Indices of the points that keep a curve's shape: Largest-Triangle-Three-Buckets
/// (Steinarsson, "Downsampling Time Series for Visual Representation", 2013).
///
/// The first and the last point always stay; of every bucket between, the point that spans the largest triangle with
/// the point chosen before and the mean of the next bucket. All indices are kept when `points.len() <= limit`.
/// `limit` below 3 counts as 3. Coordinates must be finite.
pub fn largest_triangles(points: &[(f64, f64)], limit: usize) -> Vec<usize> {
    let limit = limit.max(3);
    if points.len() <= limit {
        return (0..points.len()).collect();
    }
    let last = points.len() - 1;
    let buckets = limit - 2;
    // Bucket i covers edge(i)..edge(i + 1) of the inner points 1..last; the last "bucket" is the last point.
    let edge = |bucket: usize| 1 + bucket * (last - 1) / buckets;
    let mut kept = Vec::with_capacity(limit);
    kept.push(0);
    let mut before = points[0];
    for bucket in 0..buckets {
        let after = match edge(bucket + 1) {
            end if end == last => points[last],
            end => mean(&points[end..edge(bucket + 2).min(last)]),
        };
        let area = |at: usize| {
            let here = points[at];
            ((before.0 - after.0) * (here.1 - before.1) - (before.0 - here.0) * (after.1 - before.1)).abs()
        };
        let best = (edge(bucket)..edge(bucket + 1)).max_by(|&a, &b| area(a).total_cmp(&area(b)));
        if let Some(best) = best {
            kept.push(best);
            before = points[best];
        }
    }
    kept.push(last);
    kept
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    (x / n, y / n)
}

/// The average of `values` around each, weighted by `2^(-distance / half_life)`. It looks to both sides, so that the
/// line does not lag behind its points.
pub fn smooth(values: &[f64], half_life: f64) -> Vec<f64> {
    let beta = 0.5f64.powf(1.0 / half_life.max(1e-6));
    // Sums of weighted values and of weights over one side, the value itself included.
    let sums = |(sum, weight): &mut (f64, f64), value: &f64| {
        (*sum, *weight) = (*sum * beta + value, *weight * beta + 1.0);
        Some((*sum, *weight))
    };
    let before: Vec<_> = values.iter().scan((0.0, 0.0), sums).collect();
    let after: Vec<_> = values.iter().rev().scan((0.0, 0.0), sums).collect();
    let both = before.iter().zip(after.iter().rev()).zip(values);
    both.map(|((before, after), value)| (before.0 + after.0 - value) / (before.1 + after.1 - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ends_order_and_limit() {
        for (n, limit) in [(10, 1000), (1000, 1000), (1001, 1000), (54_321, 1000), (7, 3), (5, 0)] {
            let points: Vec<_> = (0..n).map(|i| (i as f64, (i as f64 / 40.0).sin())).collect();
            let kept = largest_triangles(&points, limit);
            assert_eq!(kept.len(), n.min(limit.max(3)), "{n} points, at most {limit}");
            assert_eq!((kept[0], kept[kept.len() - 1]), (0, n - 1));
            assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert!(largest_triangles(&[], 10).is_empty());
    }

    #[test]
    fn keeps_a_lone_spike() {
        let points: Vec<_> = (0..10_000).map(|i| (i as f64, if i == 4321 { 9.0 } else { 0.0 })).collect();
        assert!(largest_triangles(&points, 100).contains(&4321));
    }

    #[test]
    fn smoothing_keeps_a_constant_and_does_not_lag() {
        assert!(smooth(&[2.0; 20], 5.0).iter().all(|value| (value - 2.0).abs() < 1e-12));
        let step: Vec<f64> = (0..200).map(|i| if i < 100 { 0.0 } else { 1.0 }).collect();
        let smoothed = smooth(&step, 4.0);
        assert!((smoothed[99] + smoothed[100] - 1.0).abs() < 1e-6, "half the way at the step itself");
        assert!(
            (smoothed[103] / smoothed[99] - (1.0 - smoothed[96]) / (1.0 - smoothed[100])).abs() < 1e-6,
            "symmetric"
        );
        assert!(
            ((1.0 - smoothed[104]) / (1.0 - smoothed[100]) - 0.5).abs() < 1e-6,
            "half the rest a half-life later"
        );
        assert!(smoothed[0] < 1e-3 && smoothed[199] > 0.999);
    }
}
