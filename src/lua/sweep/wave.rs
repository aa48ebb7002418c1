//! Points that run side by side: each as far as its next training, then those together that share a teacher pass.

use std::collections::VecDeque;

use mlua::{Lua, MultiValue, Table, Value};

use super::point::{Outcome, Point};
use crate::lua::error::{Ended, text};
use crate::lua::flow::StudentObject;
use crate::lua::object::Object;
use crate::lua::state::State;
use crate::lua::train::{self, Request};

/// A point that waits for its training.
struct Waiting {
    point: Point,
    request: Request,
}

/// Runs the points to their ends; `done` hears of each as soon as it has ended. Returns the teacher's passes.
///
/// # Errors
/// An interrupt, `os.exit`, and files that cannot be written.
pub fn run(lua: &Lua, points: Vec<Point>, mut done: impl FnMut(&Point, Outcome)) -> anyhow::Result<usize> {
    let begin = |point: Point| Ok((point.arguments(lua)?, point));
    let mut ready = points.into_iter().map(begin).collect::<anyhow::Result<VecDeque<_>>>()?;
    let (mut waiting, mut passes) = (Vec::<Waiting>::new(), 0);
    loop {
        while let Some((arguments, point)) = ready.pop_front() {
            match advance(lua, &point, arguments)? {
                Step::Ended(outcome) => done(&point, outcome),
                Step::Asks(request) => waiting.push(Waiting { point, request: *request }),
                Step::Refused(reason) => ready.push_front((refusal(lua, &reason)?, point)),
            }
        }
        if waiting.is_empty() {
            return Ok(passes);
        }
        let first = waiting.remove(0);
        let (mut group, others): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|other| other.request.shares_passes(&first.request));
        waiting = others;
        group.insert(0, first);
        let (points, requests): (Vec<Point>, Vec<Request>) =
            group.into_iter().map(|member| (member.point, member.request)).unzip();
        let (spent, results) = train::apart(lua, requests)?;
        passes += spent;
        for (point, result) in points.into_iter().zip(results) {
            let arguments = match result {
                Ok(table) => [Value::Table(table)].into_iter().collect(),
                Err(error) => refusal(lua, &text(&error))?,
            };
            ready.push_back((arguments, point));
        }
    }
}

/// What a point did when it was resumed.
enum Step {
    Ended(Outcome),
    /// It wants to train.
    Asks(Box<Request>),
    /// It asked for a training that is impossible.
    Refused(String),
}

fn advance(lua: &Lua, point: &Point, arguments: MultiValue) -> anyhow::Result<Step> {
    let here = point.thread.to_pointer() as usize;
    let outcome = State::of(lua)?.sweep_in(here, || point.thread.resume::<MultiValue>(arguments));
    let values = match outcome {
        Ok(values) => values,
        Err(error) if Ended::of(&error).is_some() => return Err(error.into()),
        Err(error) => return Ok(Step::Ended(point.fail(&error)?)),
    };
    if point.thread.is_finished() {
        let returned = values.front().cloned().unwrap_or(Value::Nil);
        let ended = match point.finish(&returned) {
            Ok(outcome) => outcome,
            Err(error) => point.fail(&mlua::Error::RuntimeError(text(&error)))?,
        };
        return Ok(Step::Ended(ended));
    }
    let Ok((student, options)) = lua_pair(lua, values) else {
        let error = "the function of a sweep must not yield".to_owned();
        return Ok(Step::Ended(point.fail(&mlua::Error::RuntimeError(error))?));
    };
    Ok(match Request::read(lua, &student.0, options) {
        Ok(request) => Step::Asks(Box::new(request)),
        Err(error) => Step::Refused(text(&error)),
    })
}

fn lua_pair(lua: &Lua, values: MultiValue) -> mlua::Result<(Object<StudentObject>, Table)> {
    mlua::FromLuaMulti::from_lua_multi(values, lua)
}

/// What makes `s:train` raise an error.
fn refusal(lua: &Lua, reason: &str) -> anyhow::Result<MultiValue> {
    Ok([Value::Nil, Value::String(lua.create_string(reason)?)].into_iter().collect())
}
