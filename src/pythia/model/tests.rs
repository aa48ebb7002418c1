use super::*;
use crate::pythia::info::Info;

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher");

fn tiny() -> Config {
    Config {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        vocab_size: 20,
        max_position_embeddings: 8,
        initializer_range: 0.2,
        ..Config::default()
    }
}

fn model(config: Config) -> Pythia {
    Pythia::random(config, 1, DType::F32, &Device::Cpu).unwrap()
}

fn ids(values: &[i64]) -> Tensor {
    Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn refusal<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("a refusal"))
}

#[test]
fn the_embedded_teacher_loads_whole() {
    let teacher = Pythia::load(TEACHER, DType::F32, &Device::Cpu).unwrap();
    let count: usize = teacher.tensors().iter().map(|(_, tensor)| tensor.elem_count()).sum();
    assert_eq!(count, 5_807_360);
    assert_eq!(teacher.layers().len(), 24);
    assert!(teacher.tokenizer().is_ok());
    assert_eq!(teacher.rotary().rotated(), 8);
}

#[test]
fn boundaries_chain() {
    let model = model(tiny());
    let ids = ids(&[3, 1, 4, 1, 5]);
    let whole = model.hidden(&ids, 3).unwrap();
    let parts = model.run(&model.hidden(&ids, 1).unwrap(), 1, 3).unwrap();
    assert_eq!(values(&whole), values(&parts));
    assert_eq!(values(&model.hidden(&ids, 0).unwrap()), values(&model.embed(&ids).unwrap()));
    assert_eq!(values(&model.run(&whole, 2, 2).unwrap()), values(&whole));
    assert_eq!(values(&model.logits(&ids).unwrap()), values(&model.head(&whole).unwrap()));
}

#[test]
fn attention_is_causal() {
    let model = model(tiny());
    let first = model.logits(&ids(&[3, 1, 4, 1, 5])).unwrap().narrow(1, 0, 3).unwrap();
    let other = model.logits(&ids(&[3, 1, 4, 7, 9])).unwrap().narrow(1, 0, 3).unwrap();
    assert_eq!(values(&first), values(&other));
}

#[test]
fn models_without_attention_biases_or_rotary_run() {
    for config in [
        Config { attention_bias: false, tie_word_embeddings: true, ..tiny() },
        Config { rotary_fraction: 0.0, use_parallel_residual: false, ..tiny() },
    ] {
        let expected = config.parameters().total;
        let model = model(config);
        assert_eq!(model.tensors().iter().map(|(_, tensor)| tensor.elem_count()).sum::<usize>(), expected);
        assert!(values(&model.logits(&ids(&[1, 2, 3])).unwrap()).iter().all(|value| value.is_finite()));
    }
}

#[test]
fn running_records_no_graph() {
    let model = model(tiny());
    assert!(!model.logits(&ids(&[1, 2])).unwrap().track_op());
}

#[test]
fn gradients_pass_through_to_tracked_latents() {
    let model = model(tiny());
    let x = candle_core::Var::from_tensor(&model.embed(&ids(&[1, 2, 3])).unwrap()).unwrap();
    let loss = model.head(&model.run(&x, 1, 3).unwrap()).unwrap().sqr().unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let gradient = values(gradients.get(&x).expect("a gradient of the latents"));
    assert!(gradient.iter().any(|value| value.abs() > 1e-3));
}

#[test]
fn a_shorter_chain_of_layers_keeps_both_ends() {
    let model = model(tiny());
    let shorter = model.with_layers(vec![model.layer(0).clone(), model.layer(2).clone()]);
    let ids = ids(&[1, 2]);
    let expected = model.head(&model.run(&model.hidden(&ids, 1).unwrap(), 2, 3).unwrap()).unwrap();
    assert_eq!(values(&shorter.logits(&ids).unwrap()), values(&expected));
    assert_eq!(shorter.config.num_hidden_layers, 2);
}

