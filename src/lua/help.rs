//! `lft.help`: the catalogue on the terminal.

use anyhow::bail;
use mlua::{Function, Lua, Table, Value};

use super::catalogue::{Catalogue, Entry, Kind};
use super::register::Registry;
use super::state::State;
use super::types::class_of;
use crate::nearest::nearest;

/// Registers `lft.help`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.help",
            about: "Explains a function, class or module, given by name or as an object; without argument lists all.",
            params: &[("what?", "any", "a name such as \"lft.zeros\" or \"Tensor:sum\", or an object")],
            returns: &[("string", "the explanation")],
            example: "assert(lft.help('Tensor:sum'):find('sum'))",
        },
        |lua, what: Value| {
            let catalogue = State::of(lua)?.catalogue();
            match &what {
                Value::Function(function) => match name_of(lua, &catalogue, function)? {
                    Some(entry) => Ok(one(entry, &catalogue)),
                    None => bail!("this function is not one of lft's"),
                },
                what => explain(&catalogue, what),
            }
        },
    )
}

/// The entry under which `function` stands in the module.
fn name_of<'a>(
    lua: &Lua,
    catalogue: &'a Catalogue,
    function: &Function,
) -> anyhow::Result<Option<&'a Entry>> {
    let root: Table = lua.globals().get::<Function>("require")?.call("lft")?;
    for entry in catalogue.entries.iter().filter(|entry| entry.kind() == Kind::Function) {
        let place =
            entry.owner().split('.').skip(1).try_fold(root.clone(), |table, part| table.raw_get(part))?;
        if place.raw_get::<Value>(entry.short())?.to_pointer() == function.to_pointer() {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn explain(catalogue: &Catalogue, what: &Value) -> anyhow::Result<String> {
    let name = match what {
        Value::Nil => return Ok(overview(catalogue)),
        Value::String(name) => name.to_string_lossy(),
        other => match class_of(other) {
            Some(class) => class,
            None => bail!("give a name such as \"lft.zeros\", or an object of lft"),
        },
    };
    if let Some(entry) = catalogue.find(&name) {
        return Ok(one(entry, catalogue));
    }
    let members: Vec<&Entry> = catalogue.of(&name).collect();
    if !members.is_empty() {
        return Ok(members.iter().map(|entry| line(entry)).collect::<Vec<_>>().join("\n"));
    }
    let shorts = catalogue.entries.iter().filter(|entry| entry.short() == name).collect::<Vec<_>>();
    if !shorts.is_empty() {
        return Ok(shorts.iter().map(|entry| one(entry, catalogue)).collect::<Vec<_>>().join("\n\n"));
    }
    match nearest(&name, catalogue.entries.iter().map(|entry| entry.name)) {
        Some(near) => bail!("nothing is called '{name}' (did you mean '{near}'?)"),
        None => bail!("nothing is called '{name}'; lft.help() lists everything"),
    }
}

fn overview(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    let modules = catalogue.modules.iter().map(|module| (module.name, module.about));
    for (owner, about) in modules.chain(catalogue.classes.iter().map(|class| (class.name, class.about))) {
        let names: Vec<&str> = catalogue.of(owner).map(Entry::short).collect();
        text.push_str(&format!("{owner}: {about}\n  {}\n", names.join(" ")));
    }
    text + "lft.help(\"name\") explains one of them."
}

fn line(entry: &Entry) -> String {
    format!("{}\n    {}", entry.call(), entry.about)
}

fn one(entry: &Entry, catalogue: &Catalogue) -> String {
    let mut text = line(entry);
    for (name, kind, about) in entry.params {
        text.push_str(&format!("\n  {name}: {kind}  {about}"));
        for table in catalogue.options.iter().filter(|table| table.class == *kind) {
            for (name, kind, about) in table.fields {
                text.push_str(&format!("\n      {name}: {kind}  {about}"));
            }
        }
    }
    for (kind, about) in entry.returns {
        text.push_str(&format!("\n  -> {kind}  {about}"));
    }
    text.push_str("\n  example:\n    ");
    text + &entry.example.replace('\n', "\n    ")
}
