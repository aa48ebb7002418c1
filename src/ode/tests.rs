//! The solvers as a whole: order, tolerance, cost, direction, failure, gradients.

use std::cell::Cell;

use candle_core::{Device, Tensor, Var};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::*;

const N: usize = 4;
type Vector = [f64; N];
type Matrix = [Vector; N];

fn product(a: &Matrix, x: &Vector) -> Vector {
    a.map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum())
}

/// `exp(A·t)·x` by its Taylor series on 64 pieces of the interval, exact to rounding for ‖A·t‖ ≲ 10.
fn exponential(a: &Matrix, t: f64, x: &Vector) -> Vector {
    (0..64).fold(*x, |x, _| {
        let mut term = x;
        (1..20).fold(x, |sum, k| {
            term = product(a, &term).map(|v| v * t / 64.0 / f64::from(k));
            std::array::from_fn(|i| sum[i] + term[i])
        })
    })
}

/// A random system whose eigenvalues lie left of and near the imaginary axis.
fn random_system(seed: u64) -> (Matrix, Vector) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut a: Matrix = std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0)));
    for (i, row) in a.iter_mut().enumerate() {
        row[i] -= 0.5;
    }
    (a, std::array::from_fn(|_| rng.random_range(0.5..1.5)))
}

fn distance(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Least-squares slope of log error against log step over `steps`.
fn slope(steps: &[usize], error: impl Fn(usize) -> f64) -> f64 {
    let points: Vec<_> = steps.iter().map(|&n| (-(n as f64).ln(), error(n).ln())).collect();
    let count = points.len() as f64;
    let (mx, my) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    points.iter().map(|(x, y)| (x - mx) * (y - my)).sum::<f64>()
        / points.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>()
}

/// Step counts whose errors lie between the pre-asymptotic range and rounding.
fn range_of(order: u32) -> &'static [usize] {
    match order {
        1 => &[512, 1024, 2048, 4096],
        2 => &[64, 128, 256, 512],
        3 => &[32, 64, 128, 256],
        4 => &[32, 48, 72, 108],
        // Tsit5's leading error term is so small that the next one shows with larger steps.
        _ => &[96, 128, 170, 220],
    }
}

fn fixed(method: Method, steps: usize) -> Options {
    Options { method, steps: Some(steps), t1: 2.0, ..Options::default() }
}

#[test]
fn every_method_converges_with_its_order() {
    for method in Method::ALL {
        let order = method.tableau().order();
        for seed in 0..3 {
            let (a, x0) = random_system(seed);
            let exact = exponential(&a, 2.0, &x0);
            let measured = slope(range_of(order), |steps| {
                let f = |x: &Vector, _t: f64| -> Result<_> { Ok(product(&a, x)) };
                distance(&solve(f, &x0, &fixed(method, steps)).unwrap().x1, &exact)
            });
            assert!((measured - f64::from(order)).abs() < 0.2, "{method}, seed {seed}: order {measured}");
        }
    }
}

#[test]
fn every_method_converges_with_its_order_where_time_enters() {
    // x' = ¾·t²·x, x(2) = e².
    for method in Method::ALL {
        let order = method.tableau().order();
        let measured = slope(range_of(order), |steps| {
            let f = |x: &[f64; 1], t: f64| -> Result<_> { Ok([0.75 * t * t * x[0]]) };
            (solve(f, &[1.0], &fixed(method, steps)).unwrap().x1[0] - 2f64.exp()).abs()
        });
        assert!((measured - f64::from(order)).abs() < 0.2, "{method}: order {measured}");
    }
}

