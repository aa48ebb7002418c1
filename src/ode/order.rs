//! The order of a Runge–Kutta method from its coefficients.

use super::tableau::Tableau;

/// Residuals above this are no rounding of coefficients given to 15 digits.
const TOLERANCE: f64 = 1e-12;

/// The highest order whose conditions are checked here.
pub(super) const HIGHEST: u32 = 5;

/// The order that weights `w` reach at `θ = (t − t₀)/h`, at most [`HIGHEST`]: up to it, `Σ w·φ = θ^p/γ` for
/// every rooted tree of p nodes (Hairer, Nørsett & Wanner, Solving ODEs I, table II.2.2).
pub(super) fn order(tableau: &Tableau, w: &[f64], theta: f64) -> u32 {
    let failing = residuals(tableau, w, theta).into_iter().filter(|(_, r)| *r > TOLERANCE).map(|(p, _)| p);
    failing.min().map_or(HIGHEST, |p| p - 1)
}

/// Pairs (p, residual), one a tree.
fn residuals(tableau: &Tableau, w: &[f64], theta: f64) -> Vec<(u32, f64)> {
    let c = &tableau.c;
    let apply = |v: &[f64]| -> Vec<f64> {
        (0..c.len()).map(|i| tableau.row(i).iter().zip(v).map(|(a, v)| a * v).sum()).collect()
    };
    let times = |u: &[f64], v: &[f64]| -> Vec<f64> { u.iter().zip(v).map(|(u, v)| u * v).collect() };
    let c2 = times(c, c);
    let c3 = times(&c2, c);
    let (ac, ac2, ac3) = (apply(c), apply(&c2), apply(&c3));
    let aac = apply(&ac);
    let trees: [(u32, f64, Vec<f64>); 17] = [
        (1, 1.0, vec![1.0; c.len()]),
        (2, 2.0, c.to_vec()),
        (3, 3.0, c2.clone()),
        (3, 6.0, ac.clone()),
        (4, 4.0, c3.clone()),
        (4, 8.0, times(c, &ac)),
        (4, 12.0, ac2.clone()),
        (4, 24.0, aac.clone()),
        (5, 5.0, times(&c3, c)),
        (5, 10.0, times(&c2, &ac)),
        (5, 15.0, times(c, &ac2)),
        (5, 20.0, times(&ac, &ac)),
        (5, 20.0, ac3),
        (5, 30.0, times(c, &aac)),
        (5, 40.0, apply(&times(c, &ac))),
        (5, 60.0, apply(&ac2)),
        (5, 120.0, apply(&aac)),
    ];
    let residual = |(p, gamma, phi): (u32, f64, Vec<f64>)| {
        let sum: f64 = w.iter().zip(&phi).map(|(w, phi)| w * phi).sum();
        (p, (sum - theta.powi(p as i32) / gamma).abs())
    };
    trees.into_iter().map(residual).collect()
}
