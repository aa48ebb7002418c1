//! The learning rate over time.

use super::Options;

/// Linear warm-up to the peak, then half a cosine down to a share of it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    peak: f64,
    warmup: usize,
    steps: usize,
    floor: f64,
}

impl Schedule {
    /// The schedule of a training run; a warm-up longer than a tenth of a short run is cut to that.
    pub fn new(options: &Options) -> Self {
        Self::cosine(options.lr, options.warmup, options.steps, options.final_lr)
    }

    /// The same by its numbers; `floor` is the share of the peak at the end.
    pub fn cosine(peak: f64, warmup: usize, steps: usize, floor: f64) -> Self {
        Self { peak, warmup: warmup.min(steps.div_ceil(10)), steps, floor }
    }

    /// Learning rate of a step, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / length).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_to_the_floor() {
        let options = Options { lr: 1.0, warmup: 10, steps: 1000, final_lr: 0.02, ..Options::default() };
        let schedule = Schedule::new(&options);
        assert_eq!(schedule.lr(0), 0.1);
        assert_eq!(schedule.lr(9), 1.0);
        assert_eq!(schedule.lr(10), 1.0);
        assert!((schedule.lr(505) - 0.51).abs() < 1e-3);
        assert!((schedule.lr(1000) - 0.02).abs() < 1e-12);
        assert!((10..1000).all(|s| schedule.lr(s + 1) <= schedule.lr(s)));
    }
}
