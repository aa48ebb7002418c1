//! The three figures of merit as functions of tensors.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use crate::ops;

/// `KL(teacher ‖ student)` of the next-token distribution, summed over the vocabulary, mean over tokens, in nats.
///
/// # Shapes
/// both (…, V).
pub fn kl(teacher_logits: &Tensor, student_logits: &Tensor) -> Result<f64> {
    ensure!(
        teacher_logits.dims() == student_logits.dims(),
        "kl: logits of shapes {:?} and {:?} differ",
        teacher_logits.dims(),
        student_logits.dims()
    );
    mean(&ops::kl_divergence(&rows(teacher_logits)?, &rows(student_logits)?)?)
}

/// Normalised mean squared error `Σ‖x − x1‖² / Σ‖x1‖²`.
///
/// # Shapes
/// both the same.
pub fn nmse(x: &Tensor, x1: &Tensor) -> Result<f64> {
    ensure!(x.dims() == x1.dims(), "nmse: latents of shapes {:?} and {:?} differ", x.dims(), x1.dims());
    let (error, energy) = squared_error(x, x1)?;
    Ok(error / energy)
}

/// `exp` of the mean cross-entropy of the targets, in nats.
///
/// # Shapes
/// `logits` (…, V); `targets` (…) of u32.
pub fn perplexity(logits: &Tensor, targets: &Tensor) -> Result<f64> {
    Ok(mean(&ops::cross_entropy(&rows(logits)?, &targets.flatten_all()?)?)?.exp())
}

/// `Σ‖x − x1‖²` and `Σ‖x1‖²`.
pub(super) fn squared_error(x: &Tensor, x1: &Tensor) -> Result<(f64, f64)> {
    let x1 = x1.to_dtype(DType::F32)?;
    let difference = (x.to_dtype(DType::F32)? - &x1)?;
    Ok((ops::adamw::squared_norm(&difference)?, ops::adamw::squared_norm(&x1)?))
}

fn rows(logits: &Tensor) -> Result<Tensor> {
    let vocabulary = logits.dims().last().copied().unwrap_or(0);
    Ok(logits.to_dtype(DType::F32)?.reshape(((), vocabulary))?)
}

fn mean(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, safetensors};

    use super::*;

    #[test]
    fn metrics_match_the_goldens() -> Result<()> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/metrics");
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{folder}/expected.json"))?)?;
        let t = safetensors::load(format!("{folder}/inputs.safetensors"), &Device::Cpu)?;
        let near = |found: f64, name: &str| {
            let want = expected[name].as_f64().unwrap_or(f64::NAN);
            assert!((found - want).abs() <= 1e-5 * want, "{name}: {found}, expected {want}");
        };
        let targets = t["targets"].to_dtype(DType::U32)?;
        near(kl(&t["teacher_logits"], &t["student_logits"])?, "kl_teacher_student_mean_per_token");
        near(perplexity(&t["student_logits"], &targets)?, "student_ppl");
        near(perplexity(&t["teacher_logits"], &targets)?, "teacher_ppl");
        near(nmse(&t["x1_hat"], &t["x1"])?, "nmse");
        Ok(())
    }
}
