//! `lft.ode`: solvers.

use std::borrow::Cow;
use std::sync::Arc;

use mlua::{FromLua, IntoLua, Lua, Table, Value};

use super::catalogue::{Entry, OptionsTable};
use super::field::{AT_NUMBER, FieldArg, Scripted};
use super::options::Options;
use super::register::Registry;
use super::tensor::{Handle, TensorArg};
use crate::ode::{self, Method, Solution, State, Tableau};

/// LuaCATS type of a solver's name.
pub const SOLVER: &str = "\"euler\"|\"midpoint\"|\"heun\"|\"ralston\"|\"rk4\"|\"bosh3\"|\"tsit5\"|\"dopri5\"";

/// LuaCATS type of a solver: its name or the coefficients of one's own.
const METHOD: &str =
    "\"euler\"|\"midpoint\"|\"heun\"|\"ralston\"|\"rk4\"|\"bosh3\"|\"tsit5\"|\"dopri5\"|TableauOptions";

const TABLEAU: OptionsTable = OptionsTable {
    class: "TableauOptions",
    fields: &[
        ("a", "number[][]", "the rows of coefficients below the diagonal, the first of them empty"),
        ("b", "number[]", "the weights of the new state"),
        ("c", "number[]", "the nodes, each the sum of its row of a"),
        (
            "b_err?",
            "number[]",
            "b less the embedded method's weights, which lets the solver choose its steps",
        ),
        ("name?", "string", "how errors call it, own when left out"),
    ],
};
const SOLVE: OptionsTable = OptionsTable {
    class: "SolveOptions",
    fields: &[
        (
            "method?",
            METHOD,
            "a solver's name or an explicit Runge–Kutta method of one's own, dopri5 when left out",
        ),
        ("t0?", "number", "time of x0, 0 when left out"),
        ("t1?", "number", "time of x1, 1 when left out; may lie before t0"),
        (
            "steps?",
            "integer",
            "equal steps; the adaptive bosh3, tsit5 and dopri5 choose their own when left out",
        ),
        ("rtol?", "number", "relative tolerance of an adaptive solver, 1e-5 when left out"),
        ("atol?", "number", "absolute tolerance of an adaptive solver, 1e-6 when left out"),
        ("save_at?", "number[]", "times to save the solution at, in the direction of the integration"),
        ("max_steps?", "integer", "attempts after which an adaptive solver gives up, 100000 when left out"),
        ("first_step?", "number", "size of an adaptive solver's first attempt, estimated when left out"),
        (
            "record?",
            "boolean",
            "false keeps no record for gradients of a VelocityField, which saves memory; true when left out",
        ),
    ],
};

/// Registers `lft.ode`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.module("lft.ode", "Solvers of ordinary differential equations x' = f(x, t).");
    registry.options(&TABLEAU);
    registry.options(&SOLVE);
    let stats = &[
        ("nfe", "integer", "evaluations of f"),
        ("accepted", "integer", "steps taken"),
        ("rejected", "integer", "attempts whose error exceeded the tolerance"),
        ("saved", "any[]|nil", "the states at save_at, where that was given"),
    ];
    registry.record("SolveStats", "What an integration cost.", stats);
    registry.function(
        Entry {
            name: "lft.ode.solve",
            about: "Integrates x' = f(x, t) from x0 at t0 to t1. The state is a tensor, or for small systems a number or \
                    an array of numbers. In equal steps the result keeps the record for gradients.",
            params: &[
                ("f", AT_NUMBER, "a velocity field or a function of state and time"),
                ("x0", "Tensor|number|number[]", "the state at t0"),
                ("options?", "SolveOptions", "solver, times and exactness"),
            ],
            returns: &[("any", "the state at t1, of the kind of x0"), ("SolveStats", "what it cost")],
            example: "local x1, stats = lft.ode.solve(function(x, t) return -x end, lft.ones({2}), {method = \"rk4\", steps = 10})\nassert(math.abs(x1[1]:item() - math.exp(-1)) < 1e-5 and stats.nfe == 40)",
        },
        |lua, (f, x0, options): (FieldArg, Value, Option<Table>)| {
            let options = Options::read(lua, options, &SOLVE)?;
            let record = options.or("record", true)?;
            let (tableau, options) = read(lua, &options)?;
            let tableau = tableau.as_ref();
            match (&f, &x0) {
                (FieldArg::Velocity(field), _) => {
                    let x0 = TensorArg::of(&x0)?;
                    let field = if record { field.clone() } else { Arc::new(field.detach()) };
                    let solution = ode::solve_with(tableau, |x, t| field.at(x, t), &x0, &options)?;
                    finish(lua, solution, &options, Handle::new)
                }
                (FieldArg::Function(f), Value::Table(_)) => {
                    let x0 = Vec::<f64>::from_lua(x0, lua)?;
                    let solution = ode::solve_with(tableau, |x: &Vec<f64>, t| f.call(lua, x.clone(), t), &x0, &options)?;
                    finish(lua, solution, &options, |x| x)
                }
                (FieldArg::Function(f), Value::UserData(_)) => {
                    let x0 = TensorArg::of(&x0)?;
                    let solution = ode::solve_with(tableau, |x, t| tensor_field(lua, f, x, t), &x0, &options)?;
                    finish(lua, solution, &options, Handle::new)
                }
                (FieldArg::Function(f), _) => {
                    let x0 = [f64::from_lua(x0, lua)?];
                    let solution = ode::solve_with(tableau, |x: &[f64; 1], t| Ok::<_, anyhow::Error>([f.call(lua, x[0], t)?]), &x0, &options)?;
                    finish(lua, solution, &options, |[x]| x)
                }
            }
        },
    )?;
    registry.function(
        Entry {
            name: "lft.ode.methods",
            about: "The names of all solvers.",
            params: &[],
            returns: &[("string[]", "in order of rising cost of a step; the last three are adaptive")],
            example: "assert(lft.ode.methods()[1] == \"euler\")",
        },
        |_, ()| Ok(Method::ALL.map(Method::name)),
    )
}

