//! Completion: names of variables, of what tables hold, and of the fields and methods of lft's objects.

use std::sync::Arc;

use mlua::{Lua, Value};

use crate::lua::catalogue::{Catalogue, Kind};
use crate::lua::types::class_of;

const KEYWORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Looks names up in a Lua state, without running any code in it.
pub struct Completion {
    lua: Lua,
    catalogue: Arc<Catalogue>,
}

/// What stands before the last dot or colon.
enum Object {
    Value(Value),
    /// An object of a class that a field is described to hold.
    Of(String),
    Unknown,
}

impl Completion {
    /// Completion of names in `lua`.
    pub fn new(lua: &Lua, catalogue: Arc<Catalogue>) -> Self {
        Self { lua: lua.clone(), catalogue }
    }

    /// Where the word at the end of `line` begins, and the words that go on from it.
    pub fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let outside = |c: char| !(c.is_alphanumeric() || "_.:".contains(c));
        let start =
            line.char_indices().rev().find(|(_, c)| outside(*c)).map_or(0, |(at, c)| at + c.len_utf8());
        let word = &line[start..];
        let (object, begun) = word.rfind(['.', ':']).map_or(("", word), |at| (&word[..=at], &word[at + 1..]));
        let mut names = match object.chars().last() {
            None => self.variables(),
            Some(mark) => self.members(&object[..object.len() - 1], mark == ':'),
        };
        names.retain(|name| name.starts_with(begun));
        names.sort_unstable();
        names.dedup();
        (start, names.into_iter().map(|name| format!("{object}{name}")).collect())
    }

    fn variables(&self) -> Vec<String> {
        let globals = Value::Table(self.lua.globals());
        self.keys(&globals, false).into_iter().chain(KEYWORDS.map(str::to_owned)).collect()
    }

    /// What may follow the object at `path` after a dot or, for methods, a colon.
    fn members(&self, path: &str, methods: bool) -> Vec<String> {
        match self.find(path) {
            Object::Value(value) => match class_of(&value) {
                Some(class) => self.of_class(&class, methods),
                None => self.keys(&value, methods),
            },
            Object::Of(class) => self.of_class(&class, methods),
            Object::Unknown if methods => {
                let entries = self.catalogue.entries.iter().filter(|entry| entry.kind() == Kind::Method);
                entries.map(|entry| entry.short().to_owned()).collect()
            }
            Object::Unknown => Vec::new(),
        }
    }

    fn of_class(&self, class: &str, methods: bool) -> Vec<String> {
        if methods {
            let entries = self.catalogue.of(class).filter(|entry| entry.kind() == Kind::Method);
            return entries.map(|entry| entry.short().to_owned()).collect();
        }
        let classes = self.catalogue.classes.iter().filter(|known| known.name == class);
        classes.flat_map(|known| known.fields).map(|field| field.0.to_owned()).collect()
    }

    /// The names in a table; those of strings are in the library `string`.
    fn keys(&self, value: &Value, methods: bool) -> Vec<String> {
        let table = match value {
            Value::Table(table) => table.clone(),
            Value::String(_) if methods => match self.lua.globals().raw_get("string") {
                Ok(library) => library,
                Err(_) => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let pairs = table.pairs::<Value, Value>().filter_map(Result::ok);
        let fitting = pairs.filter(|(_, value)| !methods || value.is_function());
        let names = fitting.filter_map(|(key, _)| Some(key.as_string()?.to_string_lossy()));
        names.filter(|name| is_name(name)).collect()
    }

    /// Follows a path such as `lft.ode` or `m.tokenizer` from the global variables.
    fn find(&self, path: &str) -> Object {
        let mut object = Object::Value(Value::Table(self.lua.globals()));
        for name in path.split(['.', ':']) {
            let class = match &object {
                Object::Value(Value::Table(table)) => match table.raw_get::<Value>(name) {
                    Ok(value) if !value.is_nil() => {
                        object = Object::Value(value);
                        continue;
                    }
                    _ => return Object::Unknown,
                },
                Object::Value(value) => class_of(value),
                Object::Of(class) => Some(class.clone()),
                Object::Unknown => None,
            };
            object =
                class.and_then(|class| self.type_of_field(&class, name)).map_or(Object::Unknown, Object::Of);
        }
        object
    }

    fn type_of_field(&self, class: &str, field: &str) -> Option<String> {
        let class = self.catalogue.classes.iter().find(|known| known.name == class)?;
        class.fields.iter().find(|known| known.0 == field).map(|known| known.1.to_owned())
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::session::Session;
    use super::*;
    use crate::lua::host::HostOptions;

    #[test]
    fn names_of_values_and_of_what_they_hold_are_completed() {
        let mut session = Session::new(&HostOptions::default()).unwrap();
        let code =
            "t = lft.ones({2}) settings = {width = 3, wide = function() end, ['no name'] = 1} s = 'text'
                    run = lft.progress(3) m = lft.pythia.load('data/teacher')";
        assert_eq!(session.evaluate(code), None);
        let completion = Completion::new(session.lua(), session.catalogue());
        let expect = |line: &str, start: usize, names: &[&str]| {
            assert_eq!(
                completion.candidates(line),
                (start, names.iter().map(|&name| name.to_owned()).collect()),
                "{line}"
            );
        };
        expect("x = lft.zer", 4, &["lft.zeros"]);
        expect("print(lft.ode.me", 6, &["lft.ode.methods"]);
        expect("t:index_s", 0, &["t:index_select"]);
        expect("f(t:lo", 2, &["t:log", "t:log_softmax", "t:logsumexp"]);
        expect("settings.wi", 0, &["settings.wide", "settings.width"]);
        expect("settings:w", 0, &["settings:wide"]);
        expect("s:upp", 0, &["s:upper"]);
        expect("run:", 0, &["run:finish", "run:step"]);
        expect("m.tok", 0, &["m.tokenizer"]);
        expect("m.tokenizer:", 0, &["m.tokenizer:decode", "m.tokenizer:encode", "m.tokenizer:save"]);
        expect("m.config.vocab", 0, &["m.config.vocab_size"]);
        expect("setting", 0, &["settings"]);
        expect("ret", 0, &["return"]);
        expect("für.x", 0, &[]);
        expect("nowhere.x", 0, &[]);
        // The value of a call is not known before it runs: every method fits.
        expect("f(x):log_so", 4, &[":log_softmax"]);
    }
}
