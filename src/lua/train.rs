//! `lft.train`: the training loop, with progress and curves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mlua::{Lua, Table, Value};

use super::catalogue::{Entry, OptionsTable, Param, join};
use super::checkpoint;
use super::curve::{Curve, losses};
use super::data::{BATCH, Dataset};
use super::device;
use super::flow::StudentObject;
use super::interrupt;
use super::latents::Latents;
use super::object::Object;
use super::ode::{SOLVER, method};
use super::optim::betas;
use super::options::Options;
use super::progress::meter;
use super::register::Registry;
use super::results::Run;
use super::state::State;
use crate::data::Ahead;
use crate::train::{self, Curriculum, Descent, Lessons, Objective, Saving, Trainer, side_by_side};

const ALGORITHM: [Param; 21] = [
    (
        "method?",
        "\"fm\"|\"fw\"|\"hybrid\"|\"regression\"|\"path\"|\"kl\"|\"lm\"",
        "the algorithm, fw when left out",
    ),
    (
        "curriculum?",
        "string",
        "several algorithms, each for a share of the steps, instead of method: \"fm:0.3,kl:0.7\"",
    ),
    ("steps?", "integer", "optimizer steps, 1000 when left out"),
    ("lr?", "number", "peak learning rate, 1e-3 when left out"),
    ("warmup?", "integer", "steps of linear warm-up, 100 when left out, at most a tenth of all"),
    ("final_lr?", "number", "learning rate at the end as a share of the peak, 0.02 when left out"),
    (
        "optimizer?",
        "\"adamw\"|\"muon\"",
        "adamw when left out; muon makes the updates of matrices orthogonal",
    ),
    ("betas?", "number[]", "AdamW's β₁ and β₂, {0.9, 0.95} when left out"),
    ("weight_decay?", "number", "decoupled weight decay, 0 when left out"),
    ("clip?", "number", "largest gradient norm, 1 when left out"),
    ("walk?", "integer", "solver steps of a walk (fw, hybrid), 3 when left out"),
    ("solver?", SOLVER, "solver of a walk (fw, hybrid), midpoint when left out"),
    ("alpha?", "number", "weight of the fm term (hybrid), 0.1 when left out"),
    (
        "kl_weight?",
        "number",
        "weight of KL(teacher ‖ student) of the next token, added to the algorithm, 0 when left out",
    ),
    ("kl_steps?", "integer", "solver steps k of the flow that kl and lm are taken through, 1 when left out"),
    ("kl_solver?", SOLVER, "solver of that flow, midpoint when left out"),
    (
        "dtype?",
        "\"f32\"|\"bf16\"",
        "format the field's branches are computed in, weights and moments stay f32; when left out bf16 for a bf16 teacher \
         on CUDA, else f32",
    ),
    ("accumulate?", "integer", "parts that a batch is computed in, to save memory; 1 when left out"),
    (
        "ema?",
        "number",
        "decay of an average of the weights, which replaces them at the end; none when left out",
    ),
    (
        "recompute?",
        "boolean",
        "computes activations again in the backward pass instead of keeping them, to save memory; false when left out",
    ),
    ("seed?", "integer", "seed of data order and times, the host's when left out"),
];
const DATA: [Param; 4] = [
    ("data", "Dataset|Latents", "the text to train on, or what lft.data.latents kept of it"),
    ("batch?", "integer", "windows in a batch, 8 when left out"),
    ("run?", "Run", "receives the training curve"),
    ("log_every?", "integer", "steps between two points of the curve; 200 points when left out"),
];
const TRAIN: OptionsTable = OptionsTable {
    class: "TrainOptions",
    fields: &{
        const OWN: [Param; 25] = join(DATA, ALGORITHM);
        const FIELDS: [Param; 27] = join(OWN, checkpoint::OPTIONS);
        FIELDS
    },
};
const MEMBER: OptionsTable = OptionsTable {
    class: "TogetherStudentOptions",
    fields: &{
        const OWN: [Param; 2] = [
            ("student", "Student", "the student to train"),
            ("name?", "string", "what tables and progress call it, the algorithm when left out"),
        ];
        const FIELDS: [Param; 23] = join(OWN, ALGORITHM);
        FIELDS
    },
};
const TOGETHER: OptionsTable = OptionsTable {
    class: "TogetherOptions",
    fields: &{
        const OWN: [Param; 3] = [
            ("steps?", "integer", "optimizer steps of students that name none, 1000 when left out"),
            (
                "seed?",
                "integer",
                "seed of the data order, and of students that name none; the host's when left out",
            ),
            ("label?", "string", "text in front of the progress bar"),
        ];
        const ALL: [Param; 7] = join(DATA, OWN);
        const FIELDS: [Param; 9] = join(ALL, checkpoint::OPTIONS);
        FIELDS
    },
};

