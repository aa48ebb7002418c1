//! Golden cases by Hugging Face transformers: every folder of `tests/goldens` (and of `$LFT_GOLDENS`) that holds
//! a `config.json` and an `expected.safetensors` with `input_ids`, `hidden.<boundary>`, `logits` and `greedy`.
//!
//! They run on the CPU, or on the device that `LFT_TEST_DEVICE` names as `--device` does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use lft::device::DeviceChoice;
use lft::pythia::{Cache, Pythia, Sampling, generate};

const CPU: Device = Device::Cpu;

/// A model as a user has it and what it must compute.
struct Case {
    folder: PathBuf,
    expected: HashMap<String, Tensor>,
}

impl Case {
    fn load(&self, dtype: DType) -> Result<Pythia> {
        self.load_from(&self.folder, dtype)
    }

    fn load_from(&self, folder: &Path, dtype: DType) -> Result<Pythia> {
        Pythia::load(folder.to_str().context("a path in UTF-8")?, dtype, &device()?)
    }

    fn expected(&self, name: &str) -> Result<&Tensor> {
        self.expected.get(name).with_context(|| format!("expected.safetensors lacks {name}"))
    }
}

fn device() -> Result<Device> {
    match std::env::var("LFT_TEST_DEVICE") {
        Ok(name) => name.parse::<DeviceChoice>().map_err(anyhow::Error::msg)?.open(|_| ()),
        Err(_) => Ok(CPU),
    }
}

/// Relative error allowed in f32: other devices sum in another order than the CPU.
fn single() -> Result<f64> {
    Ok(if device()?.is_cpu() { 1e-4 } else { 1e-3 })
}

fn cases() -> Result<Vec<Case>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut folders = Vec::new();
    for root in std::iter::once(own).chain(std::env::var_os("LFT_GOLDENS").map(PathBuf::from)) {
        folders.push(root.clone());
        for entry in std::fs::read_dir(&root).with_context(|| format!("cannot list {}", root.display()))? {
            folders.push(entry?.path());
        }
    }
    folders.sort();
    let complete =
        |folder: &PathBuf| ["config.json", "expected.safetensors"].iter().all(|f| folder.join(f).is_file());
    let cases: Vec<Case> = folders
        .into_iter()
        .filter(complete)
        .map(|folder| {
            let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &CPU)?;
            Ok(Case { folder, expected })
        })
        .collect::<Result<_>>()?;
    ensure!(cases.len() >= 5, "only {} golden cases were found", cases.len());
    Ok(cases)
}

fn each_case(check: impl Fn(&Case) -> Result<()>) -> Result<()> {
    cases()?.iter().try_for_each(|case| check(case).with_context(|| case.folder.display().to_string()))
}

/// `max|a − b| / max|b|` and `‖a − b‖ / ‖b‖`.
fn relative_errors(a: &Tensor, b: &Tensor) -> Result<(f64, f64)> {
    ensure!(a.dims() == b.dims(), "found shape {:?}, expected {:?}", a.dims(), b.dims());
    let values = |t: &Tensor| anyhow::Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
    let (a, b) = (values(a)?, values(b)?);
    let most = |it: &mut dyn Iterator<Item = f64>| {
        it.fold(0.0, |m: f64, v| if v.is_nan() { v } else { m.max(v.abs()) })
    };
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|v| v * v).sum::<f64>().sqrt();
    let difference = || a.iter().zip(&b).map(|(a, b)| a - b);
    Ok((
        most(&mut difference()) / most(&mut b.iter().copied()),
        norm(&mut difference()) / norm(&mut b.iter().copied()),
    ))
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor, bound: f64) -> Result<()> {
    let (most, norm) = relative_errors(found, expected)?;
    ensure!(
        most <= bound && norm <= bound,
        "{what}: relative error max {most:.1e}, norm {norm:.1e}, bound {bound:.1e}"
    );
    Ok(())
}

