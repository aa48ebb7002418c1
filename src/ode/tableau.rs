//! Coefficients of explicit Runge–Kutta methods.

use std::borrow::Cow;

use super::error::{Error, Result};
use super::order::order;

/// An explicit Runge–Kutta method of `s` stages as data (a Butcher tableau):
///
/// `kᵢ = f(x + h·Σ_{j<i} a_ij·k_j, t + c_i·h)`, `x₁ = x + h·Σ b_i·k_i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tableau {
    pub(super) name: Cow<'static, str>,
    /// Order of `b`: the local error is O(h^(order+1)).
    pub(super) order: u32,
    pub(super) c: Cow<'static, [f64]>,
    /// The strictly lower triangle of `a`, row after row: explicit by construction.
    pub(super) a: Cow<'static, [f64]>,
    pub(super) b: Cow<'static, [f64]>,
    /// `b` minus the weights of the embedded method; `None` for fixed-step methods.
    pub(super) b_err: Option<Cow<'static, [f64]>>,
    pub(super) dense: Dense,
}

/// How a method interpolates within a step, `θ = (t − t₀)/h`.
#[derive(Debug, Clone, PartialEq)]
pub enum Dense {
    /// Cubic Hermite through the two end points and their slopes: third order.
    Hermite,
    /// The method's own: `x(θ) = x₀ + h·Σ_i k_i·Σ_p w_ip·θ^p`, p = 1..4; one row of four a stage.
    Quartic(&'static [[f64; 4]]),
}

/// Coefficients given to 15 digits and more must fulfil the conditions to about that precision.
const TOLERANCE: f64 = 1e-12;

impl Tableau {
    /// Checks and builds a method from its coefficients; `a` holds the strictly lower triangle row after
    /// row, `b_err` the weights of the error estimate (`b` minus the embedded method's).
    ///
    /// # Errors
    /// Lengths that do not fit, coefficients that are not finite, `c_i ≠ Σ_j a_ij`, `Σ b ≠ 1`,
    /// `Σ b_err ≠ 0`, order 0.
    pub fn new(
        name: impl Into<String>,
        order: u32,
        c: Vec<f64>,
        a: Vec<f64>,
        b: Vec<f64>,
        b_err: Option<Vec<f64>>,
    ) -> Result<Self> {
        let tableau = Tableau {
            name: Cow::Owned(name.into()),
            order,
            c: c.into(),
            a: a.into(),
            b: b.into(),
            b_err: b_err.map(Into::into),
            dense: Dense::Hermite,
        };
        tableau.validate()?;
        Ok(tableau)
    }

    /// A method from the table as it is printed: `rows[i]` holds `a_i1, a_i2, …`, where zeros on and above the
    /// diagonal may stand or be left out. The order is worked out, up to 5.
    ///
    /// # Errors
    /// A row that is too short or makes the method implicit, and as [`Tableau::new`].
    pub fn from_rows(
        name: &str,
        c: Vec<f64>,
        rows: &[Vec<f64>],
        b: Vec<f64>,
        b_err: Option<Vec<f64>>,
    ) -> Result<Self> {
        let mut a = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let fail =
                |why: String| Err(Error::Tableau(format!("tableau {name:?}: row {} of a {why}", i + 1)));
            let Some((lower, rest)) = row.split_at_checked(i) else {
                return fail(format!("holds {} coefficients and needs {i}", row.len()));
            };
            if rest.iter().any(|&a| a != 0.0) {
                return fail("reaches the diagonal: the method is implicit".into());
            }
            a.extend_from_slice(lower);
        }
        if rows.len() != c.len() {
            return Err(Error::Tableau(format!(
                "tableau {name:?}: {} nodes c but {} rows of a",
                c.len(),
                rows.len()
            )));
        }
        let mut tableau = Self::new(name, 1, c, a, b, b_err)?;
        tableau.order = order(&tableau, &tableau.b, 1.0).max(1);
        Ok(tableau)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn order(&self) -> u32 {
        self.order
    }

    /// The number of evaluations that define a step.
    pub fn stages(&self) -> usize {
        self.b.len()
    }

    /// Whether the method estimates its error and can choose its steps.
    pub fn is_adaptive(&self) -> bool {
        self.b_err.is_some()
    }

    /// First same as last: the last stage is the slope at the end of the step.
    pub fn is_fsal(&self) -> bool {
        let last = self.stages() - 1;
        last > 0 && self.row(last) == &self.b[..last] && self.b[last] == 0.0
    }

    /// The stages that the new state needs; the error estimate may need more.
    pub(super) fn solution_stages(&self) -> usize {
        self.b.iter().rposition(|&b| b != 0.0).map_or(0, |last| last + 1)
    }