/// Describes [`one`].
pub const TRAIN_ENTRY: Entry = Entry {
    name: "Student:train",
    about: "Trains the student's velocity field. The same seed gives the same weights. A loss that is not finite stops the \
            training with an error; the weights are then those of the last good step.",
    params: &[("options", "TrainOptions", "data, algorithm and optimizer")],
    returns: &[("TrainResult", "where the training ended")],
    example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal s = lft.flow.student(m, {block = {6, 8}})\nlocal r = s:train{method = \"fm\", data = d, steps = 2, batch = 2}\nassert(r.steps == 2 and r.tokens == 64)",
};

/// Registers `lft.train`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.train", "Training of students.");
    for table in [&TRAIN, &MEMBER, &TOGETHER] {
        registry.options(table);
    }
    let fields = &[
        ("method", "string", "the algorithm"),
        ("steps", "integer", "optimizer steps taken"),
        ("loss", "number", "the objective on the last batch"),
        ("tokens", "integer", "tokens seen"),
        ("seconds", "number", "wall time"),
    ];
    registry.record("TrainResult", "Where a training ended.", fields);
    registry.function(
        Entry {
            name: "lft.train.together",
            about: "Trains several students of one teacher side by side: each batch costs one pass of the teacher, whatever \
                    the number of students. Every student ends as if it had been trained alone.",
            params: &[
                ("students", "TogetherStudentOptions[]", "one table a student: the student and how to train it"),
                ("options", "TogetherOptions", "what they share"),
            ],
            returns: &[("TrainResult[]", "one a student, in order")],
            example: "local m = lft.pythia.load(\"data/teacher\")\nlocal d = lft.data.text(\"data/corpus/valid.txt\", {tokenizer = m.tokenizer, seq_len = 16})\nlocal students = {}\nfor i, method in ipairs{\"fm\", \"regression\"} do\n  students[i] = {student = lft.flow.student(m, {block = {6, 8}}), method = method}\nend\nassert(#lft.train.together(students, {data = d, steps = 2, batch = 2}) == 2)",
        },
        |lua, (students, options): (Vec<Table>, Table)| {
            let options = Options::read(lua, Some(options), &TOGETHER)?;
            let shared = Shared::read(lua, &options)?;
            let mut trainers = Vec::with_capacity(students.len());
            let mut curves = Vec::with_capacity(students.len());
            for (i, student) in students.into_iter().enumerate() {
                let member = Options::read(lua, Some(student), &MEMBER).and_then(|own| {
                    let student = own.required::<Object<StudentObject>>("student")?.0.0;
                    let trainer = Trainer::new(student, algorithm(&own, &shared)?)?;
                    Ok((shared.curve(&trainer, own.get("name")?), trainer))
                });
                let (curve, trainer) = member.with_context(|| format!("student {}", i + 1))?;
                curves.push(curve);
                trainers.push(trainer);
            }
            let label = options.or("label", "training".to_owned())?;
            train(lua, &options, &shared, trainers, curves, &label)
        },
    )
}

/// Trains one student.
///
/// # Errors
/// Options out of range, and those of a step.
pub fn one(lua: &Lua, student: &StudentObject, options: Table) -> anyhow::Result<Table> {
    let options = Options::read(lua, Some(options), &TRAIN)?;
    let Request { shared, trainer } = Request::of(lua, student, &options)?;
    let curve = shared.curve(&trainer, None);
    let mut results = train(lua, &options, &shared, vec![trainer], vec![curve], "training")?;
    results.pop().context("one student gives one result")
}

/// A training of one student that has not begun.
pub struct Request {
    shared: Shared,
    trainer: Trainer,
}

