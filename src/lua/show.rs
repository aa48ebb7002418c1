//! Values in words, for the REPL and for errors that are no strings.

use mlua::Value;

use super::error::ScriptError;

/// Entries of a table that are shown.
const MOST: usize = 50;

/// A value as text; tables are opened two levels deep, unless they have a text of their own.
pub fn show(value: &Value) -> String {
    nested(value, 0)
}

fn nested(value: &Value, depth: usize) -> String {
    let own_text = |table: &mlua::Table| {
        table.metatable().is_some_and(|meta| meta.contains_key("__tostring").unwrap_or(false))
    };
    match value {
        Value::Table(table) if depth < 2 && !own_text(table) => {
            let items: Vec<Value> = table.sequence_values().take(MOST).filter_map(Result::ok).collect();
            let named = table.pairs::<Value, Value>().filter_map(Result::ok).take(MOST);
            let mut named: Vec<String> = named
                .filter(|(key, _)| !matches!(key, Value::Integer(i) if (1..=items.len() as i64).contains(i)))
                .map(|(key, value)| format!("{} = {}", nested(&key, depth + 1), nested(&value, depth + 1)))
                .collect();
            named.sort();
            let items = items.iter().map(|item| nested(item, depth + 1));
            format!("{{{}}}", items.chain(named).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().unwrap_or_else(|error| ScriptError::new(&error).message),
    }
}
