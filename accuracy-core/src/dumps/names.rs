//! Names of modules.

/// Components of a path after which a number is that of a layer.
const STACKS: [&str; 6] = ["layers", "layer", "h", "blocks", "block", "decoder_layers"];

/// The layer that a module's path names: the first number after `layers` or what other models call it.
pub(super) fn layer(module: &str) -> Option<usize> {
    let mut parts = module.split('.').peekable();
    while let Some(part) = parts.next() {
        if STACKS.contains(&part)
            && let Some(number) = parts.peek().and_then(|p| p.parse().ok())
        {
            return Some(number);
        }
    }
    None
}

/// The last component of a path.
pub(super) fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// `text` without `prefix`, as a whole number.
pub(super) fn number<T: std::str::FromStr>(text: &str, prefix: &str) -> Option<T> {
    let digits = text.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_the_number_after_the_stack_and_not_an_expert() {
        for (module, expected) in [
            ("model.layers.3.mlp.experts.17.down_proj", Some(3)),
            ("transformer.h.11", Some(11)),
            ("encoder.layer.0.attention", Some(0)),
            ("model.layers", None),
            ("model.layers.x.1", None),
            ("lm_head", None),
            ("experts.4", None),
            ("layers.99999999999999999999", None),
        ] {
            assert_eq!(layer(module), expected, "{module}");
        }
    }

    #[test]
    fn a_number_is_digits_alone() {
        assert_eq!(number::<u32>("rank12", "rank"), Some(12));
        for bad in ["rank", "rank+1", "rank-1", "rank1x", "xrank1", "rank99999999999"] {
            assert_eq!(number::<u32>(bad, "rank"), None, "{bad}");
        }
    }
}
