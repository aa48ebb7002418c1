//! `lft.optim`: optimizers and learning rates for training loops of one's own.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use candle_core::Var;
use mlua::{Function, Lua, MultiValue, Table, UserDataRef, Value};

use super::catalogue::{Class, Entry, OptionsTable, Param};
use super::error::guard;
use super::options::Options;
use super::register::{Members, Registry, userdata};
use super::tensor::{Gradients, TensorArg};
use crate::train::{self, AdamW, AdamWOptions, Muon, Schedule, Sgd};

/// An optimizer and the learning rate of steps that name none.
pub struct Optimizer {
    rule: Mutex<Box<dyn train::Optimizer + Send>>,
    lr: f64,
}
userdata!(Optimizer);

const PARAMS: Param =
    ("params", "Tensor[]|table<string, Tensor>", "the variables to train, for example u:parameters()");
const ADAMW: OptionsTable = OptionsTable {
    class: "AdamWOptions",
    fields: &[
        PARAMS,
        ("lr?", "number", "learning rate of steps that name none, 1e-3 when left out"),
        ("betas?", "number[]", "decay β₁ and β₂ of the moments, {0.9, 0.95} when left out"),
        ("weight_decay?", "number", "decoupled weight decay, 0 when left out"),
        ("eps?", "number", "added to the root of the second moment, 1e-8 when left out"),
    ],
};
const SGD: OptionsTable = OptionsTable {
    class: "SgdOptions",
    fields: &[
        PARAMS,
        ("lr?", "number", "learning rate of steps that name none, 1e-3 when left out"),
        ("momentum?", "number", "share of the last direction that is kept, 0 when left out"),
    ],
};
const MUON: OptionsTable = OptionsTable {
    class: "MuonOptions",
    fields: &[
        PARAMS,
        ("lr?", "number", "learning rate of steps that name none, 1e-3 when left out; of AdamW's size"),
        ("momentum?", "number", "share of the last direction that is kept, 0.95 when left out"),
        (
            "betas?",
            "number[]",
            "AdamW's decay of the moments of what is no matrix, {0.9, 0.95} when left out",
        ),
        ("weight_decay?", "number", "decoupled weight decay, 0 when left out"),
    ],
};
const STEP: OptionsTable = OptionsTable {
    class: "OptimizerStepOptions",
    fields: &[
        ("lr?", "number", "learning rate of this step, the optimizer's when left out"),
        (
            "clip?",
            "number",
            "largest gradient norm; larger gradients are scaled down to it, none when left out",
        ),
    ],
};
const SCHEDULE: OptionsTable = OptionsTable {
    class: "ScheduleOptions",
    fields: &[
        ("steps", "integer", "steps of the training"),
        ("lr?", "number", "peak learning rate, 1e-3 when left out"),
        ("warmup?", "integer", "steps of linear warm-up, 100 when left out, at most a tenth of all"),
        ("final_lr?", "number", "learning rate at the end as a share of the peak, 0.02 when left out"),
    ],
};

/// Registers `lft.optim`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.optim", "Optimizers and learning rates for training loops of one's own.");
    for table in [&ADAMW, &SGD, &MUON, &STEP, &SCHEDULE] {
        registry.options(table);
    }
    registry.function(
        Entry {
            name: "lft.optim.adamw",
            about: "AdamW, the optimizer of s:train, with moments in f32.",
            params: &[("options", "AdamWOptions", "variables and coefficients")],
            returns: &[("Optimizer", "moves the variables with opt:step(grads)")],
            example: "local w = lft.var(lft.tensor({5}))\nlocal opt = lft.optim.adamw{params = {w}, lr = 0.1}\nfor _ = 1, 200 do opt:step((w * w):sum():backward()) end\nassert(math.abs(w:item()) < 0.1)",
        },
        |lua, options: Table| {
            let options = Options::read(lua, Some(options), &ADAMW)?;
            let default = AdamWOptions::default();
            let adamw = AdamWOptions {
                betas: betas(&options)?.unwrap_or(default.betas),
                eps: options.or("eps", default.eps)?,
                weight_decay: options.or("weight_decay", default.weight_decay)?,
            };
            Optimizer::new(AdamW::new(&parameters(&options)?, adamw)?, &options)
        },
    )?;
    registry.function(
        Entry {
            name: "lft.optim.sgd",
            about: "Gradient descent, with momentum where it is asked for: v = momentum·v + g, w = w - lr·v.",
            params: &[("options", "SgdOptions", "variables and coefficients")],
            returns: &[("Optimizer", "moves the variables with opt:step(grads)")],
            example: "local w = lft.var(lft.tensor({1}))\nlocal opt = lft.optim.sgd{params = {w}, lr = 0.25}\nopt:step((w * w):sum():backward())\nassert(w:item() == 0.5)",
        },
        |lua, options: Table| {
            let options = Options::read(lua, Some(options), &SGD)?;
            Optimizer::new(Sgd::new(&parameters(&options)?, options.or("momentum", 0.0)?)?, &options)
        },
    )?;
    registry.function(
        Entry {
            name: "lft.optim.muon",
            about: "Muon: the momentum of every matrix is made orthogonal before it moves it; AdamW moves the rest.",
            params: &[("options", "MuonOptions", "variables and coefficients")],
            returns: &[("Optimizer", "moves the variables with opt:step(grads)")],
            example: "local w = lft.var(lft.tensor({{3, 0}, {0, 1}}))\nlocal opt = lft.optim.muon{params = {w}, lr = 0.1}\nlocal before = (w * w):sum():item()\nopt:step((w * w):sum():backward())\nassert((w * w):sum():item() < before)",
        },
        |lua, options: Table| {
            let options = Options::read(lua, Some(options), &MUON)?;
            let default = AdamWOptions::default();
            let adamw = AdamWOptions {
                betas: betas(&options)?.unwrap_or(default.betas),
                weight_decay: options.or("weight_decay", default.weight_decay)?,
                ..default
            };
            let momentum = options.or("momentum", train::MOMENTUM)?;
            Optimizer::new(Muon::new(&parameters(&options)?, |_| true, momentum, adamw)?, &options)
        },
    )?;
    registry.function(
        Entry {
            name: "lft.optim.schedule",
            about: "The learning rate of s:train: linear warm-up to the peak, then half a cosine down to a share of it.",
            params: &[("options", "ScheduleOptions", "peak, lengths and end")],
            returns: &[("fun(step: integer): number", "the learning rate of a step, counted from 1")],
            example: "local rate = lft.optim.schedule{lr = 1, warmup = 10, steps = 1000, final_lr = 0.1}\nassert(rate(1) == 0.1 and rate(10) == 1 and math.abs(rate(1001) - 0.1) < 1e-9)",
        },
        |lua, options: Table| schedule(lua, &Options::read(lua, Some(options), &SCHEDULE)?),
    )?;
    let about = "Moves variables against their gradients.";
    registry.class(Class { name: "Optimizer", about, fields: &[] }, members)
}

