//! Cross-entropy and Kullback–Leibler divergence straight from logits, one value a row.

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{self, elements, lane_max, lane_sum, with_elements};
use super::math::exp;
use super::simd::vectorised;

/// `KL(p ‖ q) = Σ_v p_v·(log p_v − log q_v)` in nats, with `p = softmax(p_logits)`, `q = softmax(q_logits)`.
///
/// # Shapes
/// both (N, V), result (N). Differentiable in both.
pub fn kl_divergence(p_logits: &Tensor, q_logits: &Tensor) -> Result<Tensor> {
    if p_logits.dims() != q_logits.dims() {
        bail!("kl_divergence: logits of shapes {:?} and {:?} differ", p_logits.dims(), q_logits.dims());
    }
    p_logits.dims2()?;
    let (p, q) = (p_logits.contiguous()?, q_logits.contiguous()?);
    if kernel::applies(&[&p, &q]) {
        return p.apply_op2(&q, Kl);
    }
    #[cfg(feature = "cuda")]
    if let Some(kl) = super::cuda::kl_divergence(&p, &q)? {
        return Ok(kl);
    }
    composed_kl(&p, &q)
}

/// `−log softmax(logits)[target]` in nats. Every target is looked at on the host first.
///
/// # Shapes
/// `logits` (N, V), `targets` (N) of u32 below V, result (N).
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    check_targets(targets, logits.dims2()?.1)?;
    cross_entropy_of_known(logits, targets)
}

/// Refuses targets outside a vocabulary. Where they lie on a card, the host waits for them.
pub fn check_targets(targets: &Tensor, vocabulary: usize) -> Result<()> {
    let largest = targets.flatten_all()?.max(0)?.to_scalar::<u32>()?;
    if largest as usize >= vocabulary {
        bail!("cross_entropy: target {largest} lies outside the vocabulary of {vocabulary}");
    }
    Ok(())
}

/// [`cross_entropy`] of targets that [`check_targets`] has seen.
pub fn cross_entropy_of_known(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (rows, _) = logits.dims2()?;
    if targets.dims() != [rows] {
        bail!("cross_entropy: {rows} rows of logits, but targets of shape {:?}", targets.dims());
    }
    let (logits, targets) = (logits.contiguous()?, targets.contiguous()?);
    if kernel::applies(&[&logits]) {
        return logits.apply_op2(&targets, CrossEntropy);
    }
    #[cfg(feature = "cuda")]
    if let Some(loss) = super::cuda::cross_entropy(&logits, &targets)? {
        return Ok(loss);
    }
    composed_cross_entropy(&logits, &targets)
}

/// Logits as the losses take them: a card's kernels read bf16 and add up in f32, everything else wants f32.
pub fn comparable(logits: &Tensor) -> Result<Tensor> {
    let kept = logits.device().is_cuda() && logits.dtype() == DType::BF16;
    if kept { Ok(logits.clone()) } else { logits.to_dtype(DType::F32) }
}

fn composed_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_q = log_softmax(logits)?;
    log_q.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
}

/// Log-softmax over the last dimension from differentiable primitives.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

fn composed_kl(p: &Tensor, q: &Tensor) -> Result<Tensor> {
    let (log_p, log_q) = (log_softmax(p)?, log_softmax(q)?);
    (log_p.exp()? * (log_p - log_q)?)?.sum(D::Minus1)
}

struct Kl;
struct CrossEntropy;

/// `log Σ e^x` of a row.
#[inline(always)]
fn log_norm(x: &[f32]) -> f32 {
    let max = lane_max(x);
    max + lane_sum([x], |[x]| exp(x - max)).ln()
}

#[inline(always)]
fn row_kl(p: &[f32], q: &[f32]) -> (f32, f32, f32) {
    let (log_p, log_q) = (log_norm(p), log_norm(q));
    let kl = lane_sum([p, q], |[p, q]| {
        let a = p - log_p;
        exp(a) * (a - (q - log_q))
    });
    (kl, log_p, log_q)
}

impl CustomOp2 for Kl {
    fn name(&self) -> &'static str {
        "kl_divergence"
    }

    fn cpu_fwd(
        &self,
        p: &CpuStorage,
        p_layout: &Layout,
        q: &CpuStorage,
        q_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (p, q) = (elements(p, p_layout)?, elements(q, q_layout)?);
        let (rows, v) = p_layout.shape().dims2()?;
        let mut out = vec![0f32; rows];
        out.par_iter_mut().zip(p.par_chunks(v)).zip(q.par_chunks(v)).for_each(|((out, p), q)| {
            *out = kl_row(p, q);
        });
        Ok((CpuStorage::F32(out), rows.into()))
    }

    /// `∂KL/∂q_logits = softmax(q) − softmax(p)`, `∂KL/∂p_logits = p⊙(log p − log q − KL)`.
    fn bwd(
        &self,
        p: &Tensor,
        q: &Tensor,
        _kl: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, v) = p.dims2()?;
        let grad = grad.contiguous()?;
        let gradient = |slope: fn(&[f32], &[f32], f32, &mut [f32]), like: &Tensor| {
            let data = with_elements([p, q, &grad], |[p, q, grad]| {
                let mut d = vec![0f32; p.len()];
                let rows = d.par_chunks_mut(v).zip(p.par_chunks(v)).zip(q.par_chunks(v)).zip(grad);
                rows.for_each(|(((d, p), q), &g)| slope(p, q, g, d));
                Ok(d)
            })?;
            Tensor::from_vec(data, like.shape(), like.device())
        };
        let dp = p.track_op().then(|| gradient(slope_p, p)).transpose()?;
        let dq = q.track_op().then(|| gradient(slope_q, q)).transpose()?;
        Ok((dp, dq))
    }
}

