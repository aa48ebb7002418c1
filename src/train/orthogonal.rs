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
/// # Shapes
/// (number, rows, columns).
pub(super) fn orthogonal(matrices: &Tensor) -> Result<Tensor> {
    let (_, rows, columns) = matrices.dims3()?;
    let (tall, given) = (rows > columns, matrices.dtype());
    let computed = if matrices.device().is_cuda() { DType::BF16 } else { given };
    let norm = (matrices.sqr()?.sum_keepdim((D::Minus2, D::Minus1))?.sqrt()? + 1e-7)?;
    let unit = matrices.broadcast_div(&norm)?.to_dtype(computed)?;
    let mut x = if tall { unit.t()?.contiguous()? } else { unit };
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let square = x.matmul(&x.t()?)?;
        let polynomial = ((&square * b)? + (square.matmul(&square)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
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