fn read(lua: &Lua, options: &Options) -> anyhow::Result<(Cow<'static, Tableau>, ode::Options)> {
    let default = ode::Options::default();
    let tableau = match options.get::<Value>("method")? {
        Some(Value::Table(own)) => Cow::Owned(own_tableau(&Options::read(lua, Some(own), &TABLEAU)?)?),
        _ => Cow::Borrowed(method(options, "method", default.method)?.tableau()),
    };
    let options = ode::Options {
        t0: options.or("t0", default.t0)?,
        t1: options.or("t1", default.t1)?,
        steps: steps(options)?,
        rtol: options.or("rtol", default.rtol)?,
        atol: options.or("atol", default.atol)?,
        save_at: options.or("save_at", default.save_at)?,
        max_steps: options.count("max_steps", default.max_steps, 1)?,
        first_step: options.get("first_step")?,
        ..default
    };
    Ok((tableau, options))
}

fn own_tableau(options: &Options) -> anyhow::Result<Tableau> {
    let rows: Vec<Vec<f64>> = options.required("a")?;
    let name = options.or("name", "own".to_owned())?;
    Ok(Tableau::from_rows(
        &name,
        options.required("c")?,
        &rows,
        options.required("b")?,
        options.get("b_err")?,
    )?)
}

/// The solver that option `name` names.
///
/// # Errors
/// An unknown name.
pub fn method(options: &Options, name: &str, default: Method) -> anyhow::Result<Method> {
    Ok(options.get::<String>(name)?.map_or(Ok(default), |name| name.parse())?)
}

/// The option `steps`.
///
/// # Errors
/// Fewer than one step.
pub fn steps(options: &Options) -> anyhow::Result<Option<usize>> {
    match options.count("steps", 0, 1)? {
        0 => Ok(None),
        steps => Ok(Some(steps)),
    }
}

fn tensor_field(
    lua: &Lua,
    f: &Scripted,
    x: &candle_core::Tensor,
    t: f64,
) -> anyhow::Result<candle_core::Tensor> {
    Ok(f.call::<TensorArg>(lua, Handle::new(x.clone()), t)?.0)
}

fn finish<S: State, V: IntoLua>(
    lua: &Lua,
    solution: Solution<S>,
    options: &ode::Options,
    value: impl Fn(S) -> V,
) -> anyhow::Result<(Value, Table)> {
    let stats = lua.create_table()?;
    stats.set("nfe", solution.stats.nfe)?;
    stats.set("accepted", solution.stats.accepted)?;
    stats.set("rejected", solution.stats.rejected)?;
    if !options.save_at.is_empty() {
        stats.set("saved", lua.create_sequence_from(solution.saved.into_iter().map(&value))?)?;
    }
    Ok((value(solution.x1).into_lua(lua)?, stats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_names_are_the_solvers() {
        let names = Method::ALL.map(|method| format!("\"{method}\"")).join("|");
        assert_eq!(SOLVER, names);
        assert_eq!(METHOD, format!("{names}|TableauOptions"));
    }
}