#[test]
fn dense_output_converges_with_its_order() {
    for method in Method::ALL {
        let order = method.tableau().order();
        // The interpolation error of one step: h⁴ for cubic Hermite, h⁵ for the quartics.
        let interpolant = if matches!(method.tableau().dense, Dense::Hermite) { 4 } else { 5 };
        let expected = f64::from(order.min(interpolant));
        let (a, x0) = random_system(1);
        let measured = slope(range_of(order), |steps| {
            let h = 2.0 / steps as f64;
            let save_at: Vec<f64> =
                (0..steps).flat_map(|i| [0.3, 0.62].map(|theta| (i as f64 + theta) * h)).collect();
            let options = Options { save_at: save_at.clone(), ..fixed(method, steps) };
            let f = |x: &Vector, _t: f64| -> Result<_> { Ok(product(&a, x)) };
            let saved = solve(f, &x0, &options).unwrap().saved;
            assert_eq!(saved.len(), save_at.len());
            saved
                .iter()
                .zip(&save_at)
                .map(|(x, t)| distance(x, &exponential(&a, *t, &x0)))
                .fold(0.0, f64::max)
        });
        assert!((measured - expected).abs() < 0.2, "{method}: order {measured} instead of {expected}");
    }
}

fn oscillator(x: &[f64; 2], _t: f64) -> Result<[f64; 2]> {
    Ok([x[1], -x[0]])
}

/// Van der Pol's oscillator at μ = 20: mildly stiff.
fn van_der_pol(x: &[f64; 2], _t: f64) -> Result<[f64; 2]> {
    Ok([x[1], 20.0 * (1.0 - x[0] * x[0]) * x[1] - x[0]])
}

fn adaptive(method: Method, t1: f64, tolerance: f64) -> Options {
    Options { method, t1, rtol: tolerance, atol: tolerance, ..Options::default() }
}

#[test]
fn adaptive_methods_reach_the_tolerance() {
    for method in Method::ALL.into_iter().filter(|m| m.is_adaptive()) {
        let reference = solve(van_der_pol, &[2.0, 0.0], &adaptive(Method::Dopri5, 20.0, 1e-13)).unwrap().x1;
        let mut last_nfe = 0;
        for tolerance in [1e-4, 1e-6, 1e-8] {
            let solution = solve(oscillator, &[1.0, 0.0], &adaptive(method, 10.0, tolerance)).unwrap();
            let error = (solution.x1[0] - 10f64.cos()).abs().max((solution.x1[1] + 10f64.sin()).abs());
            assert!(error < 50.0 * tolerance, "{method} at {tolerance}: {error}");
            assert!(solution.stats.nfe > last_nfe);
            last_nfe = solution.stats.nfe;

            let stiff = solve(van_der_pol, &[2.0, 0.0], &adaptive(method, 20.0, tolerance)).unwrap();
            assert!((stiff.x1[0] - reference[0]).abs() < 100.0 * tolerance, "{method} at {tolerance}");
            assert!(stiff.stats.rejected > 0);
        }
    }
}

#[test]
fn adaptive_dense_output_is_as_exact_as_the_steps() {
    let save_at: Vec<f64> = (0..=100).map(|i| f64::from(i) * 0.1).collect();
    for (method, allowed) in [(Method::Bosh3, 1e-5), (Method::Tsit5, 1e-5), (Method::Dopri5, 1e-5)] {
        let options = Options { save_at: save_at.clone(), ..adaptive(method, 10.0, 1e-7) };
        let solution = solve(oscillator, &[1.0, 0.0], &options).unwrap();
        assert_eq!(solution.saved[100], solution.x1);
        for (x, t) in solution.saved.iter().zip(&save_at) {
            assert!((x[0] - t.cos()).abs() < allowed, "{method} at {t}: {}", x[0] - t.cos());
        }
        let plain = solve(oscillator, &[1.0, 0.0], &Options { save_at: vec![], ..options }).unwrap();
        assert_eq!(
            (plain.x1, plain.stats),
            (solution.x1, solution.stats),
            "saving must not change the steps"
        );
    }
}

