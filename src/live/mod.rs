//! Looking at a run while it goes on: a page on this machine's own address, and a view in the terminal.
//!
//! | file | holds |
//! |---|---|
//! | [`watched`] | which run is looked at, and how it stands |
//! | [`server`] | a small HTTP server that only this machine's own pages may ask |
//! | `request` | what a request must look like to be answered |
//! | [`terminal`] | curves as lines of text |

mod request;
pub mod server;
mod sparkline;
pub mod terminal;
pub mod watched;

pub use server::Server;
pub use watched::{Watched, Which};
