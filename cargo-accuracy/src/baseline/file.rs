//! The baseline file: text, sorted, one line a case, so that a pull request shows what changed in it.
//!
//! ```text
//! [gfx942: AMD Instinct MI300X]
//! kernels::fp8::gemm[check=full_chain,arch=gfx942,...] cos>0.999 y=1.668e-3<2.50e-3 chain=1.341e-2<2.01e-2
//! ```

use accuracy_core::record::{CheckName, Gate, Record, Verdict};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const HEAD: &str = "# cargo accuracy baseline, format 1";
const EXPLANATION: &str = "\
# A line is a correct case: its least cosine, and each error with the bound that it was judged by.
# Written by `cargo accuracy --save-baseline`; `because` says why a least cosine or a bound was changed.";

/// What cases ran on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub arch: String,
    /// Name of the GPU. The host's CPU is not told apart: its model does not decide what kernels compute there.
    pub device: Option<String>,
}

impl Place {
    pub fn of(record: &Record) -> Place {
        Place { arch: record.arch.clone(), device: record.device.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => f.write_str(&self.arch),
            Some(device) => write!(f, "{}: {device}", self.arch),
        }
    }
}

/// A relative L2, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Error {
    pub value: f64,
    pub bound: f64,
}

/// What a correct case was judged by, and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub min_cos: f64,
    /// By buffer, or by check where it is another than the buffer's own.
    pub errors: BTreeMap<String, Error>,
    /// Why the least cosine or a bound is not what it was before.
    pub because: Option<String>,
}

impl Line {
    /// Of a case that is correct; what fails, is skipped, or fails as its test declares has no line.
    pub fn of(record: &Record) -> Option<Line> {
        let correct =
            record.gate == Gate::Pass && record.verdict == Verdict::Correct && record.known_failure.is_none();
        // The next run may draw other cases.
        if !correct || record.fuzz.is_some() {
            return None;
        }
        let mut errors: BTreeMap<String, Error> = BTreeMap::new();
        for check in &record.checks {
            let hop = &*check.hop;
            let name = match check.name() {
                CheckName::RelL2 => hop.to_owned(),
                own @ (CheckName::Chain | CheckName::VariantsAgree) => own.into(),
                own @ (CheckName::Accumulation | CheckName::Repeat) => format!("{own}:{hop}"),
                _ => continue,
            };
            let (Some(value), Some(bound)) = (check.value, check.bound.filter(|bound| *bound > 0.0)) else {
                continue;
            };
            // Several runs of a chain are judged by the same check: the worst of them counts.
            let name = name.replace(|c: char| c.is_whitespace() || "=<>[]#".contains(c), "_");
            let error = errors.entry(name).or_insert(Error { value, bound });
            *error = Error { value: error.value.max(value), bound: error.bound.max(bound) };
        }
        Some(Line { min_cos: record.threshold, errors, because: None })
    }

    fn parse(text: &str) -> Result<Line, String> {
        let (numbers, because) = match text.split_once(" because ") {
            None => (text, None),
            Some((numbers, quoted)) => {
                let reason = serde_json::from_str(quoted)
                    .map_err(|_| format!("{quoted} after `because` is no text in quotation marks"))?;
                (numbers, Some(reason))
            }
        };
        let number = |text: &str| {
            let number = text.parse::<f64>().ok().filter(|x| x.is_finite());
            number.ok_or_else(|| format!("`{text}` is no number"))
        };
        let mut words = numbers.split_whitespace();
        let first = words.next().and_then(|word| word.strip_prefix("cos>"));
        let min_cos = number(first.ok_or("`cos>` and the least cosine come after the identity")?)?;
        let mut errors = BTreeMap::new();
        for word in words {
            let parts = word.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once('<')?)));
            let (name, (value, bound)) = parts.ok_or_else(|| format!("`{word}` is not name=error<bound"))?;
            errors.insert(name.to_owned(), Error { value: number(value)?, bound: number(bound)? });
        }
        Ok(Line { min_cos, errors, because })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cos>{}", self.min_cos)?;
        for (name, error) in &self.errors {
            write!(f, " {name}={}<{:.2e}", number(error.value), error.bound)?;
        }
        match &self.because {
            None => Ok(()),
            Some(reason) => write!(f, " because {}", serde_json::Value::from(reason.as_str())),
        }
    }
}

/// All lines, by place and identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline(pub BTreeMap<Place, BTreeMap<String, Line>>);

