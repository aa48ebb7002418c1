//! Registration: the closure and its catalogue entry arrive together, and calls are checked against the entry.

use mlua::{AnyUserData, FromLuaMulti, Function, IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};
use mlua::{UserDataFields, UserDataMethods, UserDataRegistry};

use super::catalogue::{self, Catalogue, Entry, Kind, Module, OptionsTable};
use super::error::guard;
use super::signature::Signature;
use super::types::describe;

/// Collects the functions of `lft` and their descriptions.
pub struct Registry<'lua> {
    lua: &'lua Lua,
    root: Table,
    catalogue: Catalogue,
}

impl<'lua> Registry<'lua> {
    /// An empty module.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(lua: &'lua Lua) -> mlua::Result<Self> {
        Ok(Self { lua, root: lua.create_table()?, catalogue: Catalogue::default() })
    }

    /// The module table and everything that was registered in it.
    pub fn finish(self) -> (Table, Catalogue) {
        (self.root, self.catalogue)
    }

    /// Describes a group of functions.
    pub fn module(&mut self, name: &'static str, about: &'static str) {
        self.catalogue.modules.push(Module { name, about });
    }

    /// Describes an options table.
    pub fn options(&mut self, table: &OptionsTable) {
        self.catalogue.options.push(*table);
    }

    /// Describes a plain table that functions return.
    pub fn record(&mut self, name: &'static str, about: &'static str, fields: &'static [catalogue::Param]) {
        self.catalogue.classes.push(catalogue::Class { name, about, fields });
    }

    /// Registers a function of the module. One called `lft.group.__call` makes the group itself callable.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn function<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        entry: Entry,
        body: impl Fn(&Lua, A) -> anyhow::Result<R> + Send + 'static,
    ) -> mlua::Result<()> {
        let signature = Signature::of(&entry);
        let calls_table = entry.kind() == Kind::Operator;
        let function = self.lua.create_function(move |lua, mut args: MultiValue| {
            guard(lua, entry.name, || {
                if calls_table {
                    args.pop_front();
                }
                signature.check(&args)?;
                body(lua, A::from_lua_multi(args, lua)?)
            })
        })?;
        let place = self.place(entry.owner())?;
        if calls_table {
            let meta = self.lua.create_table()?;
            meta.raw_set(entry.short(), function)?;
            place.set_metatable(Some(meta))?;
        } else {
            place.raw_set(entry.short(), function)?;
        }
        self.catalogue.entries.push(entry);
        Ok(())
    }

    /// A method as a function that takes the object first, for [`Members::function`].
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn on_object<T: 'static, A: FromLuaMulti, R: IntoLuaMulti>(
        &self,
        entry: Entry,
        body: impl Fn(&Lua, &T, A) -> anyhow::Result<R> + Send + 'static,
    ) -> mlua::Result<Function> {
        self.lua.create_function(on_object(entry, body))
    }

    /// The state that everything is registered in.
    pub fn lua(&self) -> &'lua Lua {
        self.lua
    }

    /// Sets a plain value, for example `lft.version`.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn value(&mut self, owner: &str, name: &str, value: impl IntoLua) -> mlua::Result<()> {
        self.place(owner)?.raw_set(name, value)
    }

    /// The table of a module, made on first use.
    fn place(&self, owner: &str) -> mlua::Result<Table> {
        owner.split('.').skip(1).try_fold(self.root.clone(), |table, part| {
            match table.raw_get::<Value>(part)? {
                Value::Table(inner) => Ok(inner),
                _ => {
                    let inner = self.lua.create_table()?;
                    table.raw_set(part, &inner)?;
                    Ok(inner)
                }
            }
        })
    }

    /// Registers a class of userdata; `members` adds its methods, operators and fields.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn class<T: 'static>(
        &mut self,
        class: catalogue::Class,
        members: impl FnOnce(&mut Members<'_, T>),
    ) -> mlua::Result<()> {
        self.catalogue.classes.push(class);
        let catalogue = &mut self.catalogue;
        self.lua.register_userdata_type::<T>(|userdata| {
            userdata.add_meta_field("__name", class.name);
            members(&mut Members { userdata, catalogue });
            if catalogue.of(class.name).all(|entry| entry.short() != "__index") {
                refuse_unknown(userdata, &class, catalogue);
            }
        })
    }
}

/// Adds the members of one class.
pub struct Members<'a, T> {
    userdata: &'a mut UserDataRegistry<T>,
    catalogue: &'a mut Catalogue,
}

