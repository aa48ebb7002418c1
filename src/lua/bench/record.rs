//! A measurement as a Lua table and as a row of the table `benchmarks`.

use anyhow::bail;
use mlua::{Lua, Table};

use crate::bench::{Comparison, Interval, Measurement, Outliers};
use crate::lua::catalogue::Param;
use crate::results::{Row, Value};

/// The fields of a result.
pub const FIELDS: [Param; 14] = [
    ("name", "string", "as it was given"),
    ("median", "number", "median time"),
    ("mad", "number", "median absolute deviation of the time"),
    ("ci", "BenchInterval", "95 % confidence interval of the median, by bootstrap"),
    ("outliers", "BenchOutliers", "samples outside Tukey's fences"),
    ("throughput", "number|nil", "units per second, where options say what a call does"),
    ("unit", "string|nil", "what the throughput counts"),
    ("nfe", "number", "evaluations of velocity fields in one call, by solvers or by u(x, t)"),
    (
        "peak_bytes",
        "integer|nil",
        "memory in use at the highest point of a sample beyond that before it: the host's on the CPU, that of tensors on a CUDA card; nil elsewhere",
    ),
    ("samples", "integer", "samples taken"),
    ("iterations", "integer", "calls that make up a sample"),
    ("warmup", "integer", "calls before the samples"),
    ("times", "number[]", "the samples in order"),
    ("summary", "string", "median, interval, deviation and outliers in a line"),
];

/// The classes of outliers.
pub const OUTLIERS: [Param; 5] = [
    ("total", "integer", "all of them"),
    ("low_severe", "integer", "more than 3 quartile distances below the quartiles"),
    ("low_mild", "integer", "more than 1.5 below"),
    ("high_mild", "integer", "more than 1.5 above"),
    ("high_severe", "integer", "more than 3 above"),
];

/// How much one call does, and of what.
pub struct Throughput {
    amount: f64,
    unit: String,
}

impl Throughput {
    /// Reads `{4096, "tokens"}`.
    ///
    /// # Errors
    /// Anything else.
    pub fn read(pair: &Table) -> anyhow::Result<Self> {
        let (amount, unit) = (pair.get::<Option<f64>>(1)?, pair.get::<Option<String>>(2)?);
        match (amount, unit) {
            (Some(amount), Some(unit)) if amount.is_finite() && amount > 0.0 => Ok(Self { amount, unit }),
            _ => bail!("expected a positive amount and its unit, for example {{4096, \"tokens\"}}"),
        }
    }
}

/// A measurement with what its options add.
pub struct Record<'a> {
    pub name: &'a str,
    pub found: &'a Measurement,
    pub throughput: Option<&'a Throughput>,
}

impl Record<'_> {
    /// Units per second.
    fn rate(&self) -> Option<f64> {
        self.throughput.map(|throughput| throughput.amount / self.found.median)
    }

    /// The row of the table `benchmarks`.
    pub fn row(&self, device: &str) -> Row {
        let Self { name, found, throughput } = self;
        let Outliers { low_severe, low_mild, high_mild, high_severe } = found.outliers;
        let cells: [(&str, Value); 17] = [
            ("name", (*name).into()),
            ("device", device.into()),
            ("median", found.median.into()),
            ("mad", found.mad.into()),
            ("ci_lo", found.interval.low.into()),
            ("ci_hi", found.interval.high.into()),
            ("throughput", self.rate().into()),
            ("unit", throughput.map(|throughput| throughput.unit.as_str()).into()),
            ("nfe", found.nfe.into()),
            ("peak_bytes", found.peak_bytes.into()),
            ("samples", found.samples.len().into()),
            ("iterations", found.iterations.into()),
            ("warmup", found.warmup.into()),
            ("outliers_low_severe", low_severe.into()),
            ("outliers_low_mild", low_mild.into()),
            ("outliers_high_mild", high_mild.into()),
            ("outliers_high_severe", high_severe.into()),
        ];
        cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What the row of a comparison's second function says besides.
pub fn against(reference: &str, found: &Comparison) -> Row {
    let cells: [(&str, Value); 4] = [
        ("against", reference.into()),
        ("ratio", found.ratio.into()),
        ("ratio_lo", found.interval.low.into()),
        ("ratio_hi", found.interval.high.into()),
    ];
    cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The table that a script receives.
///
/// # Errors
/// When Lua is out of memory.
pub fn table(lua: &Lua, record: &Record) -> anyhow::Result<Table> {
    let found = record.found;
    let table = lua.create_table()?;
    table.set("name", record.name)?;
    table.set("median", found.median)?;
    table.set("mad", found.mad)?;
    table.set("ci", interval(lua, &found.interval)?)?;
    table.set("outliers", outliers(lua, &found.outliers)?)?;
    table.set("throughput", record.rate())?;
    table.set("unit", record.throughput.map(|throughput| throughput.unit.as_str()))?;
    match found.nfe.fract() == 0.0 {
        true => table.set("nfe", found.nfe as i64)?,
        false => table.set("nfe", found.nfe)?,
    }
    table.set("peak_bytes", found.peak_bytes)?;
    table.set("samples", found.samples.len())?;
    table.set("iterations", found.iterations)?;
    table.set("warmup", found.warmup)?;
    table.set("times", found.samples.as_slice())?;
    table.set("summary", found.summary())?;
    Ok(table)
}

/// An interval with its ends at 1 and 2 and under their names.
///
/// # Errors
/// When Lua is out of memory.
pub fn interval(lua: &Lua, interval: &Interval) -> mlua::Result<Table> {
    let table = lua.create_sequence_from([interval.low, interval.high])?;
    table.set("lo", interval.low)?;
    table.set("hi", interval.high)?;
    Ok(table)
}

fn outliers(lua: &Lua, outliers: &Outliers) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("total", outliers.total())?;
    table.set("low_severe", outliers.low_severe)?;
    table.set("low_mild", outliers.low_mild)?;
    table.set("high_mild", outliers.high_mild)?;
    table.set("high_severe", outliers.high_severe)?;
    Ok(table)
}
