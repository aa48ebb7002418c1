//! Ridge regression in f64.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

/// The normal equations of `min ‖M·T − Y‖² + λ‖T‖²`, summed up batch by batch.
pub struct LeastSquares {
    width: usize,
    /// MᵀM (width, width) in f64 on the CPU.
    gram: Tensor,
    /// MᵀY (width, width), the same.
    target: Tensor,
}

impl LeastSquares {
    /// No rows yet; M and Y have `width` columns.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(width: usize) -> Result<Self> {
        let zeros = || Tensor::zeros((width, width), DType::F64, &Device::Cpu);
        Ok(Self { width, gram: zeros()?, target: zeros()? })
    }

    /// Adds rows.
    ///
    /// # Shapes
    /// `m` and `y` (…, width).
    ///
    /// # Errors
    /// Other shapes, and when memory is short.
    pub fn add(&mut self, m: &Tensor, y: &Tensor) -> Result<()> {
        let rows =
            |x: &Tensor| x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.reshape(((), self.width));
        let (m, y) = (rows(m)?, rows(y)?);
        let transposed = m.t()?;
        self.gram = (&self.gram + transposed.matmul(&m)?)?;
        self.target = (&self.target + transposed.matmul(&y)?)?;
        Ok(())
    }

    /// T (width, width), row by row, with λ = `ridge` times the mean diagonal of MᵀM, by Cholesky's method.
    ///
    /// # Errors
    /// When MᵀM + λI is not positive definite: fewer rows than columns without a ridge.
    pub fn solve(self, ridge: f64) -> Result<Vec<f64>> {
        let n = self.width;
        let values = |matrix: &Tensor| matrix.flatten_all()?.to_vec1::<f64>();
        let (mut l, mut t) = (values(&self.gram)?, values(&self.target)?);
        let mean = (0..n).map(|i| l[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| l[i * n + i] += ridge * mean);
        for j in 0..n {
            let pivot = l[j * n + j] - l[j * n..j * n + j].iter().map(|x| x * x).sum::<f64>();
            ensure!(
                pivot > 1e-12 * mean,
                "the least-squares problem has no unique solution: give it more tokens or a larger ridge"
            );
            l[j * n + j] = pivot.sqrt();
            for i in j + 1..n {
                let dot: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                l[i * n + j] = (l[i * n + j] - dot) / l[j * n + j];
            }
        }
        for column in 0..n {
            for i in 0..n {
                let dot: f64 = (0..i).map(|k| l[i * n + k] * t[k * n + column]).sum();
                t[i * n + column] = (t[i * n + column] - dot) / l[i * n + i];
            }
            for i in (0..n).rev() {
                let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * t[k * n + column]).sum();
                t[i * n + column] = (t[i * n + column] - dot) / l[i * n + i];
            }
        }
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_is_found_and_too_few_rows_are_refused() {
        let t = [[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [0.5, 0.0, 1.0]];
        let m: Vec<f32> = (0..30).map(|i| ((i * i) as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = m
            .chunks(3)
            .flat_map(|row| (0..3).map(move |j| (0..3).map(|i| row[i] * t[i][j] as f32).sum()))
            .collect();
        let rows = |x: &[f32]| Tensor::from_slice(x, (x.len() / 3, 3), &Device::Cpu).unwrap();
        let mut problem = LeastSquares::new(3).unwrap();
        problem.add(&rows(&m[..15]), &rows(&y[..15])).unwrap();
        problem.add(&rows(&m[15..]), &rows(&y[15..])).unwrap();
        let found = problem.solve(0.0).unwrap();
        assert!(found.iter().zip(t.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        let mut few = LeastSquares::new(3).unwrap();
        few.add(&rows(&m[..6]), &rows(&y[..6])).unwrap();
        assert!(few.solve(0.0).unwrap_err().to_string().contains("more tokens"));
    }
}