impl Request {
    /// What `s:train(options)` asks for.
    ///
    /// # Errors
    /// Options out of range.
    pub fn read(lua: &Lua, student: &StudentObject, options: Table) -> anyhow::Result<Self> {
        let options = Options::read(lua, Some(options), &TRAIN)?;
        let saved = options.get::<Value>("checkpoint")?.or(options.get("resume")?);
        ensure!(
            saved.is_none(),
            "checkpoint and resume are for trainings of their own, not for those of a sweep"
        );
        Self::of(lua, student, &options)
    }

    fn of(lua: &Lua, student: &StudentObject, options: &Options) -> anyhow::Result<Self> {
        let shared = Shared::read(lua, options)?;
        let trainer = Trainer::new(student.0.clone(), algorithm(options, &shared)?)?;
        Ok(Self { shared, trainer })
    }

    /// Whether both need the same batches of the same teacher.
    pub fn shares_passes(&self, other: &Self) -> bool {
        let (a, b) = (&self.shared, &other.shared);
        Arc::ptr_eq(&self.trainer.student.teacher, &other.trainer.student.teacher)
            && a.data.is_same(&b.data)
            && (a.batch, a.seed) == (b.batch, b.seed)
    }
}

/// Trains students that share the teacher's passes, each with its own result: one that fails does not end the others.
/// Also returns how often the teacher ran.
///
/// # Errors
/// An interrupt, and curves that cannot be written.
pub fn apart(lua: &Lua, requests: Vec<Request>) -> anyhow::Result<(usize, Vec<anyhow::Result<Table>>)> {
    let curves = requests.iter().map(|request| request.shared.curve(&request.trainer, None)).collect();
    let (mut shared, trainers): (Vec<_>, Vec<_>) =
        requests.into_iter().map(|request| (request.shared, request.trainer)).unzip();
    let Some(shared) = shared.pop() else { return Ok((0, Vec::new())) };
    let mut errors: Vec<Option<anyhow::Error>> = trainers.iter().map(|_| None).collect();
    let (passes, curves) = follow(lua, &shared, (trainers, curves), None, "training", |i, error| {
        errors[i] = Some(error);
        Ok(())
    })?;
    let result =
        |(curve, error): (&Curve, Option<anyhow::Error>)| error.map_or_else(|| curve.result(lua), Err);
    Ok((passes, curves.iter().zip(errors).map(result).collect()))
}

/// What students that train together share.
struct Shared {
    data: Source,
    batch: usize,
    steps: usize,
    seed: u64,
    run: Option<Run>,
    log_every: Option<usize>,
}

impl Shared {
    fn read(lua: &Lua, options: &Options) -> anyhow::Result<Self> {
        Ok(Self {
            data: Source::read(options)?,
            batch: options.count("batch", BATCH, 1)?,
            steps: options.count("steps", train::Options::default().steps, 1)?,
            seed: options.or("seed", State::of(lua)?.seed)?,
            run: options.get("run")?,
            log_every: Some(options.count("log_every", 0, 1)?).filter(|every| *every > 0),
        })
    }

    fn curve(&self, trainer: &Trainer, name: Option<String>) -> Curve {
        let each = self.batch * self.data.seq_len();
        Curve::new(trainer, self.run.clone(), self.log_every, each, name)
    }
}

fn algorithm(options: &Options, shared: &Shared) -> anyhow::Result<train::Options> {
    let default = train::Options::default();
    Ok(train::Options {
        curriculum: curriculum(options)?,
        steps: options.count("steps", shared.steps, 1)?,
        lr: options.or("lr", default.lr)?,
        warmup: options.count("warmup", default.warmup, 0)?,
        final_lr: options.or("final_lr", default.final_lr)?,
        optimizer: options.get::<String>("optimizer")?.map_or(Ok(default.optimizer), |name| name.parse())?,
        betas: betas(options)?.unwrap_or(default.betas),
        weight_decay: options.or("weight_decay", default.weight_decay)?,
        clip: options.or("clip", default.clip)?,
        walk: options.count("walk", default.walk, 1)?,
        solver: method(options, "solver", default.solver)?,
        alpha: options.or("alpha", default.alpha)?,
        kl_weight: options.or("kl_weight", default.kl_weight)?,
        kl_steps: options.count("kl_steps", default.kl_steps, 1)?,
        kl_solver: method(options, "kl_solver", default.kl_solver)?,
        dtype: options.get::<String>("dtype")?.map(|name| device::dtype(&name)).transpose()?,
        accumulate: options.count("accumulate", default.accumulate, 1)?,
        ema: options.get("ema")?,
        recompute: options.or("recompute", default.recompute)?,
        seed: options.or("seed", shared.seed)?,
    })
}

