//! The shapes of the Pythia family, and of models like them.

use anyhow::{Result, anyhow, bail, ensure};

use super::Config;
use crate::nearest::nearest;

/// Size, width, layers and heads (Biderman et al., arXiv 2304.01373, and the configurations of the published
/// checkpoints).
const FAMILY: [(&str, usize, usize, usize); 10] = [
    ("14m", 128, 6, 4),
    ("31m", 256, 6, 8),
    ("70m", 512, 6, 8),
    ("160m", 768, 12, 12),
    ("410m", 1024, 24, 16),
    ("1b", 2048, 16, 8),
    ("1.4b", 2048, 24, 16),
    ("2.8b", 2560, 32, 32),
    ("6.9b", 4096, 32, 32),
    ("12b", 5120, 36, 40),
];

/// The embedding has a multiple of so many rows.
const ROWS: usize = 128;

impl Config {
    /// A model of the family by its size (`70m`, `410m`, …), or of `LxD`: L layers of width D (`24x128`), with heads
    /// of 32 channels below width 512 and of 64 from there on.
    ///
    /// As in the published models the embedding is padded to a multiple of 128 rows, the MLP is four times as wide,
    /// a quarter of each head turns, the context is 2048 tokens and token 0 begins and ends a text.
    ///
    /// # Errors
    /// An unknown size, or a width that heads do not divide.
    pub fn of_size(size: &str, vocabulary: usize) -> Result<Self> {
        let (width, layers, heads) = shape(size)?;
        let config = Self {
            hidden_size: width,
            intermediate_size: 4 * width,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            vocab_size: vocabulary.next_multiple_of(ROWS),
            bos_token_id: Some(0),
            eos_token_id: Some(0),
            ..Self::default()
        };
        config.validate()?;
        Ok(config)
    }
}

fn shape(size: &str) -> Result<(usize, usize, usize)> {
    if let Some(&(_, width, layers, heads)) = FAMILY.iter().find(|member| member.0 == size) {
        return Ok((width, layers, heads));
    }
    let Some((layers, width)) = size.split_once('x') else {
        let names = FAMILY.map(|member| member.0);
        match nearest(size, names) {
            Some(near) => bail!("unknown size '{size}' (did you mean '{near}'?)"),
            None => bail!("unknown size '{size}': it is one of {}, or LxD such as 24x128", names.join(", ")),
        }
    };
    let number = |text: &str| {
        text.parse::<usize>().map_err(|_| anyhow!("size '{size}' is not of the form LxD, such as 24x128"))
    };
    let (layers, width) = (number(layers)?, number(width)?);
    let channels = if width < 512 { 32 } else { 64 };
    ensure!(
        width > 0 && width.is_multiple_of(channels),
        "size '{size}': heads of {channels} channels do not divide the width {width}"
    );
    Ok((width, layers, width / channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_has_the_published_parameter_counts() {
        let count = |size| Config::of_size(size, 50277).unwrap().parameters().total;
        assert_eq!(count("14m"), 14_067_712);
        assert_eq!(count("410m"), 405_334_016);
        assert_eq!(count("1b"), 1_011_781_632);
        assert_eq!(count("2.8b"), 2_775_208_960);
    }

    #[test]
    fn layers_and_width_make_the_embedded_teacher() {
        let config = Config::of_size("24x128", 4096).unwrap();
        assert_eq!(config.parameters().total, 5_807_360);
        assert_eq!((config.num_attention_heads, config.rotary_dims()), (4, 8));
    }

    #[test]
    fn unknown_sizes_are_explained() {
        let refusal = |size| Config::of_size(size, 64).unwrap_err().to_string();
        assert!(refusal("410M").contains("did you mean '410m'"), "{}", refusal("410M"));
        assert!(refusal("huge").contains("LxD"));
        assert!(refusal("2x100").contains("32 channels do not divide the width 100"));
        assert!(refusal("ax128").contains("not of the form"));
        assert!(refusal("0x128").contains("num_hidden_layers"));
    }
}
