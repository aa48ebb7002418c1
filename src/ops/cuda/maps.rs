//! A layer's weights gathered for the velocity field's operation.

use candle_core::{DType, Result, Tensor};

use super::linear::Map;

/// The layer's weights in one f32 vector: weight (D) and bias (D) of the two norms; of the packed projection, the
/// attention's output and the MLP's two maps each the weight (O, I) and the bias (O) where there is one.
#[derive(Clone)]
pub struct Maps {
    /// What gradients go to.
    pub flat: Tensor,
    /// The same rounded to what the branches are computed in.
    pub rounded: Tensor,
    pub(super) norms: [usize; 4],
    pub(super) parts: [Part; 4],
}

/// Where one map lies.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub outputs: usize,
    pub inputs: usize,
    pub weight: usize,
    pub bias: Option<usize>,
}

impl Maps {
    /// Gathers the weights of a layer, those of the maps to be rounded to `compute`.
    pub fn new(
        norms: [(&Tensor, &Tensor); 2],
        maps: [(&Tensor, Option<&Tensor>); 4],
        compute: DType,
    ) -> Result<Self> {
        let (mut pieces, mut length) = (Vec::new(), 0);
        let mut place = |tensor: &Tensor| {
            pieces.push(tensor.flatten_all()?);
            length += tensor.elem_count();
            candle_core::Result::Ok(length - tensor.elem_count())
        };
        let [(w1, b1), (w2, b2)] = norms;
        let norms = [place(w1)?, place(b1)?, place(w2)?, place(b2)?];
        let mut parts = [Part { outputs: 0, inputs: 0, weight: 0, bias: None }; 4];
        for (part, (weight, bias)) in parts.iter_mut().zip(maps) {
            let (outputs, inputs) = weight.dims2()?;
            *part = Part { outputs, inputs, weight: place(weight)?, bias: bias.map(&mut place).transpose()? };
        }
        let flat = Tensor::cat(&pieces, 0)?;
        let rounded = flat.detach().to_dtype(compute)?;
        Ok(Self { flat, rounded, norms, parts })
    }

    pub(super) fn weight(&self, i: usize) -> Result<Tensor> {
        let part = self.parts[i];
        self.rounded.narrow(0, part.weight, part.outputs * part.inputs)?.reshape((part.outputs, part.inputs))
    }

    pub(super) fn bias(&self, i: usize) -> Result<Option<Tensor>> {
        let part = self.parts[i];
        part.bias.map(|start| self.rounded.narrow(0, start, part.outputs)).transpose()
    }

    pub(super) fn map(&self, i: usize, rows: usize) -> Map {
        Map { outputs: self.parts[i].outputs, inputs: self.parts[i].inputs, rows }
    }
}