impl<T: 'static> Members<'_, T> {
    /// Adds a method, called as `object:name(…)`.
    pub fn method<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        entry: Entry,
        body: impl Fn(&Lua, &T, A) -> anyhow::Result<R> + Send + 'static,
    ) {
        self.userdata.add_function(entry.short(), on_object(entry, body));
        self.catalogue.entries.push(entry);
    }

    /// Adds a method that is a Lua function already; it takes the object first.
    pub fn function(&mut self, entry: Entry, function: Function) {
        self.userdata.add_field(entry.short(), function);
        self.catalogue.entries.push(entry);
    }

    /// Adds a metamethod whose first operand is the object.
    pub fn meta<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        entry: Entry,
        body: impl Fn(&Lua, &T, A) -> anyhow::Result<R> + Send + 'static,
    ) {
        self.userdata.add_meta_function(entry.short(), on_object(entry, body));
        self.catalogue.entries.push(entry);
    }

    /// Adds a binary operator, in which the object may stand on either side.
    pub fn operator<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        entry: Entry,
        body: impl Fn(&Lua, A) -> anyhow::Result<R> + Send + 'static,
    ) {
        self.userdata.add_meta_function(entry.short(), move |lua, args: MultiValue| {
            guard(lua, entry.name, || body(lua, A::from_lua_multi(args, lua)?))
        });
        self.catalogue.entries.push(entry);
    }

    /// Adds a metamethod that is no part of the reference, such as `__close`.
    pub fn hidden<A: FromLuaMulti, R: IntoLuaMulti>(
        &mut self,
        name: &'static str,
        body: impl Fn(&Lua, &T, A) -> anyhow::Result<R> + Send + 'static,
    ) {
        let entry = Entry { name, about: "", params: &[("...", "any", "")], returns: &[], example: "" };
        self.userdata.add_meta_function(entry.short(), on_object(entry, body));
    }

    /// Adds a field; its type and description stand in the class's own list of fields.
    pub fn field<R: IntoLua>(
        &mut self,
        name: &'static str,
        body: impl Fn(&Lua, &T) -> anyhow::Result<R> + Send + 'static,
    ) {
        self.userdata.add_field_function_get(name, move |lua, object: AnyUserData| {
            guard(lua, name, || body(lua, &*object.borrow::<T>()?))
        });
    }
}

/// A name that is neither field nor method is an error, where Lua would give nil and fail somewhere else.
fn refuse_unknown<T>(userdata: &mut UserDataRegistry<T>, class: &catalogue::Class, catalogue: &Catalogue) {
    let (fields, name) = (class.fields, class.name);
    let methods: Vec<&'static str> = catalogue.of(name).map(Entry::short).collect();
    userdata.add_meta_function("__index", move |lua, (_, key): (Value, Value)| -> mlua::Result<Value> {
        guard(lua, name, || {
            let known = fields.iter().map(|field| field.0).chain(methods.iter().copied());
            let text = key.as_string().map(|text| text.to_string_lossy()).unwrap_or_else(|| describe(&key));
            match crate::nearest::nearest(&text, known) {
                Some(near) => anyhow::bail!("has no field or method '{text}' (did you mean '{near}'?)"),
                None => anyhow::bail!("has no field or method '{text}'; lft.help(object) lists them"),
            }
        })
    });
}

fn on_object<T: 'static, A: FromLuaMulti, R: IntoLuaMulti>(
    entry: Entry,
    body: impl Fn(&Lua, &T, A) -> anyhow::Result<R> + Send + 'static,
) -> impl Fn(&Lua, MultiValue) -> mlua::Result<R> + Send + 'static {
    let signature = Signature::of(&entry);
    move |lua, mut args| {
        guard(lua, entry.name, || {
            let object = args.pop_front().unwrap_or(Value::Nil);
            if entry.kind() == Kind::Operator && entry.params.is_empty() {
                // Lua passes the operand of a unary operator twice.
                args.clear();
            }
            let Some(this) = object.as_userdata().and_then(|data| data.borrow::<T>().ok()) else {
                let (owner, short) = (entry.owner(), entry.short());
                anyhow::bail!(
                    "is a method of {owner}, called on {}; write object:{short}(…) with a colon",
                    describe(&object)
                );
            };
            if entry.kind() == Kind::Method {
                signature.check(&args)?;
            }
            body(lua, &this, A::from_lua_multi(args, lua)?)
        })
    }
}

/// Makes a type a userdata value of the class that was registered for it.
macro_rules! userdata {
    ($type:ty) => {
        impl mlua::IntoLua for $type {
            fn into_lua(self, lua: &mlua::Lua) -> mlua::Result<mlua::Value> {
                lua.create_any_userdata(self).map(mlua::Value::UserData)
            }
        }
    };
}
pub(super) use userdata;