#[test]
fn refuses_tokens_that_do_not_fit() {
    let model = model(tiny());
    assert!(
        refusal(model.embed(&ids(&[1, 20]))).contains("token id 20 is outside the model's vocabulary 0..=19")
    );
    assert!(refusal(model.embed(&ids(&[-1]))).contains("token id -1 is outside"));
    assert!(refusal(model.logits(&ids(&[1; 9]))).contains("9 tokens are more than the model's context of 8"));
    assert!(refusal(model.embed(&ids(&[]))).contains("there are no tokens"));
    let flat = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
    assert!(refusal(model.embed(&flat)).contains("the shape (batch, tokens), got [2]"));
    let floats = Tensor::new(&[[1f32]], &Device::Cpu).unwrap();
    assert!(refusal(model.embed(&floats)).contains("must be u32 or i64, got f32"));
}

#[test]
fn refuses_boundaries_and_latents_that_do_not_fit() {
    let model = model(tiny());
    let x = model.embed(&ids(&[1, 2])).unwrap();
    let boundary = "boundary 4 does not exist: the model has boundaries 0..=3";
    assert!(refusal(model.hidden(&ids(&[1]), 4)).contains(boundary));
    assert!(refusal(model.run(&x, 0, 4)).contains(boundary));
    assert!(refusal(model.run(&x, 2, 1)).contains("backwards from boundary 2 to boundary 1"));
    let narrow = x.narrow(2, 0, 15).unwrap();
    assert!(refusal(model.run(&narrow, 0, 1)).contains("(batch, tokens, 16), got [1, 2, 15]"));
    assert!(refusal(model.head(&x.get(0).unwrap())).contains("got [2, 16]"));
    assert!(refusal(model.run(&x.to_dtype(DType::BF16).unwrap(), 0, 1)).contains("latents are bf16"));
    assert!(refusal(model.run(&x.narrow(1, 0, 0).unwrap(), 0, 1)).contains("there are no latents"));
    let long = x.repeat((1, 5, 1)).unwrap();
    assert!(refusal(model.run(&long, 0, 1)).contains("10 tokens are more than the model's context of 8"));
}

#[test]
fn a_cache_guards_its_length_and_model() {
    let model = model(tiny());
    let mut cache = Cache::new(3);
    assert!(cache.is_empty());
    let x = model.embed_cached(&ids(&[1; 7]), &cache).unwrap();
    model.run_cached(&x, 0, 3, &mut cache).unwrap();
    assert_eq!(cache.len(), 7);
    assert!(refusal(model.embed_cached(&ids(&[1, 2]), &cache)).contains("9 tokens are more"));
    let two = x.narrow(1, 0, 2).unwrap();
    assert!(refusal(model.run_cached(&two, 0, 3, &mut cache)).contains("9 tokens are more"));
    assert!(
        refusal(model.run_cached(&x, 0, 3, &mut Cache::new(2)))
            .contains("the cache has 2 layers, the model 3")
    );
}

#[test]
fn saving_writes_a_folder_that_loads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/model");
    let teacher = Pythia::load(TEACHER, DType::BF16, &Device::Cpu).unwrap();
    let saved = teacher.with_layers(teacher.layers()[..3].to_vec());
    saved.save(&path).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
    let permissions = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions();
    std::fs::write(path.join("plain"), "").unwrap();
    assert_eq!(
        permissions("model.safetensors"),
        permissions("plain"),
        "weights are as readable as any new file"
    );
    let info = Info::read(path.to_str().unwrap()).unwrap();
    assert_eq!((info.config.num_hidden_layers, info.dtypes), (3, vec!["BF16".to_string()]));
    assert_eq!(info.config.dtype.as_deref(), Some("bfloat16"));
    let again = Pythia::load(path.to_str().unwrap(), DType::F32, &Device::Cpu).unwrap();
    for ((name, before), (_, after)) in saved.tensors().into_iter().zip(again.tensors()) {
        assert_eq!(values(&before.to_dtype(DType::F32).unwrap()), values(after), "{name}");
    }
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let message = refusal(model(tiny()).save(file.join("model")));
    assert!(message.contains("cannot make the folder") && message.contains("file/model"), "{message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a folder");
}