/// The options `curriculum` and `method`, of which one may be given.
fn curriculum(options: &Options) -> anyhow::Result<Curriculum> {
    let (curriculum, method) = (options.get::<String>("curriculum")?, options.get::<String>("method")?);
    match (curriculum, method) {
        (None, None) => Ok(train::Options::default().curriculum),
        (None, Some(name)) => Ok(name.parse::<Objective>()?.into()),
        (Some(text), None) => text.parse().context("option 'curriculum'"),
        (Some(_), Some(_)) => bail!("options 'method' and 'curriculum' exclude each other"),
    }
}

/// Where the latents come from.
enum Source {
    Text(Dataset),
    Latents(Latents),
}

impl Source {
    fn read(options: &Options) -> anyhow::Result<Self> {
        match options.required::<Value>("data")? {
            Value::UserData(data) if data.is::<Latents>() => {
                Ok(Self::Latents(data.borrow::<Latents>()?.clone()))
            }
            _ => Ok(Self::Text(options.required::<Object<Dataset>>("data")?.0)),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.is_same(b),
            (Self::Latents(a), Self::Latents(b)) => Arc::ptr_eq(&a.0, &b.0),
            _ => false,
        }
    }

    fn seq_len(&self) -> usize {
        match self {
            Self::Text(data) => data.seq_len(),
            Self::Latents(cache) => cache.0.plan.seq_len,
        }
    }

    fn lessons(&self, batch: usize, seed: u64) -> anyhow::Result<Lessons> {
        Ok(match self {
            Self::Text(data) => Lessons::Text(Ahead::of(data.sampler(batch, seed)?)),
            Self::Latents(cache) => Lessons::Latents { cache: cache.0.clone(), batch, seed },
        })
    }
}

/// Trains to the end or to the first error.
fn train(
    lua: &Lua,
    options: &Options,
    shared: &Shared,
    mut trainers: Vec<Trainer>,
    curves: Vec<Curve>,
    label: &str,
) -> anyhow::Result<Vec<Table>> {
    let lessons = shared.data.lessons(shared.batch, shared.seed)?;
    let fingerprint = || {
        let trainings: Vec<String> = trainers.iter().map(Trainer::fingerprint).collect();
        format!("{} on {}", trainings.join(", "), lessons.describe())
    };
    let mut saving = checkpoint::saving(lua, options, fingerprint)?;
    let mut descents: Vec<&mut Descent> = trainers.iter_mut().map(Trainer::descent_mut).collect();
    checkpoint::restore(saving.as_ref(), &mut descents)?;
    let students = (trainers, curves);
    let (_, curves) = follow(lua, shared, students, saving.as_mut(), label, |_, error| Err(error))?;
    curves.iter().map(|curve| curve.result(lua)).collect()
}

/// Runs the loop, and writes the curves out however it ends; `fail` is told of a student whose step fails. Returns how
/// often the teacher ran, and the curves.
fn follow(
    lua: &Lua,
    shared: &Shared,
    (mut trainers, mut curves): (Vec<Trainer>, Vec<Curve>),
    saving: Option<&mut Saving>,
    label: &str,
    fail: impl FnMut(usize, anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<(usize, Vec<Curve>)> {
    let lessons = shared.data.lessons(shared.batch, shared.seed)?;
    let steps = trainers.iter().map(|trainer| trainer.options.steps).max().unwrap_or(0);
    let taken = trainers.iter().map(Trainer::steps_taken).max().unwrap_or(0);
    let unit = ("tokens", lessons.tokens() as u64);
    let meter = meter(lua, steps as u64, label, unit, Duration::ZERO)?.from(taken as u64);
    let outcome = side_by_side(
        &mut trainers,
        |step| lessons.of(step),
        saving,
        |progress| {
            interrupt::check()?;
            curves[progress.trainer].add(progress.entry)?;
            meter.set(progress.entry.report.step as u64, Some(losses(&curves)));
            Ok(())
        },
        fail,
    );
    let written = curves.iter().filter_map(|curve| curve.run.as_ref()).try_for_each(Run::flush);
    outcome.and_then(|passes| Ok((passes, written.map(|()| curves)?)))
}
