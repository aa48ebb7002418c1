//! The recoupling ratio (paper, eq. 6–7): how often straight paths from x0 to x1 would cross.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// What optimal transport would change about the pairing of latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Recoupling {
    /// `R = 1 − tr(M)/n`: the share of tokens that the optimal assignment M pairs with another token's latent.
    pub ratio: f64,
    /// The index within its sequence of the x1 that each x0 is paired with, sequence after sequence.
    pub assignment: Vec<usize>,
    /// `Σ‖x0_i − x1_σ(i)‖²` under the optimal assignment σ, over all sequences.
    pub optimal_cost: f64,
    /// `Σ‖x0_i − x1_i‖²`.
    pub identity_cost: f64,
}

/// Recoupling ratio of a sequence of latents, or averaged over a batch of them.
///
/// The assignment is exact (Jonker & Volgenant's shortest augmenting paths, in f64) under squared Euclidean
/// cost. Entropic solvers are not used: their kernel underflows at latents' distances and R becomes 1 for
/// anything. When no assignment is cheaper than the given pairing, the pairing stays and R is 0.
///
/// # Shapes
/// `x0` and `x1` (n, D) or (B, n, D).
///
/// # Errors
/// Shapes that differ or are empty; latents that are not finite.
pub fn recoupling(x0: &Tensor, x1: &Tensor) -> Result<Recoupling> {
    ensure!(
        x0.dims() == x1.dims(),
        "recoupling needs x0 and x1 of the same shape, not {:?} and {:?}",
        x0.dims(),
        x1.dims()
    );
    let (n, width) = match *x0.dims() {
        [n, width] | [_, n, width] => (n, width),
        _ => bail!("recoupling needs latents of shape (n, D) or (B, n, D), not {:?}", x0.dims()),
    };
    ensure!(x0.elem_count() > 0, "recoupling needs at least one latent, not shape {:?}", x0.dims());
    let (x0, x1) = (values(x0)?, values(x1)?);
    let sequences: Vec<_> = x0
        .par_chunks(n * width)
        .zip(x1.par_chunks(n * width))
        .map(|(x0, x1)| assign(n, &costs(x0, x1, width)))
        .collect::<Result<_>>()?;

    let count = sequences.len() as f64;
    let mut total = Recoupling { ratio: 0.0, assignment: Vec::new(), optimal_cost: 0.0, identity_cost: 0.0 };
    for sequence in sequences {
        total.ratio += sequence.ratio / count;
        total.assignment.extend(sequence.assignment);
        total.optimal_cost += sequence.optimal_cost;
        total.identity_cost += sequence.identity_cost;
    }
    Ok(total)
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    let values = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    ensure!(values.iter().all(|v| v.is_finite()), "recoupling: the latents hold NaN or infinity");
    Ok(values)
}

/// `cost[i·n + j] = ‖x0_i − x1_j‖²` by direct differences: products `x·y` would lose digits to cancellation.
fn costs(x0: &[f64], x1: &[f64], width: usize) -> Vec<f64> {
    x0.chunks(width)
        .flat_map(|a| x1.chunks(width).map(|b| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()))
        .collect()
}

