//! LuaCATS type expressions, parsed so that the same text documents a parameter and checks it.

use mlua::Value;

/// The part of LuaCATS that the catalogue uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// `any`
    Any,
    /// `nil`
    Nil,
    /// `boolean`
    Boolean,
    /// `integer`; a float with a whole value passes, as everywhere in Lua 5.4.
    Integer,
    /// `number`
    Number,
    /// `string`
    String,
    /// `table`, `table<K, V>`, `{…}` or a class whose name ends in `Options`
    Table,
    /// `function` or `fun(…): …`
    Function,
    /// `"euler"`
    Literal(&'static str),
    /// `T[]`
    Array(Box<Type>),
    /// A class of userdata
    Class(&'static str),
    /// `A|B`
    Union(Vec<Type>),
}

impl Type {
    /// Reads a type expression. Every text is some type: what is no basic type is a class.
    pub fn parse(text: &'static str) -> Self {
        let text = text.trim();
        let parts = split_union(text);
        if parts.len() > 1 {
            return Self::Union(parts.into_iter().map(Self::parse).collect());
        }
        if let Some(item) = text.strip_suffix("[]") {
            return Self::Array(Box::new(Self::parse(item)));
        }
        match text {
            "any" => Self::Any,
            "nil" => Self::Nil,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "table" => Self::Table,
            "function" => Self::Function,
            _ if text.starts_with("fun(") => Self::Function,
            _ if text.starts_with("table<") || text.starts_with('{') || text.ends_with("Options") => {
                Self::Table
            }
            _ if text.starts_with('(') && text.ends_with(')') => Self::parse(&text[1..text.len() - 1]),
            _ if text.starts_with('"') => Self::Literal(text.trim_matches('"')),
            _ => Self::Class(text),
        }
    }

    /// Whether `value` is of this type.
    pub fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Nil => value.is_nil(),
            Self::Boolean => value.is_boolean(),
            Self::Integer => match value {
                Value::Integer(_) => true,
                Value::Number(number) => number.fract() == 0.0 && number.abs() < 9e15,
                _ => false,
            },
            Self::Number => value.is_integer() || value.is_number(),
            Self::String => value.is_string(),
            Self::Table => value.is_table(),
            Self::Function => value.is_function() || class_of(value).is_some(),
            Self::Literal(literal) => {
                value.as_string().is_some_and(|text| text.as_bytes() == literal.as_bytes())
            }
            Self::Array(item) => value.as_table().is_some_and(|table| {
                table.sequence_values::<Value>().all(|entry| entry.is_ok_and(|entry| item.accepts(&entry)))
            }),
            Self::Class(class) => class_of(value).is_some_and(|name| name == *class),
            Self::Union(types) => types.iter().any(|one| one.accepts(value)),
        }
    }

    /// The string literals that this type allows.
    pub fn literals(&self) -> Vec<&'static str> {
        match self {
            Self::Literal(literal) => vec![literal],
            Self::Union(types) => types.iter().flat_map(Self::literals).collect(),
            _ => Vec::new(),
        }
    }
}

/// The class of a userdata value.
pub fn class_of(value: &Value) -> Option<String> {
    value.as_userdata()?.type_name().ok().map(|name| name.to_string_lossy())
}

/// A value for error messages: its type, and the value itself where it is short.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Boolean(flag) => format!("boolean {flag}"),
        Value::Integer(number) => format!("integer {number}"),
        Value::Number(number) => format!("number {number}"),
        Value::String(text) => {
            let text = text.to_string_lossy();
            let short: String = text.chars().take(40).collect();
            format!("string \"{short}{}\"", if short.len() < text.len() { "…" } else { "" })
        }
        Value::UserData(_) => class_of(value).unwrap_or_else(|| "userdata".into()),
        _ => value.type_name().into(),
    }
}

/// Splits at the bars outside brackets and quotes.
fn split_union(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0usize, false);
    for (position, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '(' | '<' | '{' | '[' if !quoted => depth += 1,
            ')' | '>' | '}' | ']' if !quoted => depth = depth.saturating_sub(1),
            '|' if !quoted && depth == 0 => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::Lua;

    #[test]
    fn expressions_are_parsed() {
        assert_eq!(Type::parse("integer[]"), Type::Array(Box::new(Type::Integer)));
        assert_eq!(Type::parse("Tensor|number"), Type::Union(vec![Type::Class("Tensor"), Type::Number]));
        assert_eq!(Type::parse("fun(x: Tensor|number): Tensor"), Type::Function);
        assert_eq!(Type::parse("TensorOptions"), Type::Table);
        assert_eq!(Type::parse("\"fm\"|\"fw\"").literals(), ["fm", "fw"]);
    }

    #[test]
    fn values_are_checked() -> mlua::Result<()> {
        let lua = Lua::new();
        let eval = |code: &str| lua.load(code).eval::<Value>();
        assert!(Type::parse("integer").accepts(&eval("2.0")?));
        assert!(!Type::parse("integer").accepts(&eval("2.5")?));
        assert!(!Type::parse("number").accepts(&eval("'2'")?));
        assert!(Type::parse("integer|integer[]").accepts(&eval("{1, 2}")?));
        assert!(!Type::parse("integer[]").accepts(&eval("{1, 'x'}")?));
        assert!(Type::parse("\"a\"|\"b\"").accepts(&eval("'b'")?));
        assert_eq!(describe(&eval("'hello'")?), "string \"hello\"");
        Ok(())
    }
}
