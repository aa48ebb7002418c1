//! Euler's method, order 1 (eq. 4 of the paper).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("euler"),
    order: 1,
    c: Cow::Borrowed(&[0.0]),
    a: Cow::Borrowed(&[]),
    b: Cow::Borrowed(&[1.0]),
    b_err: None,
    dense: Dense::Hermite,
};