#[test]
fn evaluations_are_counted_exactly() {
    let calls = Cell::new(0);
    let f = |x: &[f64; 2], t: f64| {
        calls.set(calls.get() + 1);
        oscillator(x, t)
    };
    let stages = [1, 2, 2, 2, 4, 3, 6, 6];
    for (method, stages) in Method::ALL.into_iter().zip(stages) {
        for (save_at, extra) in
            [(vec![], 0), (vec![0.0, 0.5, 1.0, 2.0], 0), (vec![0.7, 0.8], 0), (vec![1.7], 1)]
        {
            calls.set(0);
            let options = Options { save_at, ..fixed(method, 4) };
            let stats = solve(f, &[1.0, 0.0], &options).unwrap().stats;
            assert_eq!(stats, Stats { nfe: 4 * stages + extra, accepted: 4, rejected: 0 }, "{method}");
            assert_eq!(calls.get(), stats.nfe);
        }
        if method.is_adaptive() {
            // First same as last: every attempt shares its first evaluation; two more start the integration.
            calls.set(0);
            let stats = solve(f, &[1.0, 0.0], &adaptive(method, 10.0, 1e-6)).unwrap().stats;
            assert_eq!(stats.nfe, 2 + stages * (stats.accepted + stats.rejected), "{method}");
            assert_eq!(calls.get(), stats.nfe);
        }
    }
}

#[test]
fn backwards_integration_returns() {
    for method in Method::ALL {
        let there = Options { t0: -1.0, t1: 2.0, ..fixed(method, 4000) };
        let back = Options { t0: 2.0, t1: -1.0, save_at: vec![2.0, 0.25, -1.0], ..there.clone() };
        let (there, back) = if method.is_adaptive() {
            let own = |o: Options| Options { steps: None, rtol: 1e-9, atol: 1e-9, ..o };
            (own(there), own(back))
        } else {
            (there, back)
        };
        let f = |x: &[f64; 1], t: f64| -> Result<_> { Ok([x[0] * t.cos()]) };
        let end = solve(f, &[1.0], &there).unwrap().x1;
        let start = solve(f, &end, &back).unwrap();
        let allowed = if method == Method::Euler { 1e-2 } else { 1e-6 };
        assert!((start.x1[0] - 1.0).abs() < allowed, "{method}: {:?}", start.x1);
        let middle = (0.25f64.sin() - (-1f64).sin()).exp();
        assert!((start.saved[1][0] - middle).abs() < allowed, "{method}");
        assert_eq!((start.saved[0], start.saved[2]), (end, start.x1));
    }
}

#[test]
fn an_empty_interval_returns_the_start() {
    for method in [Method::Euler, Method::Dopri5] {
        let options = Options { t0: 3.0, t1: 3.0, save_at: vec![3.0, 3.0], ..fixed(method, 5) };
        let never = |_: &[f64; 1], _: f64| -> Result<[f64; 1]> { panic!("nothing to evaluate") };
        let solution = solve(never, &[0.5], &options).unwrap();
        assert_eq!((solution.x1, solution.saved, solution.stats), ([0.5], vec![[0.5]; 2], Stats::default()));
    }
}

#[test]
fn no_field_is_evaluated_outside_the_interval() {
    for method in Method::ALL {
        for steps in [Some(3), Some(7), method.is_adaptive().then_some(0)].into_iter().flatten() {
            let steps = (steps > 0).then_some(steps);
            let f = |x: &[f64; 1], t: f64| -> Result<_> {
                assert!((0.1..=0.7).contains(&t), "{method}: t = {t}");
                Ok([x[0].sin()])
            };
            solve(f, &[1.0], &Options { method, t0: 0.1, t1: 0.7, steps, ..Options::default() }).unwrap();
        }
    }
}

#[test]
fn a_blow_up_ends_with_an_error_naming_the_time() {
    // x' = x² from 1 is 1/(1 − t).
    for method in Method::ALL.into_iter().filter(|m| m.is_adaptive()) {
        let f = |x: &[f64; 1], _t: f64| -> Result<_> { Ok([x[0] * x[0]]) };
        match solve(f, &[1.0], &adaptive(method, 2.0, 1e-6)).unwrap_err() {
            Error::StepUnderflow { t, h, .. } => {
                assert!((t - 1.0).abs() < 1e-3 && h < 1e-14, "{method}: {t} {h}")
            }
            other => panic!("{method}: {other}"),
        }
        let error = solve(f, &[1.0], &Options { t1: 4.0, ..fixed(method, 100) }).unwrap_err();
        assert!(error.to_string().contains("NaN or infinity at t = 4"), "{error}");
    }
}