    /// The coefficients `a_ij`, j < i.
    pub(super) fn row(&self, i: usize) -> &[f64] {
        let start = i * i.saturating_sub(1) / 2;
        &self.a[start..start + i]
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fail = |why: String| Err(Error::Tableau(format!("tableau {:?}: {why}", self.name)));
        let stages = self.b.len();
        if stages == 0 || self.order == 0 {
            return fail("a method needs at least one stage and order 1".into());
        }
        let triangle = stages * (stages - 1) / 2;
        if self.c.len() != stages || self.a.len() != triangle {
            return fail(format!(
                "{stages} weights b need {stages} nodes c and {triangle} coefficients a (strictly lower triangle), \
                 not {} and {}",
                self.c.len(),
                self.a.len()
            ));
        }
        let b_err = self.b_err.as_deref().unwrap_or_default();
        if self.b_err.is_some() && b_err.len() != stages {
            return fail(format!("{stages} stages need {stages} error weights, not {}", b_err.len()));
        }
        if let Some(bad) =
            [&self.c, &self.a, &self.b, b_err].iter().flat_map(|v| v.iter()).find(|v| !v.is_finite())
        {
            return fail(format!("{bad} among the coefficients"));
        }
        for i in 0..stages {
            let sum: f64 = self.row(i).iter().sum();
            if (sum - self.c[i]).abs() > TOLERANCE * self.row(i).iter().fold(1.0, |m, a| a.abs().max(m)) {
                return fail(format!("c[{i}] = {} but the row of a sums to {sum}", self.c[i]));
            }
        }
        let sum: f64 = self.b.iter().sum();
        if (sum - 1.0).abs() > TOLERANCE {
            return fail(format!("the weights b sum to {sum}, not to 1"));
        }
        let sum: f64 = b_err.iter().sum();
        if sum.abs() > TOLERANCE {
            return fail(format!("the error weights sum to {sum}, not to 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;

    #[test]
    fn every_tableau_is_valid_and_has_exactly_its_order() {
        for method in Method::ALL {
            let tableau = method.tableau();
            tableau.validate().unwrap();
            assert_eq!(tableau.name(), method.to_string());
            assert_eq!(order(tableau, &tableau.b, 1.0), tableau.order(), "{method}");
            assert_eq!(tableau.is_fsal(), tableau.is_adaptive(), "{method}");
            if let Some(b_err) = &tableau.b_err {
                let embedded: Vec<f64> = tableau.b.iter().zip(b_err.iter()).map(|(b, e)| b - e).collect();
                assert_eq!(order(tableau, &embedded, 1.0), tableau.order() - 1, "{method}");
            }
        }
    }

    #[test]
    fn own_interpolants_are_of_fourth_order_everywhere() {
        let mut found = 0;
        for method in Method::ALL {
            let tableau = method.tableau();
            let Dense::Quartic(rows) = &tableau.dense else { continue };
            found += 1;
            assert_eq!(rows.len(), tableau.stages());
            for theta in [0.1f64, 0.35, 0.5, 0.77, 1.0] {
                let w: Vec<f64> =
                    rows.iter().map(|row| (1..).zip(row).map(|(p, w)| w * theta.powi(p)).sum()).collect();
                assert!(order(tableau, &w, theta) >= 4, "{method} at {theta}");
            }
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn broken_coefficients_are_named() {
        let build = |c: &[f64], a: &[f64], b: &[f64], e: Option<&[f64]>| {
            Tableau::new("own", 2, c.to_vec(), a.to_vec(), b.to_vec(), e.map(<[f64]>::to_vec))
        };
        let kutta3 =
            build(&[0.0, 0.5, 1.0], &[0.5, -1.0, 2.0], &[1.0 / 6.0, 2.0 / 3.0, 1.0 / 6.0], None).unwrap();
        assert_eq!((kutta3.stages(), kutta3.is_fsal(), kutta3.is_adaptive()), (3, false, false));
        for (tableau, expected) in [
            (build(&[], &[], &[], None), "at least one stage"),
            (build(&[0.0, 0.5], &[], &[0.0, 1.0], None), "1 coefficients a"),
            (build(&[0.0, 0.4], &[0.5], &[0.0, 1.0], None), "c[1] = 0.4"),
            (build(&[0.0, 0.5], &[0.5], &[0.0, 0.9], None), "sum to 0.9"),
            (build(&[0.0, 0.5], &[0.5], &[f64::NAN, 1.0], None), "NaN"),
            (build(&[0.0, 0.5], &[0.5], &[0.0, 1.0], Some(&[1.0])), "error weights, not 1"),
            (build(&[0.0, 0.5], &[0.5], &[0.0, 1.0], Some(&[1.0, 0.0])), "not to 0"),
        ] {
            let message = tableau.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn rows_make_a_method_and_its_order_is_found() {
        let build = |rows: &[&[f64]], c: &[f64], b: &[f64], e: Option<&[f64]>| {
            let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
            Tableau::from_rows("own", c.to_vec(), &rows, b.to_vec(), e.map(<[f64]>::to_vec))
        };
        for method in Method::ALL {
            let known = method.tableau();
            let rows: Vec<&[f64]> = (0..known.stages()).map(|i| known.row(i)).collect();
            let own = build(&rows, &known.c, &known.b, known.b_err.as_deref()).unwrap();
            assert_eq!((own.order(), &own.a), (known.order(), &known.a), "{method}");
        }
        let square = build(&[&[0.0, 0.0], &[0.5, 0.0]], &[0.0, 0.5], &[0.0, 1.0], None).unwrap();
        assert_eq!((square.order(), &*square.a), (2, &[0.5][..]));
        for (tableau, expected) in [
            (build(&[&[], &[0.5, 0.5]], &[0.0, 1.0], &[0.5, 0.5], None), "row 2 of a reaches the diagonal"),
            (
                build(&[&[], &[]], &[0.0, 0.5], &[0.0, 1.0], None),
                "row 2 of a holds 0 coefficients and needs 1",
            ),
            (build(&[&[]], &[0.0, 0.5], &[0.0, 1.0], None), "2 nodes c but 1 rows of a"),
            (build(&[], &[], &[], None), "at least one stage"),
        ] {
            let message = tableau.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
