//! Ralston's method: order 2 with the smallest bound on the local error (A. Ralston, Math. Comp. 16, 1962).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("ralston"),
    order: 2,
    c: Cow::Borrowed(&[0.0, 2.0 / 3.0]),
    a: Cow::Borrowed(&[2.0 / 3.0]),
    b: Cow::Borrowed(&[0.25, 0.75]),
    b_err: None,
    dense: Dense::Hermite,
};
