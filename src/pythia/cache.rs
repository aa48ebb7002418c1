//! Keys and values of the tokens that a model has seen, so that the next token costs one position.

use candle_nn::kv_cache::KvCache;

/// Positions by which a layer's buffers grow at a time.
const CHUNK: usize = 256;

/// One layer's keys and values, each (B, H, S, C) for the S tokens seen so far; empty at first.
pub fn layer_cache() -> KvCache {
    KvCache::new(2, CHUNK)
}

/// The keys and values of every layer of a model.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(super) layers: Vec<KvCache>,
}

impl Cache {
    /// An empty cache for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self { layers: (0..layers).map(|_| layer_cache()).collect() }
    }

    /// Tokens seen so far. Layers that were never run (a student skips some) do not count.
    pub fn len(&self) -> usize {
        self.layers.iter().map(KvCache::current_seq_len).max().unwrap_or(0)
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
