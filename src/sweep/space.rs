//! The configurations of a sweep: all combinations of lists, or random draws.

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value as Json};

/// Names with their values, by name.
pub type Config = Map<String, Json>;

/// Points of a grid at most; more are a slip of the pen.
const MOST: usize = 100_000;
/// Draws that may repeat an earlier point, for each point wanted.
const PATIENCE: usize = 100;

/// What one name may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Dimension {
    /// One of these.
    Choice(Vec<Json>),
    /// A number between two others: uniform, or uniform in its logarithm, and whole where both ends are.
    Range { low: f64, high: f64, log: bool, whole: bool },
}

/// Every name with what it may be, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Space(Vec<(String, Dimension)>);

impl Space {
    /// A space of these dimensions.
    ///
    /// # Errors
    /// Lists without values and ranges that are empty, not finite, or logarithmic and not positive.
    pub fn new(mut dimensions: Vec<(String, Dimension)>) -> Result<Self> {
        ensure!(!dimensions.is_empty(), "there is nothing to vary");
        dimensions.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, dimension) in &dimensions {
            match dimension {
                Dimension::Choice(values) => ensure!(!values.is_empty(), "'{name}' has no values"),
                Dimension::Range { low, high, log, .. } => {
                    ensure!(
                        low.is_finite() && high.is_finite() && low < high,
                        "'{name}' must reach from a number to a larger one, found {low} to {high}"
                    );
                    ensure!(!log || *low > 0.0, "'{name}' is logarithmic and must be positive, found {low}");
                }
            }
        }
        Ok(Self(dimensions))
    }

    /// All combinations of the lists; the last name varies fastest.
    ///
    /// # Errors
    /// Ranges, which have no combinations, and more than 100,000 points.
    pub fn grid(&self) -> Result<Vec<Config>> {
        let mut points = vec![Config::new()];
        for (name, dimension) in &self.0 {
            let Dimension::Choice(values) = dimension else {
                anyhow::bail!("'{name}' is a range; a grid needs a list of values");
            };
            ensure!(
                points.len().saturating_mul(values.len()) <= MOST,
                "the grid has more than {MOST} points"
            );
            let extended = points.iter().flat_map(|point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.insert(name.clone(), value.clone());
                    point
                })
            });
            points = extended.collect();
        }
        Ok(points)
    }

    /// `count` different random points, fewer where the lists have no more. The first points do not depend on
    /// `count`, so that a longer sweep goes on where a shorter one ended.
    pub fn random(&self, count: usize, seed: u64) -> Vec<Config> {
        let mut points: Vec<Config> = Vec::new();
        for draw in 0..count.saturating_mul(PATIENCE) {
            if points.len() == count {
                break;
            }
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(draw as u64);
            let point: Config =
                self.0.iter().map(|(name, dimension)| (name.clone(), dimension.draw(&mut rng))).collect();
            if !points.contains(&point) {
                points.push(point);
            }
        }
        points
    }
}

impl Dimension {
    fn draw(&self, rng: &mut ChaCha8Rng) -> Json {
        match self {
            Self::Choice(values) => values[rng.random_range(0..values.len())].clone(),
            Self::Range { low, high, whole: true, log: false } => {
                Json::from(rng.random_range(*low as i64..=*high as i64))
            }
            Self::Range { low, high, log, whole } => {
                let share: f64 = rng.random();
                let value = if *log { low * (high / low).powf(share) } else { low + (high - low) * share };
                if *whole { Json::from(value.round() as i64) } else { Json::from(value) }
            }
        }
    }
}

/// `lr=0.001,walk=3`.
pub fn label(config: &Config) -> String {
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let parts: Vec<String> = config.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn choice(name: &str, values: &[Json]) -> (String, Dimension) {
        (name.to_owned(), Dimension::Choice(values.to_vec()))
    }

    fn range(name: &str, low: f64, high: f64, log: bool, whole: bool) -> (String, Dimension) {
        (name.to_owned(), Dimension::Range { low, high, log, whole })
    }

    #[test]
    fn a_grid_is_every_combination_in_the_order_of_the_names() -> Result<()> {
        let space =
            Space::new(vec![choice("walk", &[json!(1), json!(3)]), choice("lr", &[json!(0.1), json!("x")])])?;
        let labels: Vec<String> = space.grid()?.iter().map(label).collect();
        assert_eq!(labels, ["lr=0.1,walk=1", "lr=0.1,walk=3", "lr=x,walk=1", "lr=x,walk=3"]);
        Ok(())
    }

    #[test]
    fn mistakes_are_named() -> Result<()> {
        let refused = |dimension| Space::new(vec![dimension]).unwrap_err().to_string();
        assert!(Space::new(vec![]).is_err());
        assert_eq!(refused(choice("lr", &[])), "'lr' has no values");
        assert!(refused(range("lr", 2.0, 1.0, false, false)).contains("found 2 to 1"));
        assert!(refused(range("lr", 0.0, 1.0, true, false)).contains("must be positive"));
        let grid = |dimension| Space::new(vec![dimension])?.grid();
        assert!(grid(range("lr", 0.0, 1.0, false, false)).unwrap_err().to_string().contains("is a range"));
        let many: Vec<Json> = (0..400).map(Json::from).collect();
        let huge = Space::new(vec![choice("a", &many), choice("b", &many)])?;
        assert!(huge.grid().unwrap_err().to_string().contains("more than 100000 points"));
        Ok(())
    }

    #[test]
    fn small_spaces_give_every_point_once() -> Result<()> {
        let space = Space::new(vec![choice("a", &[json!(1), json!(2)]), choice("b", &[json!(1), json!(2)])])?;
        assert_eq!(space.random(50, 0).len(), 4);
        Ok(())
    }

    proptest! {
        #[test]
        fn random_points_lie_inside_and_a_longer_sweep_begins_as_a_shorter_one(
            low in 1e-6..1.0f64, factor in 1.5..1e4f64, seed: u64, log: bool,
        ) {
            let high = low * factor;
            let space = Space::new(vec![
                range("lr", low, high, log, false),
                range("walk", 1.0, 4.0, false, true),
                choice("method", &[json!("fm"), json!("fw")]),
            ]).unwrap();
            let points = space.random(6, seed);
            prop_assert_eq!(points.len(), 6);
            prop_assert_eq!(&space.random(3, seed)[..], &points[..3]);
            for point in points {
                let lr = point["lr"].as_f64().unwrap();
                prop_assert!(low <= lr && lr <= high * (1.0 + 1e-12), "{}", lr);
                prop_assert!((1..=4).contains(&point["walk"].as_i64().unwrap()));
            }
        }
    }
}
