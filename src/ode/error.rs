//! What can go wrong while integrating.

use std::fmt;

/// An error of the solvers themselves.
///
/// Errors of the velocity field pass through untouched: [`solve`](super::solve) is generic over the
/// field's error type `E`, which only has to be able to carry this one (`E: From<ode::Error>`).
/// `anyhow::Error`, `candle_core::Error` and this type itself all qualify.
#[derive(Debug)]
pub enum Error {
    /// A solver name that does not exist; holds the complete message.
    UnknownMethod(String),
    /// An option outside its range; holds the complete message.
    Option(String),
    /// Coefficients that do not make an explicit Runge–Kutta method; holds the complete message.
    Tableau(String),
    /// The error estimate stays above the tolerance however small the step.
    StepUnderflow { t: f64, h: f64, ratio: f64 },
    /// `max_steps` attempts did not reach the end of the interval.
    TooManySteps { t: f64, h: f64, t1: f64, max_steps: usize },
    /// NaN or infinity in `what` at time `t`.
    NonFinite { what: &'static str, t: f64 },
    /// The state's arithmetic failed: shapes, dtypes or devices do not fit.
    State(candle_core::Error),
}

/// Result of the solvers' own arithmetic.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::UnknownMethod(message) | Error::Option(message) | Error::Tableau(message) => {
                f.write_str(message)
            }
            Error::StepUnderflow { t, h, ratio } => write!(
                f,
                "the step size fell to {h:e} at t = {t} and the error is still {ratio:.3e} times the tolerance: \
                 the solution may be singular there, or rtol and atol are below what its dtype can reach"
            ),
            Error::TooManySteps { t, h, t1, max_steps } => write!(
                f,
                "{max_steps} steps (max_steps) reached only t = {t} of {t1}, with step size {h:e}: \
                 raise max_steps, loosen rtol and atol, or the problem is stiff"
            ),
            Error::NonFinite { what, t } => write!(f, "{what} holds NaN or infinity at t = {t}"),
            Error::State(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its text is this error's text, so that the chain continues with its own source.
            Error::State(e) => e.source(),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Error::State(e)
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::State(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
