//! Cost of every room above the solvers, on the processor: operations, the teacher, the flow, training, evaluation.
//!
//! Matrix products print which share of this machine's limit they reach, as `lft bench roofline` measures it; element
//! by element operations count bytes, to be held against the memory's bandwidth there.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lft::eval::Reference;
use lft::flow::{Block, Init, Integration, Student, VelocityField};
use lft::ode::Method;
use lft::ops::adamw::{Update, adamw, squared_norm};
use lft::ops::field::{Setting, Sum, Weights, field};
use lft::ops::frozen::{LayerWeights, frozen};
use lft::ops::{self, Activation, Rotary, roofline};
use lft::pythia::{Config, Decoder, Pythia};
use lft::train::{Objective, Options, Targets, Trainer};

const BATCH: usize = 4;
const TOKENS: usize = 256;
const BLOCK: Block = Block { m: 1, n: 5 };

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    group
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("a tensor")
}

/// A teacher between Pythia-14M and Pythia-70M: six layers of width 256, eight heads.
fn teacher() -> Arc<Pythia> {
    let config = Config {
        hidden_size: 256,
        intermediate_size: 1024,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        vocab_size: 8192,
        ..Config::default()
    };
    Arc::new(Pythia::random(config, 1, DType::F32, &Device::Cpu).expect("a model"))
}

fn student(teacher: &Arc<Pythia>) -> Student {
    let field = VelocityField::new(teacher, BLOCK, Init::Teacher, None, 2).expect("a field");
    Student::new(teacher.clone(), Arc::new(field)).expect("a student")
}

fn ids(length: usize) -> Tensor {
    let ids: Vec<u32> = (0..BATCH * length).map(|i| (i * 7919 % 8192) as u32).collect();
    Tensor::from_vec(ids, (BATCH, length), &Device::Cpu).expect("token ids")
}

/// Benches work of so many floating-point operations, and prints its share of the matrix products' limit.
fn bench_flops(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    flops: usize,
    limit: f64,
    mut work: impl FnMut(),
) {
    group.throughput(Throughput::Elements(flops as u64));
    group.bench_function(name, |bencher| bencher.iter(&mut work));
    let mut seconds: Vec<f64> = Vec::from_iter((0..9).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    }));
    seconds.sort_by(f64::total_cmp);
    let rate = flops as f64 / seconds[seconds.len() / 2];
    println!("{name}: {:.1} GFLOP/s, {:.0} % of the limit", rate * 1e-9, 100.0 * rate / limit);
}

fn operations(criterion: &mut Criterion) {
    let limit = roofline::measure(rayon::current_num_threads()).expect("threads").product();
    let mut group = group(criterion, "ops");
    for (rows, inputs, outputs) in [(2048, 128, 384), (2048, 512, 128), (512, 1024, 4096)] {
        let (x, w, b) = (random(&[rows, inputs]), random(&[outputs, inputs]), random(&[outputs]));
        let name = format!("linear {rows}x{inputs}x{outputs}");
        bench_flops(&mut group, &name, 2 * rows * inputs * outputs, limit, || {
            black_box(ops::linear(&x, &w, Some(&b)).expect("a product"));
        });
        let (x, w) = (Var::from_tensor(&x).expect("a variable"), Var::from_tensor(&w).expect("a variable"));
        bench_flops(&mut group, &format!("{name} with backward"), 6 * rows * inputs * outputs, limit, || {
            let y = ops::linear(&x, &w, Some(&b)).and_then(|y| y.sum_all());
            black_box(y.and_then(|y| y.backward()).expect("gradients"));
        });
    }
    for (tokens, heads, channels) in [(256, 4, 32), (1024, 8, 64)] {
        let rotary = Rotary::new(channels / 4, 10_000.0, tokens, &Device::Cpu).expect("tables");
        let qkv = random(&[2, tokens, 3 * heads * channels]);
        let flops = 2 * 2 * heads * tokens * tokens * channels * 2 / 2;
        bench_flops(&mut group, &format!("attention {tokens}x{heads}x{channels}"), flops, limit, || {
            black_box(ops::attention::causal(&qkv, &rotary, heads).expect("attention"));
        });
    }
    let (x, w) = (random(&[BATCH, TOKENS, 1024]), random(&[1024]));
    group.throughput(Throughput::Bytes(8 * x.elem_count() as u64));
    group.bench_function("layer norm", |bencher| bencher.iter(|| ops::layer_norm(&x, &w, &w, 1e-5)));
    group.bench_function("gelu", |bencher| bencher.iter(|| Activation::Gelu.apply(&x)));
    let logits = random(&[256, 8192]);
    group.throughput(Throughput::Bytes(8 * logits.elem_count() as u64));
    group.bench_function("kl divergence", |bencher| bencher.iter(|| ops::kl_divergence(&logits, &logits)));
}

