//! Token by token generation with a student.

use anyhow::Result;
use candle_core::{DType, Tensor};

use super::{Integration, Student};
use crate::pythia::cache::LayerCache;
use crate::pythia::{Cache, Decoder};

/// A student with the integration that it generates with.
pub struct StudentDecoder<'a> {
    /// The student.
    pub student: &'a Student,
    /// Solver and steps; an adaptive solver would evaluate at other times for every token, so `steps` counts.
    pub integration: Integration,
}

/// Keys and values of the teacher's layers, and of every velocity evaluation along the flow.
pub struct StudentCache {
    layers: Cache,
    evaluations: Vec<LayerCache>,
}

impl Decoder for StudentDecoder<'_> {
    type Cache = StudentCache;

    fn new_cache(&self) -> StudentCache {
        StudentCache { layers: self.student.teacher.new_cache(), evaluations: Vec::new() }
    }

    fn context_length(&self) -> usize {
        self.student.teacher.context_length()
    }

    /// Each evaluation of the field keeps keys and values of its own: the i-th sees what the i-th saw of
    /// earlier tokens, exactly as in a pass over the whole sequence.
    fn step(&self, ids: &Tensor, cache: &mut StudentCache) -> Result<Tensor> {
        let (teacher, block) = (&self.student.teacher, self.student.block);
        let x = teacher.embed_cached(ids, &cache.layers)?;
        let x0 = teacher.run_cached(&x, 0, block.m, &mut cache.layers)?;
        let (dtype, velocity) = (x0.dtype(), self.student.velocity.detach());
        let mut evaluation = 0;
        let field = |x: &Tensor, t: f64| {
            if evaluation == cache.evaluations.len() {
                cache.evaluations.push(LayerCache::default());
            }
            let memory = &mut cache.evaluations[evaluation];
            evaluation += 1;
            velocity.at_cached(x, t, memory)
        };
        let steps = Some(self.integration.steps.unwrap_or(1));
        let integration = Integration { steps, ..self.integration };
        let (x1, _) = integration.run(&self.student.velocity, field, &x0.to_dtype(DType::F32)?)?;
        let x1 = x1.to_dtype(dtype)?;
        let layers = teacher.config.num_hidden_layers;
        let x = teacher.run_cached(&x1, block.n, layers, &mut cache.layers)?;
        Ok(teacher.head(&x.narrow(1, x.dim(1)? - 1, 1)?)?.flatten_all()?)
    }
}
