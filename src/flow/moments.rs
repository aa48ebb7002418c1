//! What a field makes of the times of a walk, known before it begins.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};

use super::velocity::Conditioned;

/// What the parameters make of the times that some tensors hold, as long as the parameters are known not to change.
#[derive(Default)]
pub(super) struct Moments(Mutex<Vec<(TensorId, Conditioned)>>);

impl Moments {
    /// Keeps these until further notice.
    pub fn keep(&self, moments: Vec<(TensorId, Conditioned)>) {
        *self.kept() = moments;
    }

    /// Says that the parameters may change again.
    pub fn release(&self) {
        self.kept().clear();
    }

    /// What the parameters make of the time that this tensor holds, where that is kept.
    pub fn find(&self, t: &Tensor) -> Option<Conditioned> {
        self.kept().iter().find(|(id, _)| *id == t.id()).map(|(_, known)| known.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(TensorId, Conditioned)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
