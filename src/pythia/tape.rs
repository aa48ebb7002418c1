//! The layers' way forth and back where gradients of all their weights are wanted.

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::Pythia;
use crate::ops;

/// All layers of a model, evaluated at an input.
pub struct Tape {
    /// The residual stream behind the last layer, without history: (B, T, D).
    pub output: Tensor,
    way: Way,
}

enum Way {
    /// By candle's graph.
    Graph { input: Var, output: Tensor },
    /// Layer by layer on a card.
    #[cfg(feature = "cuda")]
    Card(Vec<ops::cuda::Trained>),
}

impl Pythia {
    /// Carries `x` over all layers, which compute on casts of their weights to its dtype, and keeps what [`Tape::backward`]
    /// needs.
    ///
    /// # Shapes
    /// `x` (B, T, D).
    ///
    /// # Errors
    /// When memory is short.
    pub fn record(&self, x: &Tensor) -> Result<Tape> {
        #[cfg(feature = "cuda")]
        if let Some(tape) = self.record_on_card(x)? {
            return Ok(tape);
        }
        let input = Var::from_tensor(&x.detach())?;
        let mut output = input.as_tensor().clone();
        for layer in self.layers() {
            output = layer.map(&mut |weight| weight.to_dtype(x.dtype()))?.forward(&output, self.context())?;
        }
        Ok(Tape { output: output.detach(), way: Way::Graph { input, output } })
    }

    #[cfg(feature = "cuda")]
    fn record_on_card(&self, x: &Tensor) -> Result<Option<Tape>> {
        let (mut x, mut layers) = (x.detach(), Vec::new());
        for layer in self.layers() {
            // Cast one layer at a time: the card computes the one before meanwhile.
            let cast = layer.map(&mut |weight| weight.detach().to_dtype(x.dtype()))?;
            let Some((y, trained)) = cast.forward_trained(&x, self.context())? else { return Ok(None) };
            layers.push(trained);
            x = y;
        }
        Ok(Some(Tape { output: x, way: Way::Card(layers) }))
    }
}

impl Tape {
    /// From the slope of the output to that of the input; the gradients of the weights of `model`'s layers, which must be the
    /// recorded ones, join `gradients`.
    ///
    /// # Shapes
    /// `slope` and the result (B, T, D).
    ///
    /// # Errors
    /// When memory is short.
    pub fn backward(self, slope: &Tensor, model: &Pythia, gradients: &mut GradStore) -> Result<Tensor> {
        match self.way {
            Way::Graph { input, output } => {
                let nothing = Tensor::zeros((), slope.dtype(), slope.device())?;
                let mut found = ops::graft(&output, &nothing, slope)?.backward()?;
                for (_, weight) in model.layers().iter().flat_map(super::Layer::tensors) {
                    if let Some(gradient) = found.remove(weight) {
                        gradients.insert(weight, gradient);
                    }
                }
                found.remove(&input).context("the first layer's input received no gradient")
            }
            #[cfg(feature = "cuda")]
            Way::Card(layers) => {
                anyhow::ensure!(layers.len() == model.layers().len(), "the tape is one of another model");
                let mut slope = slope.clone();
                for (trained, layer) in layers.into_iter().zip(model.layers()).rev() {
                    let (before, found) = trained.backward(&slope)?;
                    for ((_, weight), gradient) in layer.tensors().into_iter().zip(found) {
                        gradients.insert(weight, gradient);
                    }
                    slope = before;
                }
                Ok(slope)
            }
        }
    }
}
