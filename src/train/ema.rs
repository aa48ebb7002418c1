//! A running average of the weights.

use anyhow::Result;
use candle_core::{Tensor, Var};

/// `ē ← β_s·ē + (1 − β_s)·w` after every step s, with `β_s = min(β, (1 + s)/(10 + s))`, so that a short training is
/// not dominated by its start (Polyak & Juditsky; the ramp is TensorFlow's).
pub struct Ema {
    decay: f64,
    averages: Vec<Var>,
}

impl Ema {
    /// An average that starts at the parameters' present values.
    ///
    /// # Errors
    /// Unless 0 ≤ `decay` < 1.
    pub fn new(parameters: &[(String, Var)], decay: f64) -> Result<Self> {
        super::check::share("ema", decay)?;
        let copy = |(_, w): &(String, Var)| Var::from_tensor(&w.as_detached_tensor().copy()?);
        Ok(Self { decay, averages: parameters.iter().map(copy).collect::<candle_core::Result<_>>()? })
    }

    /// Takes in the parameters after step `step`, counted from 1. They come in the order given to [`Ema::new`].
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn update(&self, parameters: &[(String, Var)], step: usize) -> Result<()> {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        for (average, (_, w)) in self.averages.iter().zip(parameters) {
            let kept = (average.as_detached_tensor() * decay)?;
            average.set(&(kept + (w.as_detached_tensor() * (1.0 - decay))?)?)?;
        }
        Ok(())
    }

    /// The averages, in the order of the parameters.
    pub fn averages(&self) -> &[Var] {
        &self.averages
    }

    /// Replaces the parameters by their averages.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn apply(&self, parameters: &[(String, Var)]) -> Result<()> {
        for (average, (_, w)) in self.averages.iter().zip(parameters) {
            let value: Tensor = average.as_detached_tensor();
            w.set(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn follows_its_formula() -> Result<()> {
        let w = Var::new(&[1f32, -1.0], &Device::Cpu)?;
        let parameters = [("w".to_owned(), w.clone())];
        let ema = Ema::new(&parameters, 0.5)?;
        w.set(&Tensor::new(&[2f32, 0.0], &Device::Cpu)?)?;
        ema.update(&parameters, 1)?;
        let first = 2.0 / 11.0;
        let expected = [first * 1.0 + (1.0 - first) * 2.0, -first];
        ema.update(&parameters, 100)?;
        w.set(&Tensor::new(&[9f32, 9.0], &Device::Cpu)?)?;
        ema.apply(&parameters)?;
        let expected = [0.5 * expected[0] + 1.0, 0.5 * expected[1]];
        for (found, expected) in w.to_vec1::<f32>()?.into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} for {expected}");
        }
        Ok(())
    }

    #[test]
    fn a_decay_of_one_is_refused() {
        assert!(Ema::new(&[], 1.0).err().unwrap().to_string().contains("ema = 1"));
    }
}
