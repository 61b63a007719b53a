//! Which modules a configuration speaks of: by name, wildcard, regular expression or class.

use regex_lite::Regex;

/// An entry of `targets`, `ignore`, `exclude` and the like.
#[derive(Clone, Debug)]
pub(super) struct ModulePattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The module, and all inside it.
    Name,
    Regex(Regex),
    /// Layers of a class, such as `Linear`: which these are only the model's code says. So it is with a regular
    /// expression that uses more of Python's syntax than is read here.
    Class,
}

impl ModulePattern {
    /// `re:` precedes a regular expression that matches from the name's beginning on, as in compressed-tensors and
    /// Quark; `*` stands for any characters, as in ModelOpt, Quark and gpt-oss.
    pub fn parse(text: &str) -> ModulePattern {
        let regex = if let Some(regex) = text.strip_prefix("re:") {
            Some(format!("^(?:{regex})"))
        } else if text.contains('*') {
            let parts: Vec<String> = text.split('*').map(regex_lite::escape).collect();
            Some(format!(r"^{}(?:\..*)?$", parts.join(".*")))
        } else {
            None
        };
        let kind = match regex.map(|regex| Regex::new(&regex)) {
            Some(Ok(regex)) => Kind::Regex(regex),
            Some(Err(_)) => Kind::Class,
            None if !text.contains('.') && text.starts_with(|c: char| c.is_ascii_uppercase()) => Kind::Class,
            None => Kind::Name,
        };
        ModulePattern { text: text.to_owned(), kind }
    }

    /// Whether it names this module; a class names none.
    pub fn names(&self, module: &str) -> bool {
        match &self.kind {
            Kind::Name => {
                module.strip_prefix(self.text.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'))
            }
            Kind::Regex(regex) => regex.is_match(module),
            Kind::Class => false,
        }
    }

    pub fn is_class(&self) -> bool {
        matches!(self.kind, Kind::Class)
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for ModulePattern {
    fn eq(&self, other: &ModulePattern) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_wildcards_and_regular_expressions() {
        let names = |pattern: &str, module: &str| ModulePattern::parse(pattern).names(module);
        assert!(names("model.layers.0", "model.layers.0.mlp.gate"));
        assert!(!names("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_proj"));
        assert!(names("*.mlp.gate", "model.layers.0.mlp.gate") && !names("*.mlp.gate", "m.mlp.gate_proj"));
        assert!(names("model.layers.0*", "model.layers.0.mlp.up_proj"));
        assert!(names("model.layers.*.self_attn", "model.layers.7.self_attn.q_proj"));
        assert!(names("re:.*lm_head", "lm_head") && names("re:.*lm_head", "language_model.lm_head"));
        // Python's `re.match` is bound to the beginning only.
        assert!(names("re:model", "model.norm") && !names("re:norm", "model.norm"));
        assert!(names(r"re:.*self_attn\.(q|k)_proj$", "l.0.self_attn.k_proj"));
        for class in ["Linear", "re:(?<!x)y", "re:("] {
            let pattern = ModulePattern::parse(class);
            assert!(pattern.is_class() && !pattern.names("Linear"), "{class}");
        }
    }
}
