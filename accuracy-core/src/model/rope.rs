//! Frequencies of rotary embeddings: plain, llama3 and YaRN.

use super::object::{ModelError, Object};
use crate::reference::model::RopeStyle;
use std::f64::consts::PI;

/// The rotary embedding of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Elements of a head that are rotated.
    pub dims: usize,
    pub style: RopeStyle,
    pub theta: f64,
    /// Angle of each pair for one position, `dims / 2` of them.
    pub inv_freq: Vec<f64>,
    /// What cosines and sines are multiplied with (YaRN).
    pub factor: f64,
}

/// `theta^(-2i/dims)`.
pub fn plain(dims: usize, theta: f64) -> Vec<f64> {
    (0..dims / 2).map(|i| theta.powf(-2.0 * i as f64 / dims as f64)).collect()
}

/// `0.1 m ln(factor) + 1`, of YaRN; 1 where nothing is extended.
pub fn yarn_mscale(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.
    ///
    /// # Errors
    /// A kind of scaling that is not known, or one whose numbers are missing.
    pub fn read(config: &Object, dims: usize, style: RopeStyle) -> Result<Rope, ModelError> {
        let scaling = config.optional_object(&["rope_parameters", "rope_scaling"])?;
        Rope::of(config, scaling.as_ref(), dims, style)
    }

    /// Without any scaling.
    pub fn unscaled(dims: usize, style: RopeStyle, theta: f64) -> Rope {
        Rope { dims, style, theta, inv_freq: plain(dims, theta), factor: 1.0 }
    }

    /// One of several embeddings that a configuration describes, by its own object.
    ///
    /// # Errors
    /// A kind of scaling that is not known, or one whose numbers are missing.
    pub fn of(
        config: &Object,
        scaling: Option<&Object>,
        dims: usize,
        style: RopeStyle,
    ) -> Result<Rope, ModelError> {
        let theta = scaling.and_then(|s| s.number("rope_theta")).or(config.number("rope_theta"));
        let mut rope = Rope::unscaled(dims, style, theta.unwrap_or(10_000.0));
        let Some(scaling) = scaling else { return Ok(rope) };
        let need = |key: &str| scaling.number(key).ok_or_else(|| scaling.missing(key));
        match scaling.text("rope_type").or(scaling.text("type")).unwrap_or("default") {
            "default" => {}
            "linear" => {
                let factor = need("factor")?;
                rope.inv_freq.iter_mut().for_each(|f| *f /= factor);
            }
            "llama3" => {
                let (factor, low, high) =
                    (need("factor")?, need("low_freq_factor")?, need("high_freq_factor")?);
                let original = need("original_max_position_embeddings")?;
                for f in &mut rope.inv_freq {
                    let wavelength = 2.0 * PI / *f;
                    let smooth = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
            "yarn" => rope.yarn(config, scaling)?,
            other => {
                return Err(config.bad(format!("rope_type `{other}`; known: default, linear, llama3, yarn")));
            }
        }
        Ok(rope)
    }

    /// Interpolates low frequencies and keeps high ones (Peng et al. 2023, as transformers computes it).
    fn yarn(&mut self, config: &Object, scaling: &Object) -> Result<(), ModelError> {
        let original = scaling
            .number("original_max_position_embeddings")
            .ok_or_else(|| scaling.missing("original_max_position_embeddings"))?;
        let factor = match scaling.number("factor") {
            Some(factor) => factor,
            None => {
                let longest = config.number("max_position_embeddings");
                longest.ok_or_else(|| scaling.missing("factor"))? / original
            }
        };
        let d = self.dims as f64;
        let correction =
            |rotations: f64| d * (original / (2.0 * PI * rotations)).ln() / (2.0 * self.theta.ln());
        let mut low = correction(scaling.number("beta_fast").unwrap_or(32.0));
        let mut high = correction(scaling.number("beta_slow").unwrap_or(1.0));
        if scaling.flag("truncate").unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(d - 1.0));
        if low == high {
            high += 0.001;
        }
        for (i, f) in self.inv_freq.iter_mut().enumerate() {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            *f = *f / factor * ramp + *f * (1.0 - ramp);
        }
        let (mscale, all) = (scaling.number("mscale"), scaling.number("mscale_all_dim"));
        self.factor = match (scaling.number("attention_factor"), mscale, all) {
            (Some(factor), ..) => factor,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                yarn_mscale(factor, m) / yarn_mscale(factor, all)
            }
            _ => yarn_mscale(factor, 1.0),
        };
        Ok(())
    }

    /// Cosines and sines at a position, `dims / 2` each.
    pub fn angles(&self, position: f64) -> (Vec<f64>, Vec<f64>) {
        let turn =
            |f: &dyn Fn(f64) -> f64| self.inv_freq.iter().map(|w| self.factor * f(position * w)).collect();
        (turn(&f64::cos), turn(&f64::sin))
    }
}
