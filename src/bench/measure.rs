//! The measurement of one piece of work.

use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::Device;

use super::bootstrap::Interval;
use super::outliers::Outliers;
use super::sample::{Sample, Stand, Work};
use super::statistics::{mad, median};

/// A sample lasts at least about this long, so that neither the clock's resolution nor its cost shows.
const SAMPLE_SECONDS: f64 = 1e-3;
/// Samples whose medians are compared to see whether the time is steady.
const WINDOW: usize = 3;
/// Steady means: two neighbouring windows differ by at most this share.
const STEADY: f64 = 0.02;
/// An automatic warm-up ends after this long in any case.
const WARMUP_SECONDS: f64 = 3.0;

/// How something is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Calls before the first sample; as many as the time needs to become steady when `None`.
    pub warmup: Option<usize>,
    /// Number of samples.
    pub samples: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { warmup: None, samples: 30, seed: 0 }
    }
}

/// What was measured. Times are seconds of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// One time a sample, in order.
    pub samples: Vec<f64>,
    /// Calls that make up a sample.
    pub iterations: usize,
    /// Calls before the first sample.
    pub warmup: usize,
    pub median: f64,
    /// Median absolute deviation.
    pub mad: f64,
    /// Of the median.
    pub interval: Interval,
    pub outliers: Outliers,
    /// Evaluations of velocity fields a call, the mean over all samples.
    pub nfe: f64,
    /// Bytes of memory in use at the highest point of any sample beyond those before it; `None` where that is not
    /// counted.
    pub peak_bytes: Option<usize>,
}

/// Warms the work up and samples it. `watch` hears how many samples are done before each, and may end the
/// measurement by an error.
///
/// # Errors
/// No samples asked for, and those of the work and of `watch`.
pub fn measure(
    work: &mut impl Work,
    options: &Options,
    device: &Device,
    watch: impl FnMut(usize) -> Result<()>,
) -> Result<Measurement> {
    let begun = Instant::now();
    measure_at(Stand { device, clock: &|| begun.elapsed().as_secs_f64() }, work, options, watch)
}

fn measure_at(
    stand: Stand,
    work: &mut impl Work,
    options: &Options,
    mut watch: impl FnMut(usize) -> Result<()>,
) -> Result<Measurement> {
    let mut sampler = Sampler::warm_up(stand, work, options, &mut watch)?;
    for done in 0..options.samples {
        watch(done)?;
        sampler.sample(work)?;
    }
    Ok(sampler.finish(options))
}

/// Takes the samples of one piece of work.
pub(super) struct Sampler<'a> {
    stand: Stand<'a>,
    iterations: usize,
    warmup: usize,
    samples: Vec<Sample>,
}

impl<'a> Sampler<'a> {
    /// Runs the work until its time is steady, or as often as it is told, and finds how many calls make up a sample.
    pub fn warm_up(
        stand: Stand<'a>,
        work: &mut impl Work,
        options: &Options,
        mut watch: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        ensure!(options.samples >= 1, "at least one sample is needed");
        let mut sampler =
            Self { stand, iterations: 1, warmup: 0, samples: Vec::with_capacity(options.samples) };
        let (mut times, mut spent) = (Vec::new(), 0.0);
        loop {
            match options.warmup {
                Some(calls) if sampler.warmup >= calls => return Ok(sampler),
                None if is_steady(&times) || spent > WARMUP_SECONDS => return Ok(sampler),
                _ => watch(0)?,
            }
            let left = options.warmup.map_or(usize::MAX, |calls| calls - sampler.warmup);
            let calls = sampler.iterations.min(left);
            let seconds = Sample::take(work, calls, stand)?.seconds;
            sampler.warmup += calls;
            spent += seconds;
            if seconds < SAMPLE_SECONDS && calls == sampler.iterations {
                // At most thousandfold, lest one call that was much too fast leads to an endless sample.
                let growth = (SAMPLE_SECONDS / seconds.max(1e-9)).clamp(1.0, 1000.0);
                sampler.iterations = (calls as f64 * growth).ceil() as usize;
                times.clear();
            } else {
                times.push(seconds / calls as f64);
            }
        }
    }

    /// Takes one sample; seconds of one call.
    pub fn sample(&mut self, work: &mut impl Work) -> Result<f64> {
        let sample = Sample::take(work, self.iterations, self.stand)?;
        self.samples.push(sample);
        Ok(sample.seconds / self.iterations as f64)
    }

