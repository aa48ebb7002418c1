//! Two pieces of work in alternation.

use std::time::Instant;

use anyhow::Result;
use candle_core::Device;

use super::bootstrap::Interval;
use super::measure::{Measurement, Options, Sampler};
use super::sample::{Stand, Work};
use super::statistics::median;

/// Two measurements that were made sample by sample side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub a: Measurement,
    pub b: Measurement,
    /// Median over the pairs of samples of the time of b over the time of a.
    pub ratio: f64,
    /// Of the ratio, the pairs resampled.
    pub interval: Interval,
}

/// Warms both up and takes their samples in pairs, so that whatever else the machine does meanwhile slows both; which
/// of a pair goes first alternates. `watch` hears how many pairs are done before each.
///
/// # Errors
/// As [`super::measure`].
pub fn compare(
    a: &mut impl Work,
    b: &mut impl Work,
    options: &Options,
    device: &Device,
    watch: impl FnMut(usize) -> Result<()>,
) -> Result<Comparison> {
    let begun = Instant::now();
    compare_at(Stand { device, clock: &|| begun.elapsed().as_secs_f64() }, a, b, options, watch)
}

fn compare_at(
    stand: Stand,
    a: &mut impl Work,
    b: &mut impl Work,
    options: &Options,
    mut watch: impl FnMut(usize) -> Result<()>,
) -> Result<Comparison> {
    let mut of_a = Sampler::warm_up(stand, a, options, &mut watch)?;
    let mut of_b = Sampler::warm_up(stand, b, options, &mut watch)?;
    let mut ratios = Vec::with_capacity(options.samples);
    for pair in 0..options.samples {
        watch(pair)?;
        let (time_a, time_b) = if pair % 2 == 0 {
            let time_a = of_a.sample(a)?;
            (time_a, of_b.sample(b)?)
        } else {
            let time_b = of_b.sample(b)?;
            (of_a.sample(a)?, time_b)
        };
        ratios.push(time_b / time_a);
    }
    Ok(Comparison {
        a: of_a.finish(options),
        b: of_b.finish(options),
        ratio: median(&ratios),
        interval: Interval::of_median(&ratios, options.seed),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn the_ratio_holds_while_the_machine_slows_down() -> Result<()> {
        let (now, pace) = (Cell::new(0.0), Cell::new(1.0));
        let spend = |seconds: f64| {
            now.set(now.get() + seconds * pace.get());
            pace.set(pace.get() * 1.02);
            Ok(())
        };
        let stand = Stand { device: &Device::Cpu, clock: &|| now.get() };
        let options = Options { warmup: Some(1), samples: 20, seed: 0 };
        let (mut a, mut b) = (|| spend(1e-3), || spend(2e-3));
        let found = compare_at(stand, &mut a, &mut b, &options, |_| Ok(()))?;
        assert!(found.b.median > 1.2 * found.b.samples[0], "the machine did slow down: {found:?}");
        assert!((found.ratio - 2.0).abs() < 0.05, "{}", found.ratio);
        assert!(found.interval.contains(2.0) && found.interval.high < 2.1, "{:?}", found.interval);
        Ok(())
    }

    #[test]
    fn pairs_alternate_in_who_goes_first() -> Result<()> {
        let (order, now) = (RefCell::new(String::new()), Cell::new(0.0));
        let call = |name: char| {
            order.borrow_mut().push(name);
            now.set(now.get() + 1.0);
            Ok(())
        };
        let stand = Stand { device: &Device::Cpu, clock: &|| now.get() };
        let options = Options { warmup: Some(0), samples: 4, seed: 0 };
        let (mut a, mut b) = (|| call('a'), || call('b'));
        compare_at(stand, &mut a, &mut b, &options, |_| Ok(()))?;
        assert_eq!(*order.borrow(), "abbaabba");
        Ok(())
    }
}
