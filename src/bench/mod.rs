//! Timing: the harness's own criterion. Work is warmed up until its time is steady, sampled, and described by robust
//! statistics with bootstrap intervals; two pieces of work are compared in pairs; results are held against a saved
//! baseline.
//!
//! | file | holds |
//! |---|---|
//! | `statistics` | median, quantiles, median absolute deviation |
//! | `outliers` | Tukey's classes |
//! | `bootstrap` | confidence intervals by resampling |
//! | `sample` | one reading of the clock, of the evaluations and of the memory |
//! | `measure` | warm-up and samples of one piece of work |
//! | `compare` | two pieces of work in alternation |
//! | `verdict` | ratios in words |
//! | `baseline` | saved timings, and the check against them |
//! | `ledger` | the timings of one script, held against one baseline and saved as another |
//! | `show` | times as readers want them |

mod baseline;
mod bootstrap;
mod compare;
mod ledger;
mod measure;
mod outliers;
mod sample;
mod show;
mod statistics;
mod verdict;

pub use baseline::{Baseline, Change, Origin};
pub use bootstrap::Interval;
pub use compare::{Comparison, compare};
pub use ledger::{Baselines, Ledger, Regressed};
pub use measure::{Measurement, Options, measure};
pub use outliers::Outliers;
pub use sample::Work;
pub use verdict::{Names, Verdict};
