//! What the module `lft` offers, as data: the one table behind registration, help, type stubs and reference.

/// Name, LuaCATS type and one sentence.
///
/// A name that ends in `?` may be left out; the name `...` takes every further argument.
pub type Param = (&'static str, &'static str, &'static str);

/// LuaCATS type and one sentence. A function that returns nothing says `("nil", "nothing")`.
pub type Return = (&'static str, &'static str);

/// One function, method or operator.
///
/// The form of the name says which: `lft.ode.solve` is a function of a module, `Tensor:sum` a method of a
/// class and `Tensor.__add` a metamethod; `lft.bench.__call` is what calling the module `lft.bench` does.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Full name as scripts write it.
    pub name: &'static str,
    /// What it does, in one or two sentences.
    pub about: &'static str,
    /// Positional parameters, without `self`.
    pub params: &'static [Param],
    /// Values returned, in order.
    pub returns: &'static [Return],
    /// A script that runs as it stands (with `lft` loaded) and fails by `assert`.
    pub example: &'static str,
}

/// A table of named options, checked strictly by [`super::options::Options`].
///
/// The class name ends in `Options`, which is how a type expression tells it from userdata.
#[derive(Clone, Copy, Debug)]
pub struct OptionsTable {
    /// LuaCATS class name, for example `TensorOptions`.
    pub class: &'static str,
    /// The accepted names with their types; a `?` marks those that may be left out.
    pub fields: &'static [Param],
}

/// The fields `a` followed by the fields `b`, for options tables that share a part; `K` is their number.
pub const fn join<const A: usize, const B: usize, const K: usize>(
    a: [Param; A],
    b: [Param; B],
) -> [Param; K] {
    assert!(A + B == K);
    let mut all = [("", "", ""); K];
    let mut i = 0;
    while i < K {
        all[i] = if i < A { a[i] } else { b[i - A] };
        i += 1;
    }
    all
}

/// A class of userdata, or a plain table that the module returns.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// LuaCATS class name.
    pub name: &'static str,
    /// What an object of it is.
    pub about: &'static str,
    /// Fields that can be read.
    pub fields: &'static [Param],
}

/// A table inside `lft` that groups functions, for example `lft.ode`.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Full name.
    pub name: &'static str,
    /// What belongs there.
    pub about: &'static str,
}

/// Everything that was registered, in order of registration.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Groups of functions; the first is `lft` itself.
    pub modules: Vec<Module>,
    /// Classes of userdata.
    pub classes: Vec<Class>,
    /// Options tables.
    pub options: Vec<OptionsTable>,
    /// Functions, methods and metamethods.
    pub entries: Vec<Entry>,
}

/// What the form of an entry's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `lft.f`, called as it is written.
    Function,
    /// `Class:m`, called on an object.
    Method,
    /// `Class.__op`, called through Lua's operators.
    Operator,
}

impl Entry {
    /// Function, method or operator.
    pub fn kind(&self) -> Kind {
        match self.name.contains(':') {
            true => Kind::Method,
            false if self.name.contains(".__") => Kind::Operator,
            false => Kind::Function,
        }
    }

    /// The module or class that it belongs to: `lft.ode` of `lft.ode.solve`, `Tensor` of `Tensor:sum`.
    pub fn owner(&self) -> &'static str {
        self.name.rsplit_once([':', '.']).map_or("", |(owner, _)| owner)
    }

    /// The last part of the name.
    pub fn short(&self) -> &'static str {
        self.name.rsplit_once([':', '.']).map_or(self.name, |(_, short)| short)
    }

    /// The call as a line: `lft.zeros(shape, options?) -> Tensor`; calls of an object stand as they are written.
    pub fn call(&self) -> String {
        let params: Vec<&str> = self.params.iter().map(|param| param.0).collect();
        let returns: Vec<&str> = self.returns.iter().map(|result| result.0).collect();
        let name = self.name.trim_end_matches(".__call");
        format!("{name}({}) -> {}", params.join(", "), returns.join(", "))
    }
}

impl Catalogue {
    /// The entries of one module or class.
    pub fn of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.owner() == owner)
    }

    /// The entry with this full name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_kind_owner_and_short_name() {
        let entry = |name| Entry { name, about: "", params: &[], returns: &[("nil", "")], example: "" };
        assert_eq!(entry("lft.ode.solve").kind(), Kind::Function);
        assert_eq!(entry("lft.ode.solve").owner(), "lft.ode");
        assert_eq!(entry("Tensor:sum").kind(), Kind::Method);
        assert_eq!(entry("Tensor:sum").short(), "sum");
        assert_eq!(entry("Tensor.__add").kind(), Kind::Operator);
        assert_eq!(entry("Tensor.__add").owner(), "Tensor");
    }
}
