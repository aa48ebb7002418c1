//! Room `pythia`.