/// The weights of a layer in the order of its tensors: weight and bias of two norms and of four maps.
fn layer(width: usize) -> Vec<Tensor> {
    let (d, inner) = (width, 4 * width);
    let norms = [vec![d], vec![d], vec![d], vec![d]];
    let maps = [
        vec![3 * d, d],
        vec![3 * d],
        vec![d, d],
        vec![d],
        vec![inner, d],
        vec![inner],
        vec![d, inner],
        vec![d],
    ];
    let scaled = |shape: &Vec<usize>| random(shape).affine(0.5 / (d as f64).sqrt(), 0.0).expect("a weight");
    norms.iter().chain(&maps).map(scaled).collect()
}

/// The velocity field and a chain of frozen layers, each one operation; flops are those of products and causal attention.
fn layers(criterion: &mut Criterion) {
    let limit = roofline::measure(rayon::current_num_threads()).expect("threads").product();
    let mut group = group(criterion, "layers");
    for (batch, tokens, width, heads) in [(8, 256, 128, 4), (4, 256, 512, 8)] {
        let w = layer(width);
        let rotary = Rotary::new(width / heads / 4, 10_000.0, tokens, &Device::Cpu).expect("tables");
        let setting = Setting { rotary, heads, eps: 1e-5, activation: Activation::Gelu };
        let (x, projection) = (random(&[batch, tokens, width]), random(&[batch, 6 * width]));
        let flops = batch * tokens * (24 * width * width + 2 * tokens * width);
        let sum = Sum { length: None, factor: 1.0, on_x: false };
        let weights = |w: &[Tensor]| {
            let map = |i: usize| (&w[i], Some(&w[i + 1]));
            Weights::new([(&w[0], &w[1]), (&w[2], &w[3])], [map(4), map(6), map(8), map(10)])
        };
        let plain = weights(&w).expect("weights");
        bench_flops(&mut group, &format!("field {batch}x{tokens}x{width}"), flops, limit, || {
            black_box(field(&x, &projection, &plain, &sum, &setting).expect("a velocity"));
        });
        let vars: Vec<Tensor> =
            w.iter().map(|w| Var::from_tensor(w).expect("a variable").into_inner()).collect();
        let (x, trained) = (Var::from_tensor(&x).expect("a variable"), weights(&vars).expect("weights"));
        bench_flops(
            &mut group,
            &format!("field {batch}x{tokens}x{width} with backward"),
            3 * flops,
            limit,
            || {
                let u =
                    field(&x, &projection, &trained, &sum, &setting).expect("a velocity").expect("covered");
                black_box(u.sum_all().and_then(|u| u.backward()).expect("gradients"));
            },
        );
        let map = |i: usize| (&w[i], Some(&w[i + 1]));
        let one = || LayerWeights {
            norms: [(&w[0], &w[1]), (&w[2], &w[3])],
            maps: [map(4), map(6), map(8), map(10)],
        };
        let chain: Vec<_> = (0..6).map(|_| one()).collect();
        bench_flops(
            &mut group,
            &format!("six frozen layers {batch}x{tokens}x{width}"),
            6 * flops,
            limit,
            || {
                black_box(frozen(&x.detach(), &chain, &setting, true).expect("latents"));
            },
        );
    }
}

