//! One sample: the work several times in a row between two readings of the clock.

use anyhow::Result;
use candle_core::Device;

use crate::heap::Mark;
use crate::ode;
#[cfg(feature = "cuda")]
use crate::ops::cuda::PoolMark;

/// A piece of work that is timed.
pub trait Work {
    /// Puts things in order before a sample, outside the clock.
    ///
    /// # Errors
    /// Whatever ends the measurement.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Does the work once.
    ///
    /// # Errors
    /// Whatever ends the measurement.
    fn run(&mut self) -> Result<()>;
}

impl<F: FnMut() -> Result<()>> Work for F {
    fn run(&mut self) -> Result<()> {
        self()
    }
}

/// Where work is timed.
#[derive(Clone, Copy)]
pub(super) struct Stand<'a> {
    /// What the work runs on.
    pub device: &'a Device,
    /// Seconds since some moment.
    pub clock: &'a dyn Fn() -> f64,
}

/// What one sample shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Of the whole sample.
    pub seconds: f64,
    /// Evaluations of velocity fields, likewise.
    pub evaluations: u64,
    /// Bytes at the highest point beyond those in use before.
    pub peak: Option<usize>,
}

impl Sample {
    /// Runs the work `iterations` times. The device has done all earlier work before the first reading of the clock
    /// and all of this work before the second.
    pub fn take(work: &mut impl Work, iterations: usize, stand: Stand) -> Result<Self> {
        let Stand { device, clock } = stand;
        work.prepare()?;
        device.synchronize()?;
        #[cfg(feature = "cuda")]
        let pool = device.is_cuda().then(|| PoolMark::set(device)).transpose()?;
        let (mark, evaluations) = (Mark::set(), ode::evaluations());
        let begun = clock();
        for _ in 0..iterations {
            work.run()?;
        }
        device.synchronize()?;
        let seconds = clock() - begun;
        // On another device the host's part of the memory would tell little.
        let peak = device.is_cpu().then(|| mark.peak());
        #[cfg(feature = "cuda")]
        let peak = pool.map_or(Ok(peak), |pool| pool.peak().map(Some))?;
        Ok(Self { seconds, evaluations: ode::evaluations() - evaluations, peak })
    }
}
