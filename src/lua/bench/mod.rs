//! `lft.bench`: timing from scripts.

mod record;
mod work;

use std::time::Duration;

use anyhow::{Context, bail};
use mlua::{Function, Lua, Table, Value};

use super::catalogue::{Entry, OptionsTable, Param, join};
use super::interrupt;
use super::options::Options;
use super::progress::meter;
use super::register::Registry;
use super::results::{self, Run};
use super::state::State;
use crate::bench::{self, Measurement, Names, Verdict};
use crate::meter::Meter;
use crate::results::Row;

use record::{Record, Throughput};
use work::Scripted;

/// Measurements shorter than this show no progress.
const PATIENCE: Duration = Duration::from_secs(2);

const SAMPLING: [Param; 4] = [
    ("warmup?", "integer", "calls before the samples; until the time is steady (at most 3 s) when left out"),
    ("samples?", "integer", "samples to take, 30 when left out"),
    (
        "throughput?",
        "{ [1]: number, [2]: string }",
        "how much one call does, and of what: {4096, \"tokens\"} gives tokens per second",
    ),
    (
        "run?",
        "Run",
        "receives the row of the table benchmarks; the newest open run, or a new one, when left out",
    ),
];
const BENCH: OptionsTable = OptionsTable { class: "BenchOptions", fields: &SAMPLING };
const COMPARE: OptionsTable = OptionsTable {
    class: "BenchCompareOptions",
    fields: &{
        const OWN: [Param; 4] = [
            ("a", "function", "what is held against"),
            ("b", "function", "what is judged"),
            ("name?", "string", "what the table benchmarks calls the comparison, compare when left out"),
            ("names?", "string[]", "what to call the two, {\"a\", \"b\"} when left out"),
        ];
        const FIELDS: [Param; 8] = join(OWN, SAMPLING);
        FIELDS
    },
};

/// Registers `lft.bench`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module(
        "lft.bench",
        "Timing of Lua functions: warm-up, samples, robust statistics, comparison in pairs. \
         Call it as lft.bench(name, options, f).",
    );
    registry.options(&BENCH);
    registry.options(&COMPARE);
    registry.record(
        "BenchResult",
        "The timing of a function. Times are in seconds of one call.",
        &record::FIELDS,
    );
    let fields = &[
        ("a", "BenchResult", "timing of a"),
        ("b", "BenchResult", "timing of b"),
        ("ratio", "number", "median over the pairs of the time of b over the time of a"),
        ("ci", "BenchInterval", "95 % confidence interval of the ratio, by bootstrap"),
        (
            "outcome",
            "\"faster\"|\"slower\"|\"equal\"|\"undecided\"",
            "what that says of b: equal is within 1 %, undecided an interval around 1 that is wider",
        ),
        ("verdict", "string", "the same in a sentence"),
    ];
    registry.record("BenchComparison", "Two functions timed in alternation.", fields);
    let fields = &[
        ("[1]", "number", "lower end"),
        ("[2]", "number", "upper end"),
        ("lo", "number", "lower end"),
        ("hi", "number", "upper end"),
    ];
    registry.record(
        "BenchInterval",
        "A confidence interval; its ends stand at 1 and 2 and under their names.",
        fields,
    );
    registry.record("BenchOutliers", "Samples outside Tukey's fences, by class.", &record::OUTLIERS);
    registry.function(
        Entry {
            name: "lft.bench.__call",
            about: "Times a function: warms it up until its time is steady, takes samples of at least a millisecond each, \
                    and describes them by median, median absolute deviation and a bootstrap interval. The device is \
                    synchronised before the clock is read; garbage of earlier samples is collected before each. The row goes \
                    to the table benchmarks.",
            params: &[
                ("name", "string", "what tables and baselines call it"),
                ("options", "BenchOptions", "warm-up, samples and throughput; {} for the usual"),
                ("f", "function", "what to time, called without arguments"),
            ],
            returns: &[("BenchResult", "the timing")],
            example: "local t = lft.randn({64, 64})\nlocal r = lft.bench(\"matmul\", {samples = 5, warmup = 2, throughput = {2 * 64 ^ 3, \"flop\"}}, function() t:matmul(t) end)\nassert(r.ci.lo <= r.median and r.median <= r.ci.hi and r.throughput > 0 and r.nfe == 0)",
        },
        |lua, (name, options, f): (String, Table, Function)| {
            let options = Options::read(lua, Some(options), &BENCH)?;
            let setting = Setting::read(lua, &options)?;
            let mut work = Scripted::new(lua, f);
            let meter = setting.meter(lua, &name)?;
            let found = bench::measure(&mut work, &setting.sampling, &setting.state.device, |done| {
                meter.set(done as u64, None);
                interrupt::check()
            })?;
            drop(meter);
            setting.keep(lua, &name, &found, Row::new())?;
            record::table(lua, &setting.record(&name, &found))
        },
    )?;
    registry.function(
        Entry {
            name: "lft.bench.compare",
            about: "Times two functions in alternation, so that whatever else the machine does slows both, and says in words \
                    whether b is faster than a. Both rows go to the table benchmarks, that of b with the ratio.",
            params: &[("options", "BenchCompareOptions", "the functions, their names and how to sample")],
            returns: &[("BenchComparison", "both timings, their ratio and the verdict")],
            example: "local t = lft.randn({64, 64})\nlocal r = lft.bench.compare{a = function() t:matmul(t) end, b = function() t:matmul(t):matmul(t) end, samples = 5, warmup = 2}\nassert(r.ci.lo <= r.ratio and r.ratio <= r.ci.hi and r.verdict:find(\"95 % interval\", 1, true))",
        },
        |lua, options: Table| compare(lua, &Options::read(lua, Some(options), &COMPARE)?),
    )
}