fn assign(n: usize, cost: &Vec<f64>) -> Result<Recoupling> {
    let (_, optimal) = lsap::solve(n, n, cost, false).context("recoupling: the assignment failed")?;
    let sum = |assignment: &[usize]| assignment.iter().enumerate().map(|(i, j)| cost[i * n + j]).sum::<f64>();
    let identity: Vec<usize> = (0..n).collect();
    let (optimal_cost, identity_cost) = (sum(&optimal), sum(&identity));
    // Among equally cheap assignments, up to the rounding of the sums, the given pairing is the one to keep.
    if identity_cost - optimal_cost <= n as f64 * f64::EPSILON * identity_cost {
        return Ok(Recoupling {
            ratio: 0.0,
            assignment: identity,
            optimal_cost: identity_cost,
            identity_cost,
        });
    }
    let kept = optimal.iter().enumerate().filter(|(i, j)| i == *j).count();
    Ok(Recoupling { ratio: 1.0 - kept as f64 / n as f64, assignment: optimal, optimal_cost, identity_cost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_cases_agree_with_scipy() {
        let folder = "tests/goldens/metrics";
        let inputs =
            candle_core::safetensors::load(format!("{folder}/inputs.safetensors"), &Device::Cpu).unwrap();
        let text = std::fs::read_to_string(format!("{folder}/expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cases = expected["recoupling"].as_object().unwrap();
        assert_eq!(cases.len(), 5);
        for (name, case) in cases {
            let found =
                recoupling(&inputs[&format!("ot.{name}.x0")], &inputs[&format!("ot.{name}.x1")]).unwrap();
            assert_eq!(Some(found.ratio), case["ratio"].as_f64(), "{name}");
            for (cost, key) in [(found.optimal_cost, "optimal_cost"), (found.identity_cost, "identity_cost")]
            {
                let expected = case[key].as_f64().unwrap();
                assert!((cost - expected).abs() < 1e-6 * expected, "{name} {key}: {cost} {expected}");
            }
        }
    }

    #[test]
    fn batches_average_their_sequences() {
        // The first sequence keeps its order, the second is turned around.
        let x0 = Tensor::new(&[[[0f32], [1.0], [2.0]], [[0.0], [1.0], [2.0]]], &Device::Cpu).unwrap();
        let x1 = Tensor::new(&[[[0f32], [1.0], [2.0]], [[2.0], [1.0], [0.0]]], &Device::Cpu).unwrap();
        let found = recoupling(&x0, &x1).unwrap();
        let expected = Recoupling {
            ratio: 1.0 / 3.0,
            assignment: vec![0, 1, 2, 2, 1, 0],
            optimal_cost: 0.0,
            identity_cost: 8.0,
        };
        assert!((found.ratio - expected.ratio).abs() < 1e-15);
        assert_eq!(Recoupling { ratio: expected.ratio, ..found }, expected);
    }

    #[test]
    fn equal_costs_keep_the_pairing() {
        let same = Tensor::ones((6, 3), DType::BF16, &Device::Cpu).unwrap();
        let found = recoupling(&same, &same).unwrap();
        assert_eq!((found.ratio, found.assignment), (0.0, (0..6).collect()));
    }

    #[test]
    fn bad_latents_are_errors() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let message = |a: &Tensor, b: &Tensor| recoupling(a, b).unwrap_err().to_string();
        assert!(message(&zeros(&[2, 3]), &zeros(&[3, 3])).contains("[2, 3] and [3, 3]"));
        assert!(message(&zeros(&[4]), &zeros(&[4])).contains("(B, n, D)"));
        assert!(message(&zeros(&[0, 3]), &zeros(&[0, 3])).contains("at least one latent"));
        assert!(message(&zeros(&[2, 3]), &(zeros(&[2, 3]) / 0.0).unwrap()).contains("NaN or infinity"));
    }

    /// The cheapest assignment of rows `i..` to the columns not taken.
    fn brute_force(cost: &[f64], n: usize, i: usize, taken: u32) -> f64 {
        let free = (0..n).filter(|j| taken & (1 << j) == 0);
        free.map(|j| cost[i * n + j] + brute_force(cost, n, i + 1, taken | 1 << j))
            .reduce(f64::min)
            .unwrap_or(0.0)
    }

    proptest! {
        #[test]
        fn assignments_are_optimal(
            n in 1usize..8, width in 1usize..4, values in prop::collection::vec(-4i32..5, 42), spread in 0.1..50.0f64,
        ) {
            let value = |i: usize| f64::from(values[i]) * spread;
            let x0: Vec<f64> = (0..n * width).map(value).collect();
            let x1: Vec<f64> = (0..n * width).map(|i| value(i + 21)).collect();
            let tensor = |x: &[f64]| Tensor::from_slice(x, (n, width), &Device::Cpu).unwrap();
            let found = recoupling(&tensor(&x0), &tensor(&x1)).unwrap();

            let cost = costs(&x0, &x1, width);
            let best = brute_force(&cost, n, 0, 0);
            prop_assert!((found.optimal_cost - best).abs() <= 1e-12 * best);
            let paid: f64 = found.assignment.iter().enumerate().map(|(i, j)| cost[i * n + j]).sum();
            prop_assert!((paid - best).abs() <= 1e-12 * best);
            let mut permutation = found.assignment.clone();
            permutation.sort_unstable();
            prop_assert!(permutation.into_iter().eq(0..n));
            if found.identity_cost <= best {
                prop_assert_eq!(found.ratio, 0.0);
            }
        }
    }
}