fn indices<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::U32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("cross_entropy: targets must be contiguous u32"),
    }
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (logits, targets) = (elements(logits, layout)?, indices(targets, targets_layout)?);
        let (rows, v) = layout.shape().dims2()?;
        let mut out = vec![0f32; rows];
        out.par_iter_mut().zip(logits.par_chunks(v)).zip(targets).for_each(|((out, row), &target)| {
            *out = log_norm_row(row) - row[target as usize];
        });
        Ok((CpuStorage::F32(out), rows.into()))
    }

    /// `∂L/∂logits = softmax(logits) − onehot(target)`.
    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _loss: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, v) = logits.dims2()?;
        let grad = grad.contiguous()?;
        let targets = targets.to_vec1::<u32>()?;
        let data = with_elements([logits, &grad], |[logits, grad]| {
            let mut d = vec![0f32; logits.len()];
            d.par_chunks_mut(v).zip(logits.par_chunks(v)).zip(grad).zip(&targets).for_each(
                |(((d, x), &g), &target)| {
                    scaled_softmax(x, g, d);
                    d[target as usize] -= g;
                },
            );
            Ok(d)
        })?;
        Ok((Some(Tensor::from_vec(data, logits.shape(), logits.device())?), None))
    }
}

vectorised! {
    fn kl_row[](p: &[f32], q: &[f32]) -> f32 {
        row_kl(p, q).0
    }
}

vectorised! {
    fn log_norm_row[](x: &[f32]) -> f32 {
        log_norm(x)
    }
}

vectorised! {
    fn slope_p[](p: &[f32], q: &[f32], g: f32, d: &mut [f32]) {
        let (kl, log_p, log_q) = row_kl(p, q);
        for ((d, &p), &q) in d.iter_mut().zip(p).zip(q) {
            let a = p - log_p;
            *d = g * exp(a) * (a - (q - log_q) - kl);
        }
    }
}

vectorised! {
    fn slope_q[](p: &[f32], q: &[f32], g: f32, d: &mut [f32]) {
        let (log_p, log_q) = (log_norm(p), log_norm(q));
        for ((d, &p), &q) in d.iter_mut().zip(p).zip(q) {
            *d = g * (exp(q - log_q) - exp(p - log_p));
        }
    }
}

vectorised! {
    /// `g·softmax(x)`.
    fn scaled_softmax[](x: &[f32], g: f32, d: &mut [f32]) {
        let norm = log_norm(x);
        d.iter_mut().zip(x).for_each(|(d, &x)| *d = g * exp(x - norm));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::check::{agrees, gradients_agree, random};

    #[test]
    fn kernel_and_definition_agree() -> Result<()> {
        let (p, q) = ((random(&[9, 301], 1)? * 5.0)?, (random(&[9, 301], 2)? * 5.0)?);
        agrees(&kl_divergence(&p, &q)?, &composed_kl(&p, &q)?, 1e-5)?;
        let targets = Tensor::new(&[0u32, 300, 7, 8, 9, 10, 11, 12, 13], &Device::Cpu)?;
        agrees(&cross_entropy(&p, &targets)?, &composed_cross_entropy(&p, &targets)?, 1e-6)?;
        agrees(&kl_divergence(&p, &p)?, &Tensor::zeros(9, candle_core::DType::F32, &Device::Cpu)?, 1e-6)
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let operands = [(random(&[3, 37], 1)? * 3.0)?, (random(&[3, 37], 2)? * 3.0)?];
        gradients_agree(&operands, |v| kl_divergence(&v[0], &v[1]))?;
        let targets = Tensor::new(&[0u32, 36, 7], &Device::Cpu)?;
        gradients_agree(&operands[..1], |v| cross_entropy(&v[0], &targets))
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_named() -> Result<()> {
        let targets = Tensor::new(&[4u32], &Device::Cpu)?;
        let error = cross_entropy(&random(&[1, 4], 1)?, &targets).unwrap_err().to_string();
        assert!(error.contains("target 4"), "{error}");
        Ok(())
    }
}