fn compare(lua: &Lua, options: &Options) -> anyhow::Result<Table> {
    let setting = Setting::read(lua, options)?;
    let name = options.or("name", "compare".to_owned())?;
    let [first, second] = names(options)?;
    let mut a = Scripted::new(lua, options.required("a")?);
    let mut b = Scripted::new(lua, options.required("b")?);
    let meter = setting.meter(lua, &name)?;
    let found = bench::compare(&mut a, &mut b, &setting.sampling, &setting.state.device, |done| {
        meter.set(done as u64, None);
        interrupt::check()
    })?;
    drop(meter);
    let (name_a, name_b) = (format!("{name}/{first}"), format!("{name}/{second}"));
    setting.keep(lua, &name_a, &found.a, Row::new())?;
    setting.keep(lua, &name_b, &found.b, record::against(&name_a, &found))?;
    let verdict = Names { subject: &second, reference: &first }.sentence(found.ratio, &found.interval);
    let table = lua.create_table()?;
    table.set("a", record::table(lua, &setting.record(&name_a, &found.a))?)?;
    table.set("b", record::table(lua, &setting.record(&name_b, &found.b))?)?;
    table.set("ratio", found.ratio)?;
    table.set("ci", record::interval(lua, &found.interval)?)?;
    table.set("outcome", outcome(Verdict::of(&found.interval)))?;
    table.set("verdict", verdict)?;
    Ok(table)
}

fn names(options: &Options) -> anyhow::Result<[String; 2]> {
    let names = options.or("names", vec!["a".to_owned(), "b".to_owned()])?;
    match <[String; 2]>::try_from(names) {
        Ok([a, b]) if a == b => bail!("option 'names': both are called '{a}'"),
        Ok(names) => Ok(names),
        Err(names) => bail!("option 'names' must be two names, found {}", names.len()),
    }
}

fn outcome(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Equal => "equal",
        Verdict::Undecided => "undecided",
    }
}

/// How to measure, and where the rows go.
struct Setting {
    state: std::sync::Arc<State>,
    sampling: bench::Options,
    throughput: Option<Throughput>,
    run: Option<Run>,
}

impl Setting {
    fn read(lua: &Lua, options: &Options) -> anyhow::Result<Self> {
        let state = State::of(lua)?;
        let default = bench::Options::default();
        let warmup = options.get::<Value>("warmup")?.is_some();
        let sampling = bench::Options {
            warmup: if warmup { Some(options.count("warmup", 0, 0)?) } else { None },
            samples: options.count("samples", default.samples, 1)?,
            seed: state.seed,
        };
        let throughput = options.get::<Table>("throughput")?.map(|pair| Throughput::read(&pair)).transpose();
        let throughput = throughput.context("option 'throughput'")?;
        Ok(Self { state, sampling, throughput, run: options.get("run")? })
    }

    fn meter(&self, lua: &Lua, name: &str) -> anyhow::Result<Meter> {
        meter(lua, self.sampling.samples as u64, name, ("samples", 1), PATIENCE)
    }

    fn record<'a>(&'a self, name: &'a str, found: &'a Measurement) -> Record<'a> {
        Record { name, found, throughput: self.throughput.as_ref() }
    }

    /// Writes the row, and keeps the samples for baselines.
    fn keep(&self, lua: &Lua, name: &str, found: &Measurement, more: Row) -> anyhow::Result<()> {
        let run = self.run.clone().map_or_else(|| results::current(lua), Ok)?;
        let mut row = self.record(name, found).row(&super::device::name(&self.state.device));
        row.extend(more);
        run.log_benchmark(row)?;
        self.state.record_benchmark(name, &found.samples);
        Ok(())
    }
}
