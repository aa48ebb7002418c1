//! Caches of latents: what comes back, interruptions, and what is refused.

use std::fs;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::latents::file;
use super::{LatentBatch, LatentCache, LatentPlan};

fn plan() -> LatentPlan {
    LatentPlan {
        format: LatentPlan::FORMAT,
        boundaries: vec![1, 3],
        dtype: "f16".to_owned(),
        width: 4,
        seq_len: 3,
        windows: 7,
        shard_windows: 3,
        teacher: "t".to_owned(),
        text: "x".to_owned(),
    }
}

/// Window w holds ids w, and latents w + boundary/4.
fn compute(first: usize, count: usize) -> Result<LatentBatch> {
    let w = Tensor::arange(first as u32, (first + count) as u32, &Device::Cpu)?;
    let ids = w.reshape((count, 1))?.broadcast_as((count, 3))?;
    let x = w.to_dtype(DType::F32)?.reshape((count, 1, 1))?.broadcast_as((count, 3, 4))?;
    let latents = [1.0, 3.0].map(|b: f64| (&x + b / 4.0).map_err(anyhow::Error::from));
    Ok(LatentBatch { ids, latents: latents.into_iter().collect::<Result<_>>()? })
}

fn cells(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().narrow(1, 2, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn windows_come_back_and_files_are_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut calls = 0;
    let mut build = || {
        LatentCache::build(
            folder.path(),
            plan(),
            |first, count| {
                calls += 1;
                compute(first, count)
            },
            |_| Ok(()),
        )
    };
    build().unwrap();
    fs::remove_file(file(folder.path(), 1)).unwrap();
    let cache = build().unwrap();
    assert_eq!(calls, 4);
    cache.verify().unwrap();
    let batch = cache.windows(&[6, 0, 4]).unwrap();
    assert_eq!(cells(&batch.ids), [6.0, 0.0, 4.0]);
    assert_eq!(cells(&batch.latents[0])[..4], [6.25; 4]);
    assert_eq!(cells(&batch.latents[1])[8..], [4.75; 4]);
    let mut seen: Vec<f32> = (0..7).flat_map(|step| cells(&cache.batch(step, 1, 9).unwrap().ids)).collect();
    seen.sort_by(f32::total_cmp);
    assert_eq!(seen, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn another_plan_and_damage_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    LatentCache::build(folder.path(), plan(), compute, |_| Ok(())).unwrap();
    let other = LatentPlan { teacher: "other".to_owned(), ..plan() };
    let error = LatentCache::build(folder.path(), other, compute, |_| Ok(())).err().unwrap().to_string();
    assert!(error.contains("another teacher"), "{error}");
    let path = file(folder.path(), 2);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = LatentCache::open(folder.path()).unwrap().verify().unwrap_err().to_string();
    assert!(error.contains("00002.safetensors is damaged"), "{error}");
    fs::write(&path, &bytes[..last]).unwrap();
    assert!(format!("{:#}", LatentCache::open(folder.path()).err().unwrap()).contains("00002.safetensors"));
    assert!(
        LatentCache::open(&folder.path().join("none"))
            .err()
            .unwrap()
            .to_string()
            .contains("holds no latents")
    );
}
