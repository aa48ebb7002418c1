//! Checks the arguments of a call against its catalogue entry before the binding sees them.

use anyhow::bail;
use mlua::{MultiValue, Value};

use super::catalogue::Entry;
use super::types::{Type, describe};
use crate::nearest::nearest;

/// The parsed parameters of one entry.
pub struct Signature {
    params: Vec<Parameter>,
    variadic: Option<Type>,
}

struct Parameter {
    name: &'static str,
    text: &'static str,
    kind: Type,
    optional: bool,
}

impl Signature {
    /// Parses the types of the entry's parameters.
    pub fn of(entry: &Entry) -> Self {
        let variadic = entry.params.iter().find(|param| param.0 == "...").map(|param| Type::parse(param.1));
        let params = entry
            .params
            .iter()
            .filter(|param| param.0 != "...")
            .map(|&(name, text, _)| Parameter {
                name: name.trim_end_matches('?'),
                text,
                kind: Type::parse(text),
                optional: name.ends_with('?'),
            })
            .collect();
        Self { params, variadic }
    }

    /// # Errors
    /// Names the first argument that is missing, of the wrong type or not expected.
    pub fn check(&self, args: &MultiValue) -> anyhow::Result<()> {
        for (position, param) in self.params.iter().enumerate() {
            let value = args.get(position).unwrap_or(&Value::Nil);
            match value.is_nil() {
                true if param.optional => {}
                true if !param.kind.accepts(value) => {
                    bail!("argument {} ({}) is missing: expected {}", position + 1, param.name, param.text)
                }
                _ => expect(&param.kind, param.text, value, || {
                    format!("argument {} ({})", position + 1, param.name)
                })?,
            }
        }
        let further = args.iter().enumerate().skip(self.params.len());
        for (position, value) in further {
            match &self.variadic {
                Some(kind) if !kind.accepts(value) => {
                    bail!("argument {} is {}, which is not accepted here", position + 1, describe(value))
                }
                None if !value.is_nil() => {
                    bail!("takes {} arguments, got {}", self.params.len(), args.len())
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// # Errors
/// When `value` is not of type `kind`; `what` names it, `text` is the type as documented.
pub fn expect(kind: &Type, text: &str, value: &Value, what: impl Fn() -> String) -> anyhow::Result<()> {
    if kind.accepts(value) {
        return Ok(());
    }
    let literals = kind.literals();
    let hint = value
        .as_string()
        .and_then(|given| nearest(&given.to_string_lossy(), literals.iter().copied()))
        .map_or(String::new(), |near| format!(" (did you mean \"{near}\"?)"));
    bail!("{}: expected {text}, found {}{hint}", what(), describe(value))
}
