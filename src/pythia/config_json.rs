//! Hugging Face's `config.json`: both spellings in, one that every version reads out.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::config::Config;
use crate::ops::Activation;

impl Config {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// Names the file and the key: unreadable file, broken JSON, a value of the wrong kind, an impossible
    /// number, an unknown activation, a rotary embedding other than the default one.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let json: Map<String, Value> = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a JSON object", path.display()))?;
        Self::try_from(json).with_context(|| format!("{} describes no usable model", path.display()))
    }
}

impl TryFrom<Map<String, Value>> for Config {
    type Error = anyhow::Error;

    fn try_from(json: Map<String, Value>) -> Result<Self> {
        let model_type: Option<String> = get(&json, "model_type", "a string")?;
        if let Some(kind) = model_type.filter(|kind| kind != "gpt_neox") {
            bail!("`model_type` is {kind:?}, but only \"gpt_neox\" (Pythia) is supported");
        }
        let default = Self::default();
        let size = |key, default| Ok::<usize, anyhow::Error>(get(&json, key, WHOLE)?.unwrap_or(default));
        let number = |key, default| Ok::<f64, anyhow::Error>(get(&json, key, NUMBER)?.unwrap_or(default));
        let flag = |key, default| Ok::<bool, anyhow::Error>(get(&json, key, FLAG)?.unwrap_or(default));
        let (rope_theta, rotary_fraction) = rope(&json)?;
        let dtype: Option<String> = get(&json, "dtype", "a string")?;
        let config = Self {
            hidden_size: size("hidden_size", default.hidden_size)?,
            intermediate_size: size("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", default.num_attention_heads)?,
            vocab_size: size("vocab_size", default.vocab_size)?,
            max_position_embeddings: size("max_position_embeddings", default.max_position_embeddings)?,
            layer_norm_eps: number("layer_norm_eps", default.layer_norm_eps)?,
            rotary_fraction: rotary_fraction.unwrap_or(default.rotary_fraction),
            rope_theta: rope_theta.unwrap_or(default.rope_theta),
            use_parallel_residual: flag("use_parallel_residual", default.use_parallel_residual)?,
            tie_word_embeddings: flag("tie_word_embeddings", default.tie_word_embeddings)?,
            attention_bias: flag("attention_bias", default.attention_bias)?,
            hidden_act: activation(&json)?.unwrap_or(default.hidden_act),
            initializer_range: number("initializer_range", default.initializer_range)?,
            bos_token_id: token(&json, "bos_token_id", default.bos_token_id)?,
            eos_token_id: token(&json, "eos_token_id", default.eos_token_id)?,
            dtype: dtype.or(get(&json, "torch_dtype", "a string")?),
        };
        config.validate()?;
        Ok(config)
    }
}

const WHOLE: &str = "a whole number";
const NUMBER: &str = "a number";
const FLAG: &str = "true or false";

/// The value of a key; absent and null are the same.
fn get<T: DeserializeOwned>(json: &Map<String, Value>, key: &str, wanted: &str) -> Result<Option<T>> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            T::deserialize(value).map(Some).map_err(|_| anyhow!("`{key}` is {value}, but must be {wanted}"))
        }
    }
}

/// A token id; null states that there is none, and of a list the first one counts.
fn token(json: &Map<String, Value>, key: &str, default: Option<u32>) -> Result<Option<u32>> {
    match json.get(key) {
        None => Ok(default),
        Some(Value::Array(ids)) if !ids.is_empty() => {
            let first = Map::from_iter([(key.to_string(), ids[0].clone())]);
            get(&first, key, "a token id")
        }
        Some(_) => get(json, key, "a token id"),
    }
}

/// Base and fraction of the rotary embedding, from wherever this version of the file keeps them.
fn rope(json: &Map<String, Value>) -> Result<(Option<f64>, Option<f64>)> {
    let nested: Map<String, Value> = get(json, "rope_parameters", "an object")?.unwrap_or_default();
    let scaling: Map<String, Value> = get(json, "rope_scaling", "an object")?.unwrap_or_default();
    for (object, part) in [("rope_parameters", &nested), ("rope_scaling", &scaling)] {
        for key in ["rope_type", "type"] {
            let kind: String = get(part, key, "a string")?.unwrap_or_else(|| "default".to_string());
            ensure!(kind == "default", "`{object}.{key}` is {kind:?}, but only \"default\" is supported");
        }
    }
    let first = |places: [(&Map<String, Value>, &str); 3]| {
        for (map, key) in places {
            if let Some(value) = get::<f64>(map, key, NUMBER)? {
                return Ok(Some(value));
            }
        }
        Ok::<_, anyhow::Error>(None)
    };
    let theta = first([(&nested, "rope_theta"), (json, "rotary_emb_base"), (json, "rope_theta")])?;
    let fraction =
        first([(&nested, "partial_rotary_factor"), (json, "rotary_pct"), (json, "partial_rotary_factor")])?;
    Ok((theta, fraction))
}

fn activation(json: &Map<String, Value>) -> Result<Option<Activation>> {
    get(json, "hidden_act", "one of \"gelu\", \"gelu_new\", \"gelu_fast\", \"relu\", \"silu\"")
}

