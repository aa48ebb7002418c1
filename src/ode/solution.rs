//! What a solve returns, and how the saved states come about.

use super::dense;
use super::error::Result;
use super::options::Options;
use super::state::State;
use super::step::{Interval, Step};
use super::tableau::Tableau;

/// The end of an integration.
#[derive(Debug, Clone)]
pub struct Solution<S> {
    /// The state at `t1`.
    pub x1: S,
    /// The states at `save_at`, in that order.
    pub saved: Vec<S>,
    pub stats: Stats,
}

/// What an integration cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of function evaluations.
    pub nfe: usize,
    pub accepted: usize,
    pub rejected: usize,
}

/// Collects the states at `save_at` as the integration passes them.
pub(super) struct Recorder<'a, S> {
    pending: &'a [f64],
    backwards: bool,
    saved: Vec<S>,
}

impl<'a, S: State> Recorder<'a, S> {
    pub(super) fn start(x0: &S, options: &'a Options) -> Self {
        let at_start = options.save_at.iter().take_while(|t| **t == options.t0).count();
        Recorder {
            pending: &options.save_at[at_start..],
            backwards: options.t1 < options.t0,
            saved: vec![x0.clone(); at_start],
        }
    }

    /// Whether a state strictly before the end of `interval` is to be saved, which takes the slope there.
    pub(super) fn wants_inside(&self, interval: Interval) -> bool {
        self.pending.first().is_some_and(|t| self.before(*t, interval.t1))
    }

    /// Saves the states within `interval`, its end included. `end`, the slope there, may be left out unless
    /// [`Self::wants_inside`].
    pub(super) fn record(
        &mut self,
        tableau: &Tableau,
        x0: &S,
        step: &Step<S>,
        end: Option<&S>,
        interval: Interval,
    ) -> Result<()> {
        while let Some((&t, rest)) = self.pending.split_first() {
            let state = match end {
                _ if t == interval.t1 => step.x1.clone(),
                Some(end) if self.before(t, interval.t1) => {
                    dense::interpolate(tableau, x0, step, end, interval, t)?
                }
                _ => break,
            };
            self.saved.push(state);
            self.pending = rest;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<S> {
        self.saved
    }

    fn before(&self, a: f64, b: f64) -> bool {
        if self.backwards { a > b } else { a < b }
    }
}