fn members(class: &mut Members<'_, Optimizer>) {
    class.method(
        Entry {
            name: "Optimizer:step",
            about: "One update. Gradients that are not finite, or missing for a variable, are an error and change nothing.",
            params: &[
                ("gradients", "Gradients", "from loss:backward()"),
                ("options?", "OptimizerStepOptions", "learning rate and clipping"),
            ],
            returns: &[("number", "the global norm of the gradients before clipping")],
            example: "local w = lft.var(lft.tensor({3, 4}))\nlocal opt = lft.optim.sgd{params = {w}}\nlocal norm = opt:step((w * w):sum():backward(), {lr = 1, clip = 5})\nassert(norm == 10 and w:norm():item() < 1e-6)",
        },
        |lua, this: &Optimizer, (gradients, options): (UserDataRef<Gradients>, Option<Table>)| {
            let options = Options::read(lua, options, &STEP)?;
            let lr = rate(&options, this.lr)?;
            let clip = options.get::<f64>("clip")?;
            if let Some(clip) = clip.filter(|clip| clip.is_nan() || *clip <= 0.0) {
                bail!("option 'clip' must be a positive number, found {clip}");
            }
            let mut rule = this.rule.lock().unwrap_or_else(PoisonError::into_inner);
            rule.step(gradients.store(), lr, clip)
        },
    );
    class.hidden("Optimizer.__tostring", |_, this: &Optimizer, _: MultiValue| {
        Ok(format!("Optimizer: lr {:?}", this.lr))
    });
}

impl Optimizer {
    fn new(rule: impl train::Optimizer + Send + 'static, options: &Options) -> anyhow::Result<Self> {
        Ok(Self { rule: Mutex::new(Box::new(rule)), lr: rate(options, train::Options::default().lr)? })
    }
}

fn rate(options: &Options, default: f64) -> anyhow::Result<f64> {
    match options.or("lr", default)? {
        lr if lr.is_finite() && lr >= 0.0 => Ok(lr),
        lr => bail!("option 'lr' must be a number of at least 0, found {lr}"),
    }
}

/// The option `betas`, two numbers.
///
/// # Errors
/// Another number of them.
pub fn betas(options: &Options) -> anyhow::Result<Option<(f64, f64)>> {
    match options.get::<Vec<f64>>("betas")?.as_deref() {
        None => Ok(None),
        Some(&[first, second]) => Ok(Some((first, second))),
        Some(other) => bail!("option 'betas' must be two numbers, found {}", other.len()),
    }
}

/// The option `params` in the order of the names, which a table alone does not keep.
fn parameters(options: &Options) -> anyhow::Result<Vec<(String, Var)>> {
    let mut named = Vec::new();
    for pair in options.required::<Table>("params")?.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let name = name.to_string()?;
        let tensor = TensorArg::of(&value).with_context(|| format!("option 'params': {name}"))?;
        if !tensor.is_variable() {
            bail!("option 'params': {name} is no variable; make one with lft.var(t)");
        }
        named.push((name, Var::from_tensor(&tensor)?));
    }
    if named.is_empty() {
        bail!("option 'params' holds no variables");
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(named)
}

fn schedule(lua: &Lua, options: &Options) -> anyhow::Result<Function> {
    let default = train::Options::default();
    let training = train::Options {
        steps: options.count("steps", default.steps, 1)?,
        lr: options.or("lr", default.lr)?,
        warmup: options.count("warmup", default.warmup, 0)?,
        final_lr: options.or("final_lr", default.final_lr)?,
        ..default
    };
    training.validate()?;
    let schedule = Schedule::new(&training);
    Ok(lua.create_function(move |lua, step: i64| {
        guard(lua, "lft.optim.schedule", || {
            match usize::try_from(step).ok().and_then(|step| step.checked_sub(1)) {
                Some(step) => Ok(schedule.lr(step)),
                None => bail!("steps are counted from 1, found {step}"),
            }
        })
    })?)
}
