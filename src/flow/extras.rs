//! What a velocity field may have beyond the paper's.

/// Additions to a field; everything is off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Rank of low-rank updates of the layer's matrices, whose strength depends on time; 0 for none.
    pub rank: usize,
    /// Number of steps whose times are trained; 0 for none.
    pub learn_times: usize,
    /// No conditioning on time: the update of an ordinary layer, `γ = β = 0` and `α = 1`.
    pub plain: bool,
}
