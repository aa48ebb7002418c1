//! Bogacki and Shampine's pair of orders 3(2) (P. Bogacki & L. F. Shampine, Appl. Math. Lett. 2(4), 1989).

use std::borrow::Cow;

use super::tableau::{Dense, Tableau};

pub(super) static TABLEAU: Tableau = Tableau {
    name: Cow::Borrowed("bosh3"),
    order: 3,
    c: Cow::Borrowed(&[0.0, 0.5, 0.75, 1.0]),
    a: Cow::Borrowed(&[0.5, 0.0, 0.75, 2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]),
    b: Cow::Borrowed(&[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0, 0.0]),
    b_err: Some(Cow::Borrowed(&[-5.0 / 72.0, 1.0 / 12.0, 1.0 / 9.0, -0.125])),
    dense: Dense::Hermite,
};
