//! `lft.sweep`: many configurations of one script, trained on shared teacher passes, each finished point kept.

mod point;
mod space;
mod waiting;
mod wave;

use anyhow::{Context, bail};
use mlua::{Function, Lua, LuaSerdeExt, Table};

pub use waiting::joining;

use super::catalogue::{Entry, OptionsTable};
use super::options::Options;
use super::register::Registry;
use super::state::State;
use crate::console;
use crate::sweep::{self, Config};

use point::{Outcome, Point};

/// Random points unless an option says otherwise.
const RANDOM: usize = 10;
/// Points that are trained side by side unless an option says otherwise.
const AT_ONCE: usize = 16;

const SWEEP: OptionsTable = OptionsTable {
    class: "SweepOptions",
    fields: &[
        (
            "run",
            "fun(config: table<string, any>, run: Run): table<string, any>|nil",
            "does one point; the row that it returns is logged with the configuration",
        ),
        ("grid?", "table<string, any[]>", "name to the values that it takes; all combinations are run"),
        (
            "random?",
            "table<string, any[]|SweepRangeOptions>",
            "name to a list to choose from, or to a range; whole numbers where both its ends are",
        ),
        ("samples?", "integer", "random points, 10 when left out"),
        ("seed?", "integer", "seed of the random points, the host's when left out"),
        (
            "name?",
            "string",
            "what resuming and queries go by; the script's file name without its ending when left out",
        ),
        (
            "at_once?",
            "integer",
            "points that are trained side by side, 16 when left out; each holds a student in memory",
        ),
        ("again?", "boolean", "run finished points again, false when left out"),
    ],
};

/// Registers `lft.sweep`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.options(&SWEEP);
    registry.options(&space::RANGE);
    let fields = &[
        ("config", "table<string, any>", "the configuration"),
        ("status", "\"finished\"|\"failed\"", "how it ended"),
        ("kept", "boolean", "whether an earlier sweep of this name had finished it"),
        ("result", "table<string, any>", "the row that its function returned"),
        ("error", "string|nil", "why it failed"),
        ("run_id", "string", "id of its run"),
    ];
    registry.record("SweepPoint", "One configuration of a sweep and what came of it.", fields);
    let fields = &[
        ("[integer]", "SweepPoint", "the points, in order"),
        ("failed", "integer", "how many of them failed"),
        ("teacher_passes", "integer", "batches that the teacher ran through in trainings of this sweep"),
    ];
    registry.record("SweepResult", "The points of a sweep.", fields);
    registry.function(
        Entry {
            name: "lft.sweep",
            about: "Runs a function for every configuration of a grid or of random draws, each in a run of its own called \
                    name/configuration. Where several of them call s:train{…} with the same teacher, data, batch and seed, \
                    they are trained side by side on one pass of the teacher. Finished points are kept: the same sweep, started \
                    again, runs the others only. A point that fails is reported and does not stop the rest.",
            params: &[("options", "SweepOptions", "what to vary, and the function")],
            returns: &[("SweepResult", "all points, in the order of the configurations")],
            example: "local points = lft.sweep{name = \"squares\", grid = {x = {1, 2, 3}}, run = function(config, run)\n  return {square = config.x ^ 2}\nend}\nassert(#points == 3 and points[3].result.square == 9 and points.failed == 0)",
        },
        |lua, options: Table| {
            let options = Options::read(lua, Some(options), &SWEEP)?;
            Sweep::read(lua, &options)?.run(lua)
        },
    )
}

/// What is to be run.
struct Sweep {
    state: std::sync::Arc<State>,
    name: String,
    function: Function,
    configs: Vec<Config>,
    at_once: usize,
    again: bool,
}

impl Sweep {
    fn read(lua: &Lua, options: &Options) -> anyhow::Result<Self> {
        let state = State::of(lua)?;
        let configs = match (options.get::<Table>("grid")?, options.get::<Table>("random")?) {
            (Some(grid), None) => {
                for name in ["samples", "seed"] {
                    if options.get::<i64>(name)?.is_some() {
                        bail!("option '{name}' belongs to random, a grid has all combinations");
                    }
                }
                space::grid(lua, &grid).context("option 'grid'")?
            }
            (None, Some(random)) => {
                let (samples, seed) = (options.count("samples", RANDOM, 1)?, options.or("seed", state.seed)?);
                space::random(lua, &random, samples, seed).context("option 'random'")?
            }
            _ => bail!("one of the options 'grid' and 'random' must be given"),
        };
        let name = options.get::<String>("name")?.unwrap_or_else(|| state.script_name());
        Ok(Self {
            name,
            function: options.required("run")?,
            configs,
            at_once: options.count("at_once", AT_ONCE, 1)?,
            again: options.or("again", false)?,
            state,
        })
    }

    fn run(&self, lua: &Lua) -> anyhow::Result<Table> {
        let mut outcomes = self.kept()?;
        let todo: Vec<usize> = (0..outcomes.len()).filter(|at| outcomes[*at].is_none()).collect();
        if todo.len() < outcomes.len() {
            let kept = outcomes.len() - todo.len();
            self.tell(&format!(
                "sweep {}: {kept} of {} points were finished before",
                self.name,
                outcomes.len()
            ));
        }
        let mut passes = 0;
        for places in todo.chunks(self.at_once) {
            let points =
                places.iter().map(|at| self.point(lua, *at)).collect::<anyhow::Result<Vec<Point>>>()?;
            passes += wave::run(lua, points, |point, outcome| {
                self.report(point, &outcome);
                outcomes[point.place] = Some(outcome);
            })?;
        }
        point::tables(lua, &self.configs, outcomes.into_iter().flatten(), passes)
    }

    /// Outcomes of the points that earlier sweeps finished, at their places.
    fn kept(&self) -> anyhow::Result<Vec<Option<Outcome>>> {
        if self.again {
            return Ok(vec![None; self.configs.len()]);
        }
        let (known, warnings) = sweep::finished(&self.state.runs_dir, &self.name)?;
        for warning in warnings {
            console::note(&format!("warning: {warning}"));
        }
        let find = |key: String| known.iter().find(|point| point.key == key);
        Ok(self.configs.iter().map(|config| find(sweep::key(config)).map(Outcome::kept)).collect())
    }

    fn point(&self, lua: &Lua, place: usize) -> anyhow::Result<Point> {
        Point::start(lua, &self.name, place, &self.configs[place], &self.function)
    }

    fn report(&self, point: &Point, outcome: &Outcome) {
        let label = sweep::label(&point.config);
        match &outcome.error {
            Some(error) => console::note(&format!("warning: sweep {}, {label}: {error}", self.name)),
            None => self.tell(&format!("sweep {}, {label}: finished", self.name)),
        }
    }

    fn tell(&self, line: &str) {
        if !self.state.quiet {
            console::note(line);
        }
    }
}

/// A Lua value as it is kept with a point.
fn json(lua: &Lua, value: mlua::Value) -> anyhow::Result<serde_json::Value> {
    Ok(lua.from_value(value)?)
}
