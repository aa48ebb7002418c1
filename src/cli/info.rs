//! `lft info`: what a checkpoint holds.

use anyhow::Result;

use super::Global;
use crate::console;
use crate::pythia::Info;

/// Show what a Pythia checkpoint holds: layers, parameters, dtype, memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lft info data/teacher\n  lft info EleutherAI/pythia-410m")]
pub(super) struct Arguments {
    /// A Hugging Face folder, or the id of a model on the hub.
    #[arg(value_name = "PATH_OR_HUB_ID")]
    model: String,
}

pub(super) fn execute(_global: &Global, arguments: Arguments) -> Result<()> {
    console::print(&describe(&Info::read(&arguments.model)?))
}

fn describe(info: &Info) -> String {
    let config = &info.config;
    let residual = if config.use_parallel_residual { "parallel" } else { "sequential" };
    let embeddings = if config.tie_word_embeddings { "tied" } else { "untied" };
    let tokenizer = info.tokenizer_size.map_or("none".to_owned(), |size| format!("{size} tokens"));
    let rows = [
        ("folder", info.folder.display().to_string()),
        ("layers", config.num_hidden_layers.to_string()),
        ("width", config.hidden_size.to_string()),
        ("heads", config.num_attention_heads.to_string()),
        ("MLP width", config.intermediate_size.to_string()),
        ("vocabulary", format!("{}, embeddings {embeddings}", config.vocab_size)),
        ("context", format!("{} tokens", config.max_position_embeddings)),
        ("residual", residual.to_owned()),
        ("tokenizer", tokenizer),
        ("parameters", grouped(info.parameters.total)),
        ("  per layer", grouped(info.parameters.per_layer)),
        ("  without embeddings", grouped(info.parameters.non_embedding)),
        ("stored as", info.dtypes.join(", ")),
        ("weight files", format!("{}, {}", info.files.len(), mebibytes(info.file_bytes()))),
        ("memory in f32", mebibytes(info.memory_bytes(4) as u64)),
        ("memory in bf16", mebibytes(info.memory_bytes(2) as u64)),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Digits in groups of three: `5,807,360`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_threes() {
        assert_eq!(grouped(5_807_360), "5,807,360");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(0), "0");
    }

    #[test]
    fn the_embedded_teacher_is_described() {
        let text = describe(&Info::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher")).unwrap());
        for line in
            ["layers                24", "parameters            5,807,360", "stored as             BF16"]
        {
            assert!(text.contains(line), "{text}");
        }
    }
}
