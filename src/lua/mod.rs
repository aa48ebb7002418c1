//! Room `lua`.