#[test]
fn an_impossible_tolerance_ends_with_an_error() {
    // A jump at every scale: no step is small enough.
    let noise = |x: &[f64; 1], t: f64| -> Result<_> {
        Ok([1e6 * (x[0].to_bits() ^ t.to_bits()).count_ones() as f64])
    };
    for method in Method::ALL.into_iter().filter(|m| m.is_adaptive()) {
        let options = Options { method, rtol: 0.0, atol: 1e-30, ..Options::default() };
        let message = solve(noise, &[1.0], &options).unwrap_err().to_string();
        assert!(message.contains("step size fell to") && message.contains("at t = "), "{message}");

        let options = Options { max_steps: 7, ..adaptive(method, 1e3, 1e-6) };
        let message = solve(oscillator, &[1.0, 0.0], &options).unwrap_err().to_string();
        assert!(message.contains("7 steps") && message.contains("of 1000"), "{message}");
    }
}

#[test]
fn fields_that_are_broken_from_the_start_are_named() {
    let nan = |_: &[f64; 1], _: f64| -> Result<_> { Ok([f64::NAN]) };
    let message = |r: Result<Solution<[f64; 1]>>| r.unwrap_err().to_string();
    assert!(message(solve(nan, &[1.0], &adaptive(Method::Tsit5, 1.0, 1e-3))).contains("the velocity"));
    assert!(message(solve(nan, &[1.0], &fixed(Method::Rk4, 3))).contains("the state"));
    assert!(message(solve(nan, &[f64::NAN], &fixed(Method::Rk4, 3))).contains("the initial state"));
    // Broken later on: no step gets across.
    let late = |_: &[f64; 1], t: f64| -> Result<_> { Ok([if t < 0.5 { 1.0 } else { f64::NAN }]) };
    match solve(late, &[1.0], &adaptive(Method::Dopri5, 1.0, 1e-3)).unwrap_err() {
        Error::StepUnderflow { t, .. } => assert!((t - 0.5).abs() < 1e-6),
        other => panic!("{other}"),
    }
}

#[test]
fn errors_of_the_field_pass_through_with_their_source() {
    let f = |_: &[f64; 1], _: f64| -> anyhow::Result<[f64; 1]> {
        Err(anyhow::Error::from(std::io::Error::other("the cause")).context("the field"))
    };
    let error = solve(f, &[1.0], &fixed(Method::Heun, 1)).unwrap_err();
    assert_eq!(format!("{error:#}"), "the field: the cause");

    let wrong = |_: &Tensor, _: f64| Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu);
    let x0 = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap();
    let error: candle_core::Error = solve(wrong, &x0, &fixed(Method::Heun, 1)).unwrap_err();
    assert!(error.to_string().contains("shape [3] F32 for a state of shape [2] F32"), "{error}");
}

#[test]
fn tensors_and_vectors_agree() {
    let x0 = Tensor::new(&[1.0f64, 0.0], &Device::Cpu).unwrap();
    let turn = Tensor::new(&[[0.0f64, -1.0], [1.0, 0.0]], &Device::Cpu).unwrap();
    for method in Method::ALL {
        for steps in [Some(13), method.is_adaptive().then_some(0)].into_iter().flatten() {
            let options =
                Options { steps: (steps > 0).then_some(steps), save_at: vec![0.77], ..fixed(method, 13) };
            let f = |x: &Tensor, _t: f64| x.unsqueeze(0)?.matmul(&turn)?.squeeze(0);
            let tensors = solve(f, &x0, &options).unwrap();
            let g = |x: &Vec<f64>, _t: f64| -> Result<_> { Ok(vec![x[1], -x[0]]) };
            let vectors = solve(g, &vec![1.0, 0.0], &options).unwrap();
            assert_eq!(tensors.stats, vectors.stats, "{method}");
            for (t, v) in [(&tensors.x1, &vectors.x1), (&tensors.saved[0], &vectors.saved[0])] {
                let t = t.to_vec1::<f64>().unwrap();
                assert!((t[0] - v[0]).abs() < 1e-13 && (t[1] - v[1]).abs() < 1e-13, "{method}");
            }
        }
    }
}

