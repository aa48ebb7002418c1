//! Attention over tokens seen before, on the processor and without a record for gradients: what generating text does
//! beside its products with weights.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{GRAIN, lane_max, lane_sum, with_elements};
use super::math::exp;
use super::rotary::{Rotary, turn};
use super::simd::vectorised;

/// Takes a packed projection apart and turns queries and keys to positions `start..start + T`; `None` where this does not
/// cover the operands.
///
/// # Shapes
/// `qkv` (B, T, H·3·C); results q, k, v (B, H, T, C).
pub(super) fn split(
    qkv: &Tensor,
    rotary: &Rotary,
    (heads, channels): (usize, usize),
    start: usize,
) -> Result<Option<[Tensor; 3]>> {
    let (batch, tokens, width) = qkv.dims3()?;
    let [cos, sin] = rotary.tables();
    if start + tokens > rotary.positions()
        || ![qkv, cos, sin].into_iter().all(|x| plain(x) && x.is_contiguous())
    {
        return Ok(None);
    }
    let half = rotary.rotated() / 2;
    let mut parts = [(); 3].map(|()| vec![0f32; batch * tokens * heads * channels]);
    with_elements([qkv, cos, sin], |[qkv, cos, sin]| {
        for (row, packed) in qkv.chunks_exact(width).enumerate() {
            let (example, token) = (row / tokens, row % tokens);
            let angles = (start + token) * half..(start + token + 1) * half;
            for (head, packed) in packed.chunks_exact(3 * channels).enumerate() {
                let place = ((example * heads + head) * tokens + token) * channels;
                for (i, (part, given)) in parts.iter_mut().zip(packed.chunks_exact(channels)).enumerate() {
                    let part = &mut part[place..][..channels];
                    part.copy_from_slice(given);
                    if i < 2 {
                        turn(part, &cos[angles.clone()], &sin[angles.clone()], 1.0);
                    }
                }
            }
        }
        Ok(())
    })?;
    let [q, k, v] = parts.map(|part| Tensor::from_vec(part, (batch, heads, tokens, channels), qkv.device()));
    Ok(Some([q?, k?, v?]))
}

/// Attention of one position over S, `softmax(q·kᵀ/√C)·v`; `None` where this does not cover the operands.
///
/// # Shapes
/// `q` (B, H, 1, C); `k`, `v` (B, H, S, C), whose rows may lie apart as in a cache; result (B, 1, H·C).
pub(super) fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    let rows = |x: &Tensor| x.stride().last() == Some(&1);
    if q.dims4()?.2 != 1 || ![q, k, v].into_iter().all(|x| plain(x) && rows(x)) {
        return Ok(None);
    }
    q.apply_op3_no_bwd(k, v, &One).map(Some)
}

fn plain(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && x.device().is_cpu() && !x.track_op()
}

struct One;

/// One head's keys or values: rows so far apart.
type Rows<'a> = (&'a [f32], usize);

/// The rows of one head, from the start of an operand of four dimensions.
fn head<'a>(storage: &'a CpuStorage, layout: &Layout, example: usize, head: usize) -> Result<Rows<'a>> {
    let (CpuStorage::F32(data), &[of_example, of_head, of_row, _]) = (storage, layout.stride()) else {
        bail!("attend_one: operands must be f32 of four dimensions")
    };
    Ok((&data[layout.start_offset() + example * of_example + head * of_head..], of_row))
}

impl CustomOp3 for One {
    fn name(&self) -> &'static str {
        "attend_one"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, heads, _, channels) = q_layout.shape().dims4()?;
        let seen = k_layout.dims()[2];
        let mut out = vec![0f32; batch * heads * channels];
        let one = |(i, out): (usize, &mut [f32])| -> Result<()> {
            let (example, i) = (i / heads, i % heads);
            let (q, _) = head(q, q_layout, example, i)?;
            let (k, v) = (head(k, k_layout, example, i)?, head(v, v_layout, example, i)?);
            attend_head(&q[..channels], k, v, &mut vec![0f32; seen], out);
            Ok(())
        };
        if out.len() * seen < 4 * GRAIN {
            out.chunks_exact_mut(channels).enumerate().try_for_each(one)?;
        } else {
            out.par_chunks_exact_mut(channels).enumerate().try_for_each(one)?;
        }
        Ok((CpuStorage::F32(out), (batch, 1, heads * channels).into()))
    }
}