    /// Describes the samples.
    pub fn finish(self, options: &Options) -> Measurement {
        let each = self.iterations as f64;
        let samples: Vec<f64> = self.samples.iter().map(|sample| sample.seconds / each).collect();
        let evaluations: u64 = self.samples.iter().map(|sample| sample.evaluations).sum();
        Measurement {
            iterations: self.iterations,
            warmup: self.warmup,
            median: median(&samples),
            mad: mad(&samples),
            interval: Interval::of_median(&samples, options.seed),
            outliers: Outliers::of(&samples),
            nfe: evaluations as f64 / (each * samples.len() as f64),
            peak_bytes: self.samples.iter().filter_map(|sample| sample.peak).max(),
            samples,
        }
    }
}

/// Whether the last window of times and the one before have about the same median.
fn is_steady(times: &[f64]) -> bool {
    let Some(begin) = times.len().checked_sub(2 * WINDOW) else { return false };
    let (before, now) = times[begin..].split_at(WINDOW);
    (median(now) / median(before) - 1.0).abs() <= STEADY
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ode;

    /// Measures work that moves the clock on by itself, in seconds.
    fn measured(options: &Options, mut call: impl FnMut() -> Result<f64>) -> Result<Measurement> {
        let now = Cell::new(0.0);
        let mut work = || {
            now.set(now.get() + call()?);
            Ok(())
        };
        let stand = Stand { device: &Device::Cpu, clock: &|| now.get() };
        measure_at(stand, &mut work, options, |_| Ok(()))
    }

    #[test]
    fn time_evaluations_and_calls_are_those_of_the_work() -> Result<()> {
        let mut calls = 0;
        let found = measured(&Options { samples: 9, ..Options::default() }, || {
            calls += 1;
            (0..3).for_each(|_| ode::evaluation(|| ()));
            Ok(300e-6)
        })?;
        assert!((found.median - 300e-6).abs() < 1e-12 && found.mad < 1e-12, "{found:?}");
        assert_eq!((found.samples.len(), found.nfe, found.iterations), (9, 3.0, 4));
        assert_eq!(calls, found.warmup + 9 * found.iterations);
        Ok(())
    }

    #[test]
    fn a_given_warm_up_is_exact() -> Result<()> {
        for warmup in [0, 1, 7] {
            let mut calls = 0;
            let options = Options { warmup: Some(warmup), samples: 1, ..Options::default() };
            let found = measured(&options, || {
                calls += 1;
                Ok(1e-6)
            })?;
            assert_eq!((found.warmup, calls), (warmup, warmup + found.iterations));
        }
        Ok(())
    }

    #[test]
    fn slow_first_calls_are_not_sampled_and_an_unsteady_warm_up_ends() -> Result<()> {
        let mut calls = 0;
        let found = measured(&Options { samples: 5, ..Options::default() }, || {
            calls += 1;
            Ok(if calls <= 4 { 20e-3 } else { 2e-3 })
        })?;
        assert_eq!((found.warmup, found.outliers.total()), (9, 0));
        assert!((found.median - 2e-3).abs() < 1e-12, "{found:?}");

        let mut seconds = 1e-2;
        let found = measured(&Options { samples: 1, ..Options::default() }, || {
            seconds *= 1.1;
            Ok(seconds)
        })?;
        assert!((20..50).contains(&found.warmup), "{}", found.warmup);
        Ok(())
    }

    #[test]
    fn the_real_clock_does_not_run_backwards() -> Result<()> {
        let options = Options { warmup: Some(1), samples: 3, ..Options::default() };
        let mut pause = || {
            std::thread::sleep(std::time::Duration::from_millis(2));
            Ok(())
        };
        let found = measure(&mut pause, &options, &Device::Cpu, |_| Ok(()))?;
        assert!(found.samples.iter().all(|seconds| *seconds >= 2e-3), "{found:?}");
        Ok(())
    }

    #[test]
    fn errors_of_the_work_and_of_the_watch_end_the_measurement() {
        let error = measured(&Options::default(), || anyhow::bail!("broken")).unwrap_err();
        assert_eq!(error.to_string(), "broken");
        let mut nothing = || Ok(());
        let stopped =
            measure(&mut nothing, &Options::default(), &Device::Cpu, |_| anyhow::bail!("interrupted"));
        assert_eq!(stopped.unwrap_err().to_string(), "interrupted");
        assert!(measured(&Options { samples: 0, ..Options::default() }, || Ok(0.0)).is_err());
    }

    #[test]
    fn steady_means_that_two_windows_agree() {
        assert!(!is_steady(&[1.0; 5]));
        assert!(is_steady(&[1.0; 6]));
        assert!(!is_steady(&[1.2, 1.2, 1.2, 1.0, 1.0, 1.0]));
        assert!(is_steady(&[9.0, 1.2, 1.0, 1.0, 1.0, 1.01, 5.0]));
    }
}