impl From<Config> for Map<String, Value> {
    /// The rotary numbers appear in both spellings: `transformers` before version 5 reads only the old one.
    fn from(config: Config) -> Self {
        let fields = json!({
            "architectures": ["GPTNeoXForCausalLM"],
            "attention_bias": config.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": config.bos_token_id,
            "classifier_dropout": 0.1,
            "dtype": config.dtype,
            "eos_token_id": config.eos_token_id,
            "hidden_act": config.hidden_act,
            "hidden_dropout": 0.0,
            "hidden_size": config.hidden_size,
            "initializer_range": config.initializer_range,
            "intermediate_size": config.intermediate_size,
            "layer_norm_eps": config.layer_norm_eps,
            "max_position_embeddings": config.max_position_embeddings,
            "model_type": "gpt_neox",
            "num_attention_heads": config.num_attention_heads,
            "num_hidden_layers": config.num_hidden_layers,
            "rope_parameters": {
                "partial_rotary_factor": config.rotary_fraction,
                "rope_theta": config.rope_theta,
                "rope_type": "default",
            },
            "rotary_emb_base": config.rope_theta,
            "rotary_pct": config.rotary_fraction,
            "tie_word_embeddings": config.tie_word_embeddings,
            "torch_dtype": config.dtype,
            "use_cache": true,
            "use_parallel_residual": config.use_parallel_residual,
            "vocab_size": config.vocab_size,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: Value) -> Result<Config> {
        Ok(serde_json::from_value(json)?)
    }

    fn refusal(json: Value) -> String {
        parse(json).expect_err("a refusal").to_string()
    }

    #[test]
    fn reads_the_old_spelling_and_fills_the_gaps() {
        let config = parse(json!({
            "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 192,
            "vocab_size": 97, "rotary_pct": 0.5, "rotary_emb_base": 5000, "torch_dtype": "float16",
            "some_future_key": {"nested": true}, "eos_token_id": 0,
        }))
        .unwrap();
        assert_eq!((config.rotary_fraction, config.rope_theta), (0.5, 5000.0));
        assert_eq!(config.dtype.as_deref(), Some("float16"));
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(0), Some(0)));
        assert!(config.use_parallel_residual && config.attention_bias && !config.tie_word_embeddings);
        assert_eq!((config.hidden_act, config.layer_norm_eps), (Activation::Gelu, 1e-5));
        assert_eq!(config.max_position_embeddings, 2048);
    }

    #[test]
    fn reads_the_new_spelling() {
        let config = parse(json!({
            "hidden_size": 48, "num_attention_heads": 4, "dtype": "bfloat16", "hidden_act": "gelu_fast",
            "rope_parameters": {"rope_theta": 2e4, "partial_rotary_factor": 1.0, "rope_type": "default"},
            "rope_scaling": null, "bos_token_id": null, "eos_token_id": [7, 8],
            "use_parallel_residual": false, "attention_bias": false, "tie_word_embeddings": true,
        }))
        .unwrap();
        assert_eq!((config.rotary_fraction, config.rope_theta), (1.0, 2e4));
        assert_eq!((config.bos_token_id, config.eos_token_id), (None, Some(7)));
        assert_eq!((config.dtype.as_deref(), config.hidden_act), (Some("bfloat16"), Activation::GeluFast));
        assert!(!config.use_parallel_residual && !config.attention_bias && config.tie_word_embeddings);
    }

    #[test]
    fn a_partial_rope_object_falls_back_to_the_outer_keys() {
        let config = parse(json!({"rope_parameters": {"rope_theta": 500}, "rotary_pct": 1.0})).unwrap();
        assert_eq!((config.rotary_fraction, config.rope_theta), (1.0, 500.0));
    }

    #[test]
    fn writes_what_it_reads() {
        let config = Config {
            rotary_fraction: 1.0,
            rope_theta: 123.0,
            hidden_act: Activation::GeluNew,
            eos_token_id: None,
            dtype: Some("bfloat16".into()),
            ..Config::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn refusals_name_the_key_the_value_and_the_remedy() {
        let cases = [
            (json!({"hidden_size": -3}), "`hidden_size` is -3, but must be a whole number"),
            (json!({"vocab_size": "many"}), "`vocab_size` is \"many\", but must be a whole number"),
            (json!({"layer_norm_eps": true}), "`layer_norm_eps` is true, but must be a number"),
            (json!({"attention_bias": 1}), "`attention_bias` is 1, but must be true or false"),
            (json!({"num_attention_heads": 7}), "`num_attention_heads` is 7, which does not divide"),
            (json!({"model_type": "llama"}), "`model_type` is \"llama\", but only \"gpt_neox\""),
            (
                json!({"hidden_act": "swish2"}),
                "`hidden_act` is \"swish2\", but must be one of \"gelu\", \"gelu_new\", \"gelu_fast\", \"relu\", \"silu\"",
            ),
            (
                json!({"rope_parameters": {"rope_type": "yarn"}}),
                "`rope_parameters.rope_type` is \"yarn\", but only \"default\"",
            ),
            (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "`rope_scaling.type` is \"linear\""),
            (json!({"eos_token_id": -1}), "`eos_token_id` is -1, but must be a token id"),
        ];
        for (json, expected) in cases {
            let message = refusal(json);
            assert!(message.contains(expected), "{message:?} should contain {expected:?}");
        }
    }

    #[test]
    fn file_errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let message = |error: anyhow::Error| format!("{error:#}");
        assert!(message(Config::read(&path).unwrap_err()).contains("cannot read"));
        std::fs::write(&path, "{\"hidden_size\": ").unwrap();
        assert!(message(Config::read(&path).unwrap_err()).contains("config.json is not a JSON object"));
        std::fs::write(&path, "{\"hidden_size\": 0}").unwrap();
        let refusal = message(Config::read(&path).unwrap_err());
        assert!(refusal.contains("config.json") && refusal.contains("`hidden_size` is 0"), "{refusal}");
    }
}
