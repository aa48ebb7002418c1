//! The classical method of order 4 (W. Kutta, Z. Math. Phys. 46, 1901).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("rk4"),
    order: 4,
    c: Cow::Borrowed(&[0.0, 0.5, 0.5, 1.0]),
    a: Cow::Borrowed(&[0.5, 0.0, 0.5, 0.0, 0.0, 1.0]),
    b: Cow::Borrowed(&[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0]),
    b_err: None,
    dense: Dense::Hermite,
};
