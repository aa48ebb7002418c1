//! Room `ode`.