fn optimizer(criterion: &mut Criterion) {
    let mut group = group(criterion, "optimizer");
    let var = || Var::from_tensor(&random(&[1 << 20])).expect("a variable");
    let (w, m, v, gradient) = (var(), var(), var(), random(&[1 << 20]));
    v.set(&gradient.sqr().expect("squares")).expect("a moment");
    let (lr, step) = (1e-6, 1);
    let update =
        Update { lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step, gradient_scale: 1.0 };
    // Four tensors are read, three of them written.
    group.throughput(Throughput::Bytes((7 * 4) << 20));
    group.bench_function("adamw of a million", |bencher| {
        bencher.iter(|| adamw(&w, &gradient, &m, &v, &update));
    });
    group.throughput(Throughput::Bytes(4 << 20));
    group.bench_function("squared norm of a million", |bencher| bencher.iter(|| squared_norm(&gradient)));
}

fn models(criterion: &mut Criterion) {
    let teacher = teacher();
    let student = student(&teacher);
    let ids = ids(TOKENS);
    let mut group = group(criterion, "pythia");
    group.throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    group.bench_function("latents", |bencher| bencher.iter(|| teacher.hidden(&ids, BLOCK.n)));
    group.bench_function("logits", |bencher| bencher.iter(|| teacher.logits(&ids)));
    group.throughput(Throughput::Elements(1));
    let prompt = Tensor::zeros((1, 64), DType::U32, &Device::Cpu).expect("a prompt");
    let next = prompt.narrow(1, 0, 1).expect("a token");
    let mut cache = teacher.new_cache();
    teacher.step(&prompt, &mut cache).expect("the prompt");
    group.bench_function("one token after 64", |bencher| {
        bencher.iter_batched(
            || cache.copy().expect("a copy"),
            |mut cache| teacher.step(&next, &mut cache),
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();

    let mut group = self::group(criterion, "flow");
    group.throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    let x0 = teacher.hidden(&ids, BLOCK.m).expect("latents");
    for (method, steps) in [(Method::Euler, 1), (Method::Midpoint, 3)] {
        let integration = Integration::fixed(method, steps);
        group.bench_function(format!("transport {method} {steps}"), |bencher| {
            bencher.iter(|| student.transport(&x0, &integration));
        });
    }
}

fn training(criterion: &mut Criterion) {
    let teacher = teacher();
    let mut group = group(criterion, "train");
    group.throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    let ids = ids(TOKENS);
    let (x0, x1) = student(&teacher).latents(&ids).expect("latents");
    let targets = Targets { ids, x0, x1, path: None, logits: None };
    for method in [Objective::Fm, Objective::Fw, Objective::Hybrid, Objective::Regression] {
        let options = Options { curriculum: method.into(), ..Options::default() };
        let mut trainer = Trainer::new(student(&teacher), options).expect("a trainer");
        group.bench_function(format!("step {method}"), |bencher| bencher.iter(|| trainer.step(&targets)));
    }
}

fn evaluation(criterion: &mut Criterion) {
    let teacher = teacher();
    let student = student(&teacher);
    let windows = [ids(TOKENS + 1)];
    let mut group = group(criterion, "eval");
    group.throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    group.bench_function("reference", |bencher| {
        bencher.iter(|| Reference::new(teacher.clone(), BLOCK, &windows, |_| ()));
    });
    let reference = Reference::new(teacher.clone(), BLOCK, &windows, |_| ()).expect("a reference");
    let integration = Integration::fixed(Method::Midpoint, 3);
    group.bench_function("student", |bencher| bencher.iter(|| reference.student(&student, &integration)));
}

/// As in the program itself.
fn threads(_: &mut Criterion) {
    // SAFETY: criterion runs its benches one after the other, and this one before any tensor.
    unsafe { lft::threads::leave_to_rayon() };
}

criterion_group!(benches, threads, operations, layers, optimizer, models, training, evaluation);
criterion_main!(benches);
