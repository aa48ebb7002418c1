//! The layers that a flow replaces.

use std::fmt;

use anyhow::{Result, ensure};

/// Layers `m..n` of a teacher: from boundary m, the residual stream after m layers, to boundary n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Block {
    /// Boundary where the flow starts.
    pub m: usize,
    /// Boundary where it ends.
    pub n: usize,
}

impl Block {
    /// The block {m, n} of a model with `layers` layers.
    ///
    /// # Errors
    /// Unless `m < n ≤ layers`.
    pub fn new(m: usize, n: usize, layers: usize) -> Result<Self> {
        ensure!(
            m < n && n <= layers,
            "block {{{m},{n}}} does not lie in a model of {layers} layers: it must be {{m,n}} with 0 ≤ m < n ≤ {layers}"
        );
        Ok(Self { m, n })
    }

    /// Number of layers n − m.
    pub fn layers(self) -> usize {
        self.n - self.m
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{},{}}}", self.m, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_outside_the_model_are_refused() {
        assert_eq!(Block::new(6, 12, 24).unwrap().to_string(), "{6,12}");
        for (m, n) in [(6, 25), (6, 6), (7, 6)] {
            assert!(Block::new(m, n, 24).unwrap_err().to_string().contains("24 layers"));
        }
    }
}
