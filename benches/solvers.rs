//! Cost of the ODE solvers against state size and number of steps, each method.
//!
//! `oscillator` is the overhead of the solver itself: two f64 numbers and a field that costs nothing.
//! `tanh` is a batch of 4096 × 64 under `x' = tanh(x·A)`, where the field dominates; `field` is its cost alone. `size` is the solver's own
//! arithmetic on large states: the field returns its argument.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lft::ode::{Method, Options, Result, State, solve};

/// Benches one solve; the throughput counts evaluations of the field.
fn bench_solve<S: State>(
    group: &mut BenchmarkGroup<WallTime>,
    id: BenchmarkId,
    f: impl Fn(&S, f64) -> Result<S>,
    x0: &S,
    options: &Options,
) {
    let nfe = solve(&f, x0, options).expect("the benchmark's problem is solvable").stats.nfe;
    group.throughput(Throughput::Elements(nfe as u64));
    group.bench_function(id, |bencher| bencher.iter(|| solve(&f, black_box(x0), options)));
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200));
    group
}

fn oscillator(criterion: &mut Criterion) {
    let mut group = group(criterion, "oscillator");
    let array = |x: &[f64; 2], _t: f64| -> Result<_> { Ok([x[1], -x[0]]) };
    let vector = |x: &Vec<f64>, _t: f64| -> Result<_> { Ok(vec![x[1], -x[0]]) };
    for method in Method::ALL {
        let fixed = |steps| Options { method, t1: 10.0, steps: Some(steps), ..Options::default() };
        for steps in [100, 1000] {
            bench_solve(
                &mut group,
                BenchmarkId::new(method.name(), steps),
                array,
                &[1.0, 0.0],
                &fixed(steps),
            );
        }
        if method.is_adaptive() {
            let options = Options { steps: None, rtol: 1e-6, atol: 1e-8, ..fixed(1) };
            bench_solve(&mut group, BenchmarkId::new(method.name(), "1e-6"), array, &[1.0, 0.0], &options);
            let id = BenchmarkId::new(format!("{method}, Vec"), "1e-6");
            bench_solve(&mut group, id, vector, &vec![1.0, 0.0], &options);
        }
    }
}

fn tanh(criterion: &mut Criterion) {
    let mut group = group(criterion, "tanh");
    let a = (Tensor::randn(0f32, 1.0, (64, 64), &Device::Cpu).expect("a matrix") * 0.125).expect("a matrix");
    let x0 = Tensor::randn(0f32, 1.0, (4096, 64), &Device::Cpu).expect("a batch");
    let f = |x: &Tensor, _t: f64| -> Result<_> { Ok(x.matmul(&a)?.tanh()?) };
    group.throughput(Throughput::Elements(1));
    group.bench_function("field", |bencher| bencher.iter(|| f(black_box(&x0), 0.0)));
    for method in Method::ALL {
        let options = Options { method, steps: Some(20), ..Options::default() };
        bench_solve(&mut group, BenchmarkId::new(method.name(), 20), f, &x0, &options);
        if method.is_adaptive() {
            let options = Options { steps: None, rtol: 1e-5, atol: 1e-5, ..options };
            bench_solve(&mut group, BenchmarkId::new(method.name(), "1e-5"), f, &x0, &options);
        }
    }
}

fn size(criterion: &mut Criterion) {
    let mut group = group(criterion, "size");
    for method in [Method::Euler, Method::Midpoint, Method::Rk4, Method::Tsit5, Method::Dopri5] {
        for elements in [1 << 8, 1 << 14, 1 << 20] {
            let x0 = Tensor::ones(elements, DType::F32, &Device::Cpu).expect("a state");
            let f = |x: &Tensor, _t: f64| -> Result<_> { Ok(x.clone()) };
            let options = Options { method, steps: Some(10), ..Options::default() };
            bench_solve(&mut group, BenchmarkId::new(method.name(), elements), f, &x0, &options);
        }
    }
}

criterion_group!(benches, oscillator, tanh, size);
criterion_main!(benches);
