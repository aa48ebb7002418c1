//! The explicit midpoint method, order 2 (eq. 5 of the paper).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("midpoint"),
    order: 2,
    c: Cow::Borrowed(&[0.0, 0.5]),
    a: Cow::Borrowed(&[0.5]),
    b: Cow::Borrowed(&[0.0, 1.0]),
    b_err: None,
    dense: Dense::Hermite,
};
