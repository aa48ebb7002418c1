//! Generation of text, for teachers and students alike.

use candle_core::{DType, Device};
use mlua::{Lua, Value};

use super::catalogue::Param;
use super::options::Options;
use super::state::State;
use super::{interrupt, literal};
use crate::pythia::{Decoder, Pythia, Sampling, generate, tokenizer};

/// How the next token is chosen.
pub const SAMPLING: [Param; 6] = [
    ("max_tokens?", "integer", "tokens to produce, 128 when left out"),
    ("temperature?", "number", "divides the logits; 0 or left out takes the most likely token"),
    ("top_k?", "integer", "draw only from the k most likely tokens"),
    ("top_p?", "number", "draw only from the most likely tokens whose probabilities reach p"),
    ("seed?", "integer", "seed of the draws, the host's when left out"),
    ("stop_at?", "integer", "token id that ends the text; it is the last one returned"),
];

/// Continues a prompt, a text or token ids. Returns the continuation as text (nothing when the model has no
/// tokenizer) and as ids.
///
/// # Errors
/// Those of [`crate::pythia::generate`], and a text for a model without tokenizer.
pub fn continued<D: Decoder>(
    lua: &Lua,
    decoder: &D,
    model: &Pythia,
    prompt: &Value,
    options: &Options,
) -> anyhow::Result<(Option<String>, Vec<u32>)> {
    let prompt = match prompt {
        Value::String(text) => tokenizer::encode(model.tokenizer()?, &text.to_string_lossy())?,
        ids => literal::to_tensor(ids, DType::U32, &Device::Cpu)?.flatten_all()?.to_vec1::<u32>()?,
    };
    let ids = generate(decoder, &prompt, &sampling(lua, options)?, |_| interrupt::check())?;
    let text = model.tokenizer.as_ref().map(|known| tokenizer::decode(known, &ids)).transpose()?;
    Ok((text, ids))
}

fn sampling(lua: &Lua, options: &Options) -> anyhow::Result<Sampling> {
    let default = Sampling::default();
    Ok(Sampling {
        max_tokens: options.count("max_tokens", default.max_tokens, 1)?,
        temperature: options.get("temperature")?,
        top_k: options.get("top_k")?,
        top_p: options.get("top_p")?,
        seed: options.or("seed", State::of(lua)?.seed)?,
        stop_at: options.get("stop_at")?,
    })
}
