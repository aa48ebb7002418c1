//! The scripting host: Lua 5.4 with the module `lft`.
//!
//! One table describes every function. An [`catalogue::Entry`] stands at the registration call beside the
//! closure it names, and nothing can be registered without one; from it come the checks of arguments at run
//! time ([`signature`]), `lft.help` ([`help`]), the editor's type definitions ([`stubs`]) and the reference
//! ([`docs`]). Bindings hold no logic of their own: they read arguments, call the room below, and wrap what
//! comes back.

mod bench;
pub mod catalogue;
mod checkpoint;
mod curve;
mod data;
pub mod device;
pub mod docs;
mod error;
mod eval;
mod field;
mod flags;
mod flow;
mod generate;
mod help;
mod host;
mod ids;
mod interrupt;
mod latents;
mod limits;
mod literal;
mod memory;
mod object;
mod ode;
mod optim;
mod options;
mod path;
mod prelude;
mod pretrain;
mod print;
mod progress;
mod pythia;
mod register;
mod repl;
mod results;
mod rivals;
mod sandbox;
mod show;
mod signature;
mod state;
pub mod stubs;
mod sweep;
mod tensor;
#[cfg(test)]
mod tests;
mod tokenizer;
mod train;
mod types;

pub use error::{Ended, ScriptError, text};
pub use host::{HostOptions, catalogue, run_script};
pub use limits::Limits;
pub use memory::machine_bytes;
pub use repl::repl;
