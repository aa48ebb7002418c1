//! Orthogonal matrices near given ones.

use anyhow::Result;
use candle_core::{D, DType, Tensor};

/// Coefficients of the quintic Newton–Schulz iteration `X ← aX + (bA + cA²)X` with `A = XXᵀ`, which drives the
/// singular values towards 1.
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
const ITERATIONS: usize = 5;

/// Nearly `UVᵀ` of each matrix `USVᵀ`: singular values come to lie between about 0.7 and 1.2. On a CUDA card the iteration runs
/// in bf16, which its coefficients were made for (Jordan et al. 2024) and which is multiplied a dozen times faster than f32.
///
/// The iteration is computed as `X ← (a·I + bA + cA²)·X`, and the first one takes the matrices' norms into its polynomial, so that
/// nothing but products touches the matrices themselves.
///
/// # Shapes
/// (number, rows, columns).
pub(super) fn orthogonal(matrices: &Tensor) -> Result<Tensor> {
    let (number, rows, columns) = matrices.dims3()?;
    let (tall, given, device) = (rows > columns, matrices.dtype(), matrices.device());
    let computed = if device.is_cuda() { DType::BF16 } else { given };
    let square = matrices.sqr()?.sum_keepdim(D::Minus1)?.sum_keepdim(D::Minus2)?;
    let norm = (square.sqrt()? + 1e-7)?.to_dtype(computed)?;
    let (a, b, c) = QUINTIC;
    let side = rows.min(columns);
    let identity = Tensor::eye(side, computed, device)?.unsqueeze(0)?;
    let linear = (identity.broadcast_as((number, side, side))?.contiguous()? * a)?;
    let wide = matrices.to_dtype(computed)?;
    let mut x = if tall { wide.t()?.contiguous()? } else { wide };
    for iteration in 0..ITERATIONS {
        let mut gram = x.matmul(&x.t()?)?;
        if iteration == 0 {
            gram = gram.broadcast_div(&norm)?.broadcast_div(&norm)?;
        }
        let mut polynomial = ((&linear + (&gram * b)?)? + (gram.matmul(&gram)? * c)?)?;
        if iteration == 0 {
            polynomial = polynomial.broadcast_div(&norm)?;
        }
        x = polynomial.matmul(&x)?;
    }
    let x = if tall { x.t()?.contiguous()? } else { x };
    Ok(x.to_dtype(given)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::random;

    #[test]
    fn updates_are_nearly_orthogonal_and_point_with_the_matrix() -> Result<()> {
        for shape in [[6, 20], [20, 6]] {
            let matrix = random(&shape, 1)?;
            let x = orthogonal(&matrix.unsqueeze(0)?)?.squeeze(0)?;
            let wide = if shape[0] < shape[1] { x.clone() } else { x.t()?.contiguous()? };
            let gram = wide.matmul(&wide.t()?)?.to_vec2::<f32>()?;
            for (i, row) in gram.iter().enumerate() {
                for (j, value) in row.iter().enumerate() {
                    let error = if i == j { value - 1.0 } else { *value };
                    assert!(error.abs() < 0.55, "entry {i}, {j} of the Gram matrix is {value}");
                }
            }
            assert!((matrix * x)?.sum_all()?.to_scalar::<f32>()? > 0.0);
        }
        Ok(())
    }
}
