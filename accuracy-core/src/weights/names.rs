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

/// What Python's regular expressions have and these have not, and a brace that is itself in Python.
const OF_PYTHON: [&str; 4] = ["(?", "{", r"\1", r"\2"];

/// Projections that engines and models fuse, and what they call the fused one.
const FUSED: [(&str, &str); 7] = [
    ("q_proj", "qkv_proj"),
    ("k_proj", "qkv_proj"),
    ("v_proj", "qkv_proj"),
    ("gate_proj", "gate_up_proj"),
    ("up_proj", "gate_up_proj"),
    ("w1", "w13"),
    ("w3", "w13"),
];

impl ModulePattern {
    /// `re:` precedes a regular expression that matches from the name's beginning on, as in compressed-tensors and
    /// Quark; `*` stands for any characters, as in ModelOpt, Quark and gpt-oss.
    ///
    /// # Errors
    /// Why it is no regular expression, in Python's syntax either.
    pub fn parse(text: &str) -> Result<ModulePattern, String> {
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
            Some(Err(_)) if OF_PYTHON.iter().any(|syntax| text.contains(syntax)) => Kind::Class,
            Some(Err(e)) => return Err(format!("`{text}` is no regular expression: {e}")),
            None if !text.contains('.') && text.starts_with(|c: char| c.is_ascii_uppercase()) => Kind::Class,
            None => Kind::Name,
        };
        Ok(ModulePattern { text: text.to_owned(), kind })
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

    /// Whether it may mean this module: under another beginning of the name, as models have that are part of another
    /// one, or where projections or experts are fused or taken apart.
    pub fn may_mean(&self, module: &str) -> bool {
        let mut names = vec![module.to_owned()];
        if let Some((experts, rest)) = module.split_once("experts.")
            && let Some((_, projection)) = rest.split_once('.')
        {
            names.push(format!("{experts}experts.{projection}"));
        }
        for name in names.clone() {
            let Some((block, projection)) = name.rsplit_once('.') else { continue };
            for (one, fused) in FUSED {
                let other = [(one, fused), (fused, one)].into_iter().find(|(from, _)| *from == projection);
                names.extend(other.map(|(_, to)| format!("{block}.{to}")));
            }
        }
        names.iter().any(|name| {
            let inner = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
            inner.chain([name.as_str()]).any(|name| self.names(name)) || self.names_from_the_layers_on(name)
        })
    }

    /// Whether the two names are the same from `layers.` on.
    fn names_from_the_layers_on(&self, module: &str) -> bool {
        let layers = |name: &str| name.find("layers.");
        match (&self.kind, layers(&self.text), layers(module)) {
            (Kind::Name, Some(own), Some(at)) => {
                let rest = module[at..].strip_prefix(&self.text[own..]);
                rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
            }
            _ => false,
        }
    }

    /// Whether it is a name, which stands for the module and all inside it.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Name)
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
        let names = |pattern: &str, module: &str| ModulePattern::parse(pattern).unwrap().names(module);
        assert!(names("model.layers.0", "model.layers.0.mlp.gate"));
        assert!(!names("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_proj"));
        assert!(names("*.mlp.gate", "model.layers.0.mlp.gate") && !names("*.mlp.gate", "m.mlp.gate_proj"));
        assert!(names("model.layers.0*", "model.layers.0.mlp.up_proj"));
        assert!(names("model.layers.*.self_attn", "model.layers.7.self_attn.q_proj"));
        assert!(names("re:.*lm_head", "lm_head") && names("re:.*lm_head", "language_model.lm_head"));
        // Python's `re.match` is bound to the beginning only.
        assert!(names("re:model", "model.norm") && !names("re:norm", "model.norm"));
        assert!(names(r"re:.*self_attn\.(q|k)_proj$", "l.0.self_attn.k_proj"));
        for class in ["Linear", "re:(?<!x)y", r"re:(x)\1", "re:x{y}"] {
            let pattern = ModulePattern::parse(class).unwrap();
            assert!(pattern.is_class() && !pattern.names("Linear"), "{class}");
        }
        for broken in ["re:(unclosed", "re:[a-", "re:*x"] {
            assert!(ModulePattern::parse(broken).unwrap_err().contains(broken), "{broken}");
        }
    }

    #[test]
    fn names_of_fused_and_nested_modules() {
        let may_mean = |pattern: &str, module: &str| ModulePattern::parse(pattern).unwrap().may_mean(module);
        for (pattern, module) in [
            ("re:model.layers.*q_proj", "language_model.model.layers.0.self_attn.q_proj"),
            ("re:.*qkv_proj$", "model.layers.0.self_attn.k_proj"),
            ("re:.*up_proj$", "model.layers.0.mlp.gate_up_proj"),
            ("model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.7.up_proj"),
            ("model.layers.0.mlp", "model.language_model.layers.0.mlp.up_proj"),
        ] {
            assert!(may_mean(pattern, module), "{pattern} {module}");
        }
        for (pattern, module) in [
            ("re:.*gate_proj$", "model.layers.0.mlp.down_proj"),
            ("model.layers.0.mlp", "model.language_model.layers.1.mlp.up_proj"),
            ("Linear", "Linear"),
        ] {
            assert!(!may_mean(pattern, module), "{pattern} {module}");
        }
    }
}
