//! Ranges of training options.

use anyhow::{Result, ensure};

pub(super) fn positive(name: &str, x: f64) -> Result<()> {
    ensure!(x.is_finite() && x > 0.0, "{name} = {x}, but it must be a positive number");
    Ok(())
}

pub(super) fn not_negative(name: &str, x: f64) -> Result<()> {
    ensure!(x.is_finite() && x >= 0.0, "{name} = {x}, but it must not be negative");
    Ok(())
}

/// 0 ≤ x < 1.
pub(super) fn share(name: &str, x: f64) -> Result<()> {
    ensure!((0.0..1.0).contains(&x), "{name} = {x}, but it must lie in 0 ≤ {name} < 1");
    Ok(())
}