impl Baseline {
    /// `None` where there is no such file.
    ///
    /// # Errors
    /// If it cannot be read or is no baseline, with the line that is wrong.
    pub fn load(path: &Path) -> anyhow::Result<Option<Baseline>> {
        let text = match accuracy_core::files::read_text(path, accuracy_core::files::LIST) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read the baseline {}", path.display())),
        };
        let parsed = Baseline::parse(&text);
        parsed.map(Some).map_err(|e| {
            anyhow::anyhow!(
                "{} is no baseline of cargo accuracy: {e}; mend it, or remove it and write it anew with \
                 --save-baseline",
                path.display()
            )
        })
    }

    fn parse(text: &str) -> Result<Baseline, String> {
        let mut lines = text.lines().enumerate();
        match lines.next() {
            Some((_, HEAD)) => {}
            Some((_, other)) => return Err(format!("it begins with `{other}` in place of `{HEAD}`")),
            None => return Err("it is empty".into()),
        }
        let mut baseline = Baseline::default();
        let mut place = None;
        for (index, line) in lines {
            let at = |what: String| format!("line {}: {what}", index + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(heading) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                let (arch, device) = match heading.split_once(": ") {
                    Some((arch, device)) => (arch, Some(device.to_owned())),
                    None => (heading, None),
                };
                place = Some(Place { arch: arch.to_owned(), device });
                baseline.0.entry(place.clone().expect("set above")).or_default();
                continue;
            }
            let Some(place) = &place else {
                return Err(at("a case stands before any [architecture]".into()));
            };
            let parts = line.find("] ").map(|end| (&line[..=end], &line[end + 2..]));
            let (id, rest) = parts.ok_or_else(|| at("expected an identity and its numbers".into()))?;
            let parsed = Line::parse(rest).map_err(at)?;
            let section = baseline.0.entry(place.clone()).or_default();
            if section.insert(id.to_owned(), parsed).is_some() {
                return Err(at(format!("{id} stands there twice")));
            }
        }
        Ok(baseline)
    }

    /// Replaces the file at once, so that a full disk leaves the old one.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot write the baseline {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(context)?;
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        std::fs::write(&temporary, self.to_string())
            .and_then(|()| std::fs::rename(&temporary, path))
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
            .with_context(context)
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\n{EXPLANATION}")?;
        for (place, lines) in self.0.iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(f, "\n[{place}]")?;
            for (id, line) in lines {
                writeln!(f, "{id} {line}")?;
            }
        }
        Ok(())
    }
}

/// An error as the file has it: `1.668e-3`.
pub fn number(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.3e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# cargo accuracy baseline, format 1
# A line is a correct case: its least cosine, and each error with the bound that it was judged by.
# Written by `cargo accuracy --save-baseline`; `because` says why a least cosine or a bound was changed.

[gfx942: AMD Instinct MI300X]
k::t[arch=gfx942,tokens=1] cos>0.999 chain=1.341e-2<2.01e-2 y=1.668e-3<2.50e-3

[host]
k::t[arch=host,tokens=1] cos>0.99 y=0<2.50e-3 because \"two \\\"roundings\\\" more\"
k::t[arch=host,tokens=3] cos>0.999 y=1.668e-3<2.50e-3
";

    #[test]
    fn what_is_written_is_read_back_and_written_alike() {
        let baseline = Baseline::parse(TEXT).unwrap();
        assert_eq!(baseline.to_string(), TEXT);
        let host = &baseline.0[&Place { arch: "host".into(), device: None }];
        assert_eq!(host["k::t[arch=host,tokens=1]"].because.as_deref(), Some("two \"roundings\" more"));
    }

    #[test]
    fn what_was_emulated_has_a_section_of_its_own() {
        use crate::report::text::fixture::emulated;
        let case = emulated("k::t[arch=gfx950,tokens=1]");
        let mut on_device = case.clone();
        (on_device.emulated, on_device.device) = (None, Some("AMD Instinct MI355X".into()));
        let mut baseline = Baseline::default();
        for record in [&case, &on_device] {
            let lines = baseline.0.entry(Place::of(record)).or_default();
            lines.insert(record.id.clone(), Line::of(record).unwrap());
        }
        let text = baseline.to_string();
        for section in ["[gfx950: emulated gfx950]", "[gfx950: AMD Instinct MI355X]"] {
            assert!(text.contains(section), "{text}");
        }
        assert_eq!(Baseline::parse(&text).unwrap(), baseline);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (from, to, what) in [
            ("format 1", "format 2", "in place of"),
            ("[host]\n", "[host]\nk::t[a]\n", "line 9: expected an identity"),
            ("cos>0.99 ", "0.99 ", "line 9: `cos>`"),
            ("y=0<2.50e-3", "y=NaN<2.50e-3", "line 9: `NaN` is no number"),
            ("y=0<2.50e-3", "y=0", "line 9: `y=0` is not name=error<bound"),
            ("\"two ", "two ", "no text in quotation marks"),
            ("tokens=3]", "tokens=1]", "line 10: k::t[arch=host,tokens=1] stands there twice"),
            ("[gfx942: AMD Instinct MI300X]\n", "", "line 5: a case stands before"),
        ] {
            let error = Baseline::parse(&TEXT.replace(from, to)).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        assert!(Baseline::parse("").is_err());
    }
}
