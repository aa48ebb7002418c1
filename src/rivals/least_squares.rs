//! Ridge regression in f64.

use anyhow::{Result, ensure};

/// The normal equations of `min ‖M·T − Y‖² + λ‖T‖²`, summed up batch by batch.
pub struct LeastSquares {
    width: usize,
    /// MᵀM, row by row.
    gram: Vec<f64>,
    /// MᵀY, row by row.
    target: Vec<f64>,
}

impl LeastSquares {
    /// No rows yet; M and Y have `width` columns.
    pub fn new(width: usize) -> Self {
        Self { width, gram: vec![0.0; width * width], target: vec![0.0; width * width] }
    }

    /// Adds rows.
    ///
    /// # Shapes
    /// `m` and `y` (N, width), row by row.
    pub fn add(&mut self, m: &[f32], y: &[f32]) {
        for (m, y) in m.chunks_exact(self.width).zip(y.chunks_exact(self.width)) {
            for (i, &a) in m.iter().enumerate() {
                let row = i * self.width..(i + 1) * self.width;
                let a = f64::from(a);
                self.gram[row.clone()].iter_mut().zip(m).for_each(|(sum, &b)| *sum += a * f64::from(b));
                self.target[row].iter_mut().zip(y).for_each(|(sum, &b)| *sum += a * f64::from(b));
            }
        }
    }

    /// T (width, width), row by row, with λ = `ridge` times the mean diagonal of MᵀM, by Cholesky's method.
    ///
    /// # Errors
    /// When MᵀM + λI is not positive definite: fewer rows than columns without a ridge.
    pub fn solve(mut self, ridge: f64) -> Result<Vec<f64>> {
        let n = self.width;
        let mean = (0..n).map(|i| self.gram[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| self.gram[i * n + i] += ridge * mean);
        let l = &mut self.gram;
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
        let mut t = self.target;
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
        let mut problem = LeastSquares::new(3);
        problem.add(&m[..15], &y[..15]);
        problem.add(&m[15..], &y[15..]);
        let found = problem.solve(0.0).unwrap();
        assert!(found.iter().zip(t.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        let mut few = LeastSquares::new(3);
        few.add(&m[..6], &y[..6]);
        assert!(few.solve(0.0).unwrap_err().to_string().contains("more tokens"));
    }
}
