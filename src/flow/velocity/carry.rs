//! Evaluations and walks of the field as one operation on a CUDA card.

use anyhow::Result;
use candle_core::Tensor;

use super::{Conditioned, VelocityField};
use crate::flow::field;
use crate::flow::on_card::{Base, Stage};
use crate::ode;

impl VelocityField {
    /// `factor·length⊙u(x)`, and added to x if wanted.
    pub(super) fn on_card(
        &self,
        x: &Tensor,
        conditioned: &Conditioned,
        length: Option<&Tensor>,
        (factor, on_x): (f64, bool),
    ) -> Result<Option<Tensor>> {
        let updates = self.low_rank.as_ref().zip(conditioned.scales.as_ref());
        let plain = &conditioned.modulation;
        // The operation has no gradient for the length: one that is trained goes into the gates in front of it.
        let trained =
            length.filter(|length| length.track_op()).map(|length| plain.lengthened(length)).transpose()?;
        let length = length.filter(|_| trained.is_none()).cloned();
        let stage = Stage { length, factor, base: if on_x { Base::Own } else { Base::Nothing } };
        let projection = &trained.as_ref().unwrap_or(plain).projection;
        self.card.walk((&self.layer, &self.context), updates, self.compute, x, projection, &[stage])
    }

    /// A whole walk. Left out are times that are trained, weights that depend on time, and times of which some are those of
    /// one example and others of all.
    pub(super) fn carry_on_card(&self, x0: &Tensor, stages: &[field::Stage]) -> Result<Option<Tensor>> {
        let (Some(time), None, Some(first)) = (&self.time, &self.low_rank, stages.first()) else {
            return Ok(None);
        };
        let groups = first.time.elem_count();
        let known = |t: &Tensor| t.elem_count() == groups && !t.track_op();
        if !x0.device().is_cuda() || stages.iter().any(|s| !known(&s.time) || !known(&s.length)) {
            return Ok(None);
        }
        let times: Vec<&Tensor> = stages.iter().map(|stage| &stage.time).collect();
        let projection = time.projection(&time.condition(&Tensor::cat(&times, 0)?)?)?;
        let of_card = |stage: &field::Stage| Stage {
            length: Some(stage.length.clone()),
            factor: stage.factor,
            base: match stage.base {
                field::Base::Own => Base::Own,
                field::Base::Previous => Base::Previous,
            },
        };
        let sums: Vec<Stage> = stages.iter().map(of_card).collect();
        let layer = (&self.layer, &self.context);
        let end = self.card.walk(layer, None, self.compute, x0, &projection, &sums)?;
        if end.is_some() {
            stages.iter().for_each(|_| ode::evaluation(|| ()));
        }
        Ok(end)
    }
}