#[test]
fn every_boundary_and_the_logits_agree() -> Result<()> {
    each_case(|case| {
        let model = case.load(DType::F32)?;
        let ids = case.expected("input_ids")?;
        let last = model.config.num_hidden_layers;
        for boundary in 0..=last {
            let expected = case.expected(&format!("hidden.{boundary}"))?;
            assert_close(&format!("hidden.{boundary}"), &model.hidden(ids, boundary)?, expected, single()?)?;
        }
        assert_close("logits", &model.logits(ids)?, case.expected("logits")?, single()?)?;
        let middle = model.run(&case.expected("hidden.1")?.to_device(&device()?)?, 1, last)?;
        assert_close("run from boundary 1", &middle, case.expected(&format!("hidden.{last}"))?, single()?)
    })
}

#[test]
fn greedy_continuations_are_the_same_tokens() -> Result<()> {
    each_case(|case| {
        let model = case.load(DType::F32)?;
        let rows = |name| anyhow::Ok(case.expected(name)?.to_dtype(DType::U32)?.to_vec2::<u32>()?);
        for (prompt, whole) in rows("input_ids")?.iter().zip(rows("greedy")?) {
            let sampling = Sampling { max_tokens: whole.len() - prompt.len(), ..Sampling::default() };
            let tokens = generate(&model, prompt, &sampling, |_| Ok(()))?;
            ensure!(
                [prompt.as_slice(), &tokens].concat() == whole,
                "{prompt:?} went on {tokens:?}, not as in {whole:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn cached_logits_equal_those_of_whole_sequences() -> Result<()> {
    each_case(|case| {
        let model = case.load(DType::F32)?;
        let ids = case.expected("input_ids")?;
        let last = model.config.num_hidden_layers;
        let mut cache = Cache::new(last);
        // A prompt, single tokens, and several at once behind a filled cache.
        for length in [5, 1, 1, 7] {
            let x = model.embed_cached(&ids.narrow(1, cache.len(), length)?, &cache)?;
            let logits = model.head(&model.run_cached(&x, 0, last, &mut cache)?)?;
            let whole = case.expected("logits")?.narrow(1, cache.len() - length, length)?;
            assert_close(&format!("logits up to token {}", cache.len()), &logits, &whole, single()?)?;
        }
        Ok(())
    })
}

/// bf16 keeps 8 significant bits: rounding a value errs by at most u = 2⁻⁹ of it. Up to a boundary the stream is
/// rounded once at the embedding and each layer adds the rounding of its weights, of its branches' intermediate
/// values and of the sums, a handful of u that add like independent errors; 8·u·√(1 + layers) leaves room for that
/// and none for a wrong formula, which errs by the order of 1. The logits pass the final norm and one more product.
#[test]
fn bf16_agrees_within_its_rounding() -> Result<()> {
    each_case(|case| {
        let model = case.load(DType::BF16)?;
        let ids = case.expected("input_ids")?;
        let bound = |layers: usize| 8.0 / 512.0 * (1.0 + layers as f64).sqrt();
        let last = model.config.num_hidden_layers;
        for boundary in 0..=last {
            let (_, norm) = relative_errors(
                &model.hidden(ids, boundary)?,
                case.expected(&format!("hidden.{boundary}"))?,
            )?;
            ensure!(norm <= bound(boundary), "hidden.{boundary}: relative error {norm:.1e} in norm");
        }
        let (_, norm) = relative_errors(&model.logits(ids)?, case.expected("logits")?)?;
        ensure!(norm <= bound(last + 1), "logits: relative error {norm:.1e} in norm");
        Ok(())
    })
}

#[test]
fn a_saved_model_computes_the_same() -> Result<()> {
    each_case(|case| {
        let model = case.load(DType::F32)?;
        let folder = tempfile::tempdir()?;
        model.save(folder.path())?;
        let again = case.load_from(folder.path(), DType::F32)?;
        assert_close(
            "hidden.0",
            &again.embed(case.expected("input_ids")?)?,
            case.expected("hidden.0")?,
            single()?,
        )?;
        assert_close(
            "logits",
            &again.logits(case.expected("input_ids")?)?,
            case.expected("logits")?,
            single()?,
        )
    })
}
