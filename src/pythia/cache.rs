//! Keys and values of the tokens that a model has seen, so that the next token costs one position.

use candle_core::{DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::model::decode::Prepared;

/// Positions by which a layer's buffers grow at a time.
const CHUNK: usize = 256;

/// One layer's keys and values of the tokens seen so far, in buffers with room for more; empty at first.
#[derive(Debug, Default)]
pub struct LayerCache {
    /// Keys and values, each (B, H, capacity, C); they stay where they are until they grow.
    buffers: Option<[Tensor; 2]>,
    seen: usize,
}

impl LayerCache {
    /// Tokens seen so far.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Adds the keys and values of the next T tokens and returns those of all S tokens seen then, as views of the buffers.
    ///
    /// # Shapes
    /// `k`, `v` (B, H, T, C), contiguous; results (B, H, S, C).
    ///
    /// # Errors
    /// Another B, H, C, dtype or device than before, and too little memory; the cache then holds what it held.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, heads, tokens, channels) = k.dims4()?;
        let [keys, values] = self.reserve(tokens, (batch, heads, channels), k.dtype(), k.device())?;
        keys.slice_set(k, 2, self.seen)?;
        values.slice_set(v, 2, self.seen)?;
        self.seen += tokens;
        Ok((keys.narrow(2, 0, self.seen)?, values.narrow(2, 0, self.seen)?))
    }

    /// The buffers with room for `tokens` more. Where they have to grow, new ones take their place, with the same contents.
    ///
    /// # Shapes
    /// `shape` is (B, H, C), results (B, H, capacity, C).
    ///
    /// # Errors
    /// Too little memory, and where they grow another shape, dtype or device than before.
    pub(super) fn reserve(
        &mut self,
        tokens: usize,
        (batch, heads, channels): (usize, usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<[Tensor; 2]> {
        let needed = self.seen + tokens;
        let grown = match &self.buffers {
            Some([keys, values]) if keys.dim(2)? >= needed => return Ok([keys.clone(), values.clone()]),
            old => {
                let shape = (batch, heads, needed.next_multiple_of(CHUNK), channels);
                let new = [Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?];
                for (old, new) in old.iter().flatten().zip(&new) {
                    new.slice_set(old, 2, 0)?;
                }
                new
            }
        };
        self.buffers = Some(grown.clone());
        Ok(grown)
    }

    /// Counts one more token, whose keys and values a kernel has written into the buffers itself.
    #[cfg(feature = "cuda")]
    pub(super) fn advance(&mut self) {
        self.seen += 1;
    }

    fn copy(&self) -> Result<Self> {
        let buffers = match &self.buffers {
            Some([keys, values]) => Some([keys.copy()?, values.copy()?]),
            None => None,
        };
        Ok(Self { buffers, seen: self.seen })
    }
}

/// The keys and values of every layer of a model.
#[derive(Debug)]
pub struct Cache {
    pub(super) layers: Vec<LayerCache>,
    /// How a card computes the next token over these buffers, once it was asked for one.
    #[cfg(feature = "cuda")]
    pub(super) prepared: Option<Prepared>,
}

impl Cache {
    /// An empty cache for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self::of((0..layers).map(|_| LayerCache::default()).collect())
    }

    /// The same tokens in memory of their own, so that each goes on by itself.
    ///
    /// # Errors
    /// Too little memory.
    pub fn copy(&self) -> Result<Self> {
        Ok(Self::of(self.layers.iter().map(LayerCache::copy).collect::<Result<_>>()?))
    }

    fn of(layers: Vec<LayerCache>) -> Self {
        Self {
            layers,
            #[cfg(feature = "cuda")]
            prepared: None,
        }
    }

    /// Tokens seen so far. Layers that were never run (a student skips some) do not count.
    pub fn len(&self) -> usize {
        self.layers.iter().map(LayerCache::seen).max().unwrap_or(0)
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values (2, 3, tokens, 4) that differ from each other, from `start` on.
    fn values(tokens: usize, start: f32) -> Tensor {
        let n = 2 * 3 * tokens * 4;
        let data: Vec<f32> = (0..n).map(|i| start + i as f32).collect();
        Tensor::from_vec(data, (2, 3, tokens, 4), &Device::Cpu).unwrap()
    }

    fn assert_same(found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims());
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(found), flat(expected));
    }

    #[test]
    fn views_hold_all_that_was_appended_across_growth() {
        let mut cache = LayerCache::default();
        let (mut keys, mut all_values) = (Vec::new(), Vec::new());
        // Up to a chunk's end, over it by one, and over two chunks at once.
        for (i, tokens) in [1, 7, 248, 1, 600].into_iter().enumerate() {
            let start = 1e5 * i as f32;
            keys.push(values(tokens, start));
            all_values.push(values(tokens, -start));
            let (k, v) = cache.append(&keys[i], &all_values[i]).unwrap();
            assert_same(&k, &Tensor::cat(&keys, 2).unwrap());
            assert_same(&v, &Tensor::cat(&all_values, 2).unwrap());
            assert_eq!(cache.seen(), k.dims()[2]);
        }
    }

    #[test]
    fn buffers_stay_where_they_are_until_a_chunk_is_full() {
        let mut cache = LayerCache::default();
        let buffer = |cache: &mut LayerCache, tokens| {
            cache.append(&values(tokens, 0.0), &values(tokens, 0.0)).unwrap();
            let [keys, _] = cache.buffers.clone().unwrap();
            (keys.id(), keys.dims()[2])
        };
        let first = buffer(&mut cache, 5);
        assert_eq!(first.1, CHUNK);
        assert_eq!(buffer(&mut cache, CHUNK - 5), first);
        let second = buffer(&mut cache, 1);
        assert_ne!(second.0, first.0);
        assert_eq!(second.1, 2 * CHUNK);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut cache = LayerCache::default();
        cache.append(&values(3, 0.0), &values(3, 1.0)).unwrap();
        let half = values(1, 0.0).to_dtype(DType::F16).unwrap();
        assert!(cache.append(&half, &half).is_err());
        assert_eq!(cache.seen(), 3);
    }

    #[test]
    fn a_copy_goes_on_by_itself() {
        let mut cache = Cache::new(1);
        cache.layers[0].append(&values(2, 0.0), &values(2, 1.0)).unwrap();
        let mut copy = cache.copy().unwrap();
        copy.layers[0].append(&values(1, 50.0), &values(1, 60.0)).unwrap();
        let (keys, _) = cache.layers[0].append(&values(1, 70.0), &values(1, 80.0)).unwrap();
        assert_same(&keys, &Tensor::cat(&[values(2, 0.0), values(1, 70.0)], 2).unwrap());
        assert_eq!((cache.len(), copy.len()), (3, 3));
    }
}