vectorised! {
    /// One head; `scores` has an element for every key.
    fn attend_head[](q: &[f32], k: Rows<'_>, v: Rows<'_>, scores: &mut [f32], out: &mut [f32]) {
        let c = q.len();
        let scale = 1.0 / (c as f32).sqrt();
        for (s, score) in scores.iter_mut().enumerate() {
            *score = scale * lane_sum([q, &k.0[s * k.1..][..c]], |[q, k]| q * k);
        }
        let max = lane_max(scores);
        scores.iter_mut().for_each(|score| *score = exp(*score - max));
        let norm = 1.0 / lane_sum([&*scores], |[x]| x);
        for (s, score) in scores.iter().enumerate() {
            let weight = score * norm;
            out.iter_mut().zip(&v.0[s * v.1..][..c]).for_each(|(out, v)| *out += weight * v);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops::attention;
    use crate::ops::check::{agrees, random};

    #[test]
    fn parts_are_those_of_the_definition() -> Result<()> {
        for (batch, tokens, heads, channels, rotated, start) in
            [(1, 1, 4, 32, 8, 17), (2, 5, 3, 6, 6, 0), (1, 9, 2, 5, 0, 3)]
        {
            let rotary = Rotary::new(rotated, 10_000.0, 32, &Device::Cpu)?;
            let qkv = random(&[batch, tokens, heads * 3 * channels], 1)?;
            let found = split(&qkv, &rotary, (heads, channels), start)?.expect("operands that are covered");
            let packed = qkv.reshape((batch, tokens, heads, 3 * channels))?.transpose(1, 2)?;
            for (i, found) in found.iter().enumerate() {
                let part = packed.narrow(3, i * channels, channels)?;
                agrees(found, &if i < 2 { rotary.apply(&part, start)? } else { part }, 1e-6)?;
            }
            assert!(split(&qkv, &rotary, (heads, channels), 32 - tokens + 1)?.is_none());
        }
        Ok(())
    }

    /// Over keys and values of a longer buffer, as a cache gives them, and over enough of them for several threads.
    #[test]
    fn one_position_attends_as_by_definition() -> Result<()> {
        for (batch, heads, seen, channels) in [(1, 1, 1, 4), (2, 3, 33, 10), (1, 8, 400, 64)] {
            let q = (random(&[batch, heads, 1, channels], 1)? * 3.0)?;
            let cached = |seed| random(&[batch, heads, seen + 7, channels], seed)?.narrow(2, 0, seen);
            let (k, v) = (cached(2)?, cached(3)?);
            let found = attend_one(&q, &k, &v)?.expect("operands that are covered");
            let double = |x: &Tensor| x.to_dtype(DType::F64);
            let expected = attention::attend(&double(&q)?, &double(&k)?.contiguous()?, &double(&v)?)?;
            agrees(&found, &expected, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn records_and_several_positions_are_left_to_others() -> Result<()> {
        let (q, k) = (random(&[1, 2, 1, 4], 1)?, random(&[1, 2, 6, 4], 2)?);
        assert!(attend_one(&q, &k, &k)?.is_some());
        assert!(attend_one(Var::from_tensor(&q)?.as_tensor(), &k, &k)?.is_none());
        assert!(attend_one(&k, &k, &k)?.is_none());
        assert!(attend_one(&q, &k.transpose(2, 3)?.contiguous()?.transpose(2, 3)?, &k)?.is_none());
        Ok(())
    }
}
