//! Training curves: what `lft.train` writes down, shows and returns.

use mlua::{Lua, Table};

use super::results::Run;
use crate::results::{Row, Value};
use crate::train::{Entry, Trainer};

/// Points of a training curve unless an option says otherwise.
const POINTS: usize = 200;

/// `fm 0.0123  fw 0.0211`, or the range where there are many.
pub fn losses(curves: &[Curve]) -> String {
    if curves.len() <= 6 {
        return curves.iter().map(Curve::text).collect::<Vec<_>>().join("  ");
    }
    let known = curves.iter().filter_map(|curve| curve.last).map(|last| last.report.loss);
    let (low, high) =
        known.fold((f64::INFINITY, 0.0f64), |(low, high), loss| (low.min(loss), high.max(loss)));
    format!("{} students, {low:.4} to {high:.4}", curves.len())
}

/// The training curve of one student.
pub struct Curve {
    method: String,
    block: String,
    steps: usize,
    every: usize,
    /// Tokens of a step.
    each: usize,
    pub run: Option<Run>,
    last: Option<Entry>,
}

impl Curve {
    /// An empty curve that goes to `run`, a point every `every` steps of `each` tokens. `name` is what the table calls the training,
    /// the method's label when left out.
    pub fn new(
        trainer: &Trainer,
        run: Option<Run>,
        every: Option<usize>,
        each: usize,
        name: Option<String>,
    ) -> Self {
        let steps = trainer.options.steps;
        Self {
            method: name.unwrap_or_else(|| trainer.options.label()),
            block: trainer.student.block.to_string(),
            steps,
            every: every.unwrap_or((steps / POINTS).max(1)),
            each,
            run,
            last: None,
        }
    }

    /// Takes note of a step, and writes it down if it is due.
    ///
    /// # Errors
    /// When the run cannot be written.
    pub fn add(&mut self, entry: Entry) -> anyhow::Result<()> {
        self.last = Some(entry);
        let step = entry.report.step;
        match &self.run {
            Some(run) if step == 1 || step == self.steps || step.is_multiple_of(self.every) => {
                run.log_training(self.row(&entry))
            }
            _ => Ok(()),
        }
    }

    fn row(&self, Entry { report, seconds, .. }: &Entry) -> Row {
        let cells = [
            ("method", Value::from(self.method.as_str())),
            ("block", Value::from(self.block.as_str())),
            ("step", Value::Int(report.step as i64)),
            ("loss", Value::Float(report.loss)),
            ("lr", Value::Float(report.lr)),
            ("grad_norm", Value::Float(report.grad_norm)),
            ("tokens", Value::Int((report.step * self.each) as i64)),
            ("seconds", Value::Float(*seconds)),
        ];
        cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// `fm 0.0123`.
    fn text(&self) -> String {
        self.last.map_or(String::new(), |last| format!("{} {:.4}", self.method, last.report.loss))
    }

    /// Where the training ended, as `TrainResult`.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn result(&self, lua: &Lua) -> anyhow::Result<Table> {
        let (table, steps) = (lua.create_table()?, self.last.map_or(0, |last| last.report.step));
        table.set("method", self.method.as_str())?;
        table.set("steps", steps)?;
        table.set("loss", self.last.map(|last| last.report.loss))?;
        table.set("tokens", steps * self.each)?;
        table.set("seconds", self.last.map_or(0.0, |last| last.seconds))?;
        Ok(table)
    }
}