#[test]
fn gradients_through_a_solve_match_finite_differences() {
    let weight =
        Tensor::new(&[[0.3f64, -0.8, 0.1], [0.5, 0.2, -0.4], [-0.6, 0.9, 0.7]], &Device::Cpu).unwrap();
    let start = [0.4f64, -0.3, 0.9];
    let target = Tensor::new(&[[0.2f64, 0.1, -0.5]], &Device::Cpu).unwrap();
    for method in Method::ALL {
        let loss = |x0: &Tensor| -> candle_core::Result<Tensor> {
            let f = |x: &Tensor, t: f64| x.matmul(&weight)?.tanh()?.affine(1.0 + t, 0.0);
            let options = Options { save_at: vec![0.6], ..fixed(method, 3) };
            let solution = solve(f, x0, &options)?;
            (solution.x1 - &target)?.sqr()?.sum_all()? + solution.saved[0].sum_all()?
        };
        let x0 = Var::new(&[start], &Device::Cpu).unwrap();
        let gradients = loss(&x0).unwrap().backward().unwrap();
        let gradient = gradients.get(&x0).expect("a gradient").to_vec2::<f64>().unwrap();
        for i in 0..3 {
            let at = |shift: f64| {
                let mut moved = start;
                moved[i] += shift;
                loss(&Tensor::new(&[moved], &Device::Cpu).unwrap()).unwrap().to_scalar::<f64>().unwrap()
            };
            let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient[0][i] - difference).abs() < 1e-7, "{method}: {} {difference}", gradient[0][i]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn linear_equations_are_solved_linearly(
        seed in 0u64..1000, alpha in -2.0..2.0f64, beta in -2.0..2.0f64, steps in 1usize..20, method in 0usize..8,
    ) {
        let (a, x) = random_system(seed);
        let (_, y) = random_system(seed + 1000);
        let end = |x0: &Vector| {
            solve(|x: &Vector, _| -> Result<_> { Ok(product(&a, x)) }, x0, &fixed(Method::ALL[method], steps)).unwrap().x1
        };
        let mixed = end(&std::array::from_fn(|i| alpha * x[i] + beta * y[i]));
        let (x1, y1) = (end(&x), end(&y));
        let apart: Vector = std::array::from_fn(|i| alpha * x1[i] + beta * y1[i]);
        let scale = 1.0 + distance(&x1, &[0.0; N]) + distance(&y1, &[0.0; N]);
        prop_assert!(distance(&mixed, &apart) < 1e-11 * scale);
    }

    #[test]
    fn a_solve_is_its_two_halves(steps in 1usize..12, cut in 0usize..12, method in 0usize..8, start in -1.0..1.0f64) {
        let f = |x: &[f64; 1], t: f64| -> Result<_> { Ok([(x[0] + t).sin()]) };
        let (method, cut) = (Method::ALL[method], cut.min(steps));
        let whole = solve(f, &[start], &fixed(method, steps)).unwrap();
        let middle = 2.0 * cut as f64 / steps as f64;
        let mut x = [start];
        for (t0, t1, steps) in [(0.0, middle, cut), (middle, 2.0, steps - cut)] {
            if steps > 0 {
                x = solve(f, &x, &Options { t0, t1, ..fixed(method, steps) }).unwrap().x1;
            }
        }
        prop_assert!((x[0] - whole.x1[0]).abs() < 1e-13);
    }

    #[test]
    fn adaptive_errors_stay_near_the_tolerance(
        rate in 0.1..8.0f64, exponent in 3.0..9.0f64, method in 5usize..8, backwards: bool,
    ) {
        let tolerance = 10f64.powf(-exponent);
        let t1 = if backwards { -1.0 } else { 1.0 };
        let f = |x: &[f64; 1], t: f64| -> Result<_> { Ok([-rate * t1 * (x[0] - t.cos())]) };
        let x1 = solve(f, &[0.0], &adaptive(Method::ALL[method], t1, tolerance)).unwrap().x1[0];
        // x = (r²·cos t + r·sin t − r²·e^(−rt)) / (1 + r²) with r = rate·t1.
        let r = rate * t1;
        let exact = (r * r * t1.cos() + r * t1.sin() - r * r * (-r * t1).exp()) / (1.0 + r * r);
        prop_assert!((x1 - exact).abs() < 50.0 * tolerance, "{} {}", x1, exact);
    }
}
