//! A cell of a results table.

use std::fmt;

/// What one cell of a table holds. Lists and nested tables are kept as JSON text.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// Any double, NaN and the infinities included.
    Float(f64),
    String(String),
}

/// One row as it is logged: column names with their values, in the order the columns should appear.
pub type Row = Vec<(String, Value)>;

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The number in this cell, whether it was stored as integer or float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Float(f) => Some(*f),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// The cell as JSON; NaN and the infinities, which JSON cannot write, become `null`.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Float(f) => (*f).into(),
            Self::String(s) => s.as_str().into(),
        }
    }
}

/// Full precision: reading the text back gives the same number. Null is empty.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::String(s) => f.write_str(s),
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl From<f64> for Value {
    fn from(f: f64) -> Self {
        Self::Float(f)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Self::String(s)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// Counts above `i64::MAX` become floats; nothing that is counted here comes near.
impl From<u64> for Value {
    fn from(u: u64) -> Self {
        i64::try_from(u).map_or(Self::Float(u as f64), Self::Int)
    }
}

impl From<usize> for Value {
    fn from(u: usize) -> Self {
        Self::from(u as u64)
    }
}

/// Arrays and objects become their JSON text.
impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(i) => Self::Int(i),
                None => n.as_f64().map_or(Self::Null, Self::Float),
            },
            serde_json::Value::String(s) => Self::String(s.clone()),
            nested => Self::String(nested.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_keeps_every_digit() {
        for x in [0.1, 1e300, -2.5e-9, f64::MIN_POSITIVE, 3.0] {
            assert_eq!(Value::Float(x).to_string().parse::<f64>().unwrap(), x);
        }
        assert_eq!(Value::Float(f64::NAN).to_string(), "NaN");
        assert_eq!(Value::Null.to_string(), "");
    }

    #[test]
    fn nested_json_becomes_text() {
        let json = serde_json::json!({"steps": [1, 2]});
        assert_eq!(Value::from(&json["steps"]), Value::from("[1,2]"));
        assert_eq!(Value::from(&json["steps"][1]), Value::Int(2));
        assert_eq!(Value::from(&json["absent"]), Value::Null);
    }

    #[test]
    fn json_has_no_non_finite_numbers() {
        assert_eq!(Value::Float(f64::INFINITY).to_json(), serde_json::Value::Null);
        assert_eq!(Value::Float(0.5).to_json(), serde_json::json!(0.5));
    }
}
