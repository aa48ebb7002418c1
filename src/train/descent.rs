//! What every training loop carries from step to step: parameters, optimizer, average and history.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use super::optimizer::finite;
use super::{Ema, Optimizer, Schedule, StepReport};

/// One step, as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What the step did.
    pub report: StepReport,
    /// A loss on held-out data after it, where one was measured.
    pub held_out: Option<f64>,
    /// Seconds since the training began, those before it was resumed included.
    pub seconds: f64,
}

/// Parameters on their way down a loss.
pub struct Descent {
    /// Named parameters; the order is fixed.
    pub parameters: Vec<(String, Var)>,
    optimizer: Box<dyn Optimizer + Send>,
    schedule: Schedule,
    clip: f64,
    ema: Option<Ema>,
    history: Vec<Entry>,
    begun: Instant,
    /// Seconds of the training before this process.
    before: f64,
}

impl Descent {
    /// At step 0. `ema` is the decay of an average of the parameters.
    ///
    /// # Errors
    /// A decay out of its range.
    pub fn new(
        parameters: Vec<(String, Var)>,
        optimizer: Box<dyn Optimizer + Send>,
        schedule: Schedule,
        clip: f64,
        ema: Option<f64>,
    ) -> Result<Self> {
        let ema = ema.map(|decay| Ema::new(&parameters, decay)).transpose()?;
        let (history, begun) = (Vec::new(), Instant::now());
        Ok(Self { parameters, optimizer, schedule, clip, ema, history, begun, before: 0.0 })
    }

    /// One update of all parameters; `loss`, a scalar in f32, is what the gradients are of.
    ///
    /// # Errors
    /// If the loss or a gradient is not finite; the parameters are then those of the last good step.
    pub fn update(&mut self, loss: &Tensor, gradients: &GradStore) -> Result<Entry> {
        let taken = self.history.len();
        let lr = self.schedule.lr(taken);
        let diverged = || {
            format!(
                "the training diverged at step {}: the weights are kept as they were after step {taken}; \
                 a smaller lr (now {lr:?}) or clip (now {:?}) may help",
                taken + 1,
                self.clip
            )
        };
        let stepped = self.optimizer.step_of(loss, gradients, lr, Some(self.clip));
        let loss = finite(loss).with_context(diverged)?;
        let grad_norm = stepped.with_context(diverged)?;
        let report = StepReport { step: taken + 1, loss, grad_norm, lr };
        let seconds = self.before + self.begun.elapsed().as_secs_f64();
        let entry = Entry { report, held_out: None, seconds };
        self.history.push(entry);
        if let Some(ema) = &self.ema {
            ema.update(&self.parameters, report.step)?;
        }
        Ok(entry)
    }

    /// Replaces the parameters by their average, where one was kept.
    ///
    /// # Errors
    /// When memory is short.
    pub fn finish(&self) -> Result<()> {
        self.ema.as_ref().map_or(Ok(()), |ema| ema.apply(&self.parameters))
    }

    /// All steps so far.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// Writes down a loss on held-out data beside the last step.
    pub fn measured(&mut self, held_out: f64) {
        if let Some(last) = self.history.last_mut() {
            last.held_out = Some(held_out);
        }
    }

    /// The lower the better: the held-out loss of the last step, or without one the mean loss of the last `steps`.
    pub fn score(&self, steps: usize) -> Option<f64> {
        let last = &self.history[self.history.len().saturating_sub(steps)..];
        let mean = || last.iter().map(|entry| entry.report.loss).sum::<f64>() / last.len() as f64;
        last.last().map(|entry| entry.held_out.unwrap_or_else(mean))
    }

    /// Everything that later steps depend on, by name.
    ///
    /// # Errors
    /// When memory is short.
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let named =
            |kind: &str, (name, w): &(String, Var)| (format!("{kind}.{name}"), w.as_detached_tensor());
        let mut all: Vec<_> = self.parameters.iter().map(|pair| named("weight", pair)).collect();
        all.extend(self.optimizer.tensors());
        if let Some(ema) = &self.ema {
            let names = self.parameters.iter().map(|(name, _)| name.clone());
            all.extend(names.zip(ema.averages().iter().cloned()).map(|pair| named("average", &pair)));
        }
        let row = |entry: &Entry| {
            let StepReport { loss, grad_norm, lr, .. } = entry.report;
            [loss, grad_norm, lr, entry.held_out.unwrap_or(f64::NAN), entry.seconds]
        };
        let rows: Vec<f64> = self.history.iter().flat_map(row).collect();
        all.push(("history".to_owned(), Tensor::from_vec(rows, (self.history.len(), 5), &Device::Cpu)?));
        Ok(all)
    }

    /// Goes back to what [`Descent::tensors`] gave.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape; the state is of no use then.
    pub fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| tensors.get(name).with_context(|| format!("the checkpoint holds no {name}"));
        for (name, w) in &self.parameters {
            refill(w, find(&format!("weight.{name}"))?).with_context(|| format!("weight.{name}"))?;
        }
        if let Some(ema) = &self.ema {
            for ((name, _), average) in self.parameters.iter().zip(ema.averages()) {
                refill(average, find(&format!("average.{name}"))?)
                    .with_context(|| format!("average.{name}"))?;
            }
        }
        let rows = find("history")?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let entry = |(at, row): (usize, Vec<f64>)| match row[..] {
            [loss, grad_norm, lr, held_out, seconds] => {
                let report = StepReport { step: at + 1, loss, grad_norm, lr };
                Ok(Entry { report, held_out: (!held_out.is_nan()).then_some(held_out), seconds })
            }
            _ => bail!("the checkpoint's history has rows of {} numbers", row.len()),
        };
        self.history = rows.into_iter().enumerate().map(entry).collect::<Result<_>>()?;
        self.before = self.history.last().map_or(0.0, |entry| entry.seconds);
        self.begun = Instant::now();
        self.optimizer.restore(self.history.len() as u64, tensors)
    }
}

/// Gives a variable the values of a tensor of the same shape, wherever that lies.
///
/// # Errors
/// Another shape.
pub(super) fn refill(variable: &Var, tensor: &Tensor) -> Result<()> {
    ensure!(
        variable.dims() == tensor.dims(),
        "the checkpoint has the shape {:?}, the training {:?}",
        tensor.dims(),
        variable.dims()
    );
    Ok(variable.set(&tensor.to_device(variable.device())?.to_dtype(variable.dtype())?)?)
}
