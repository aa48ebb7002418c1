//! Heun's method, the explicit trapezoidal rule, order 2 (K. Heun, Z. Math. Phys. 45, 1900).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("heun"),
    order: 2,
    c: Cow::Borrowed(&[0.0, 1.0]),
    a: Cow::Borrowed(&[1.0]),
    b: Cow::Borrowed(&[0.5, 0.5]),
    b_err: None,
    dense: Dense::Hermite,
};
