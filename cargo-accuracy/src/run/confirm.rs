//! Findings of the lint that the run's parameter checks have shown to be true.

use crate::lint::{Finding, Severity};
use accuracy_core::record::{Hop, Ignored, Record};

/// Marks the findings on a launcher that was seen to ignore the parameter, and on the kernels that it launched. What
/// has been seen is an error, whatever the source alone says of it.
pub fn confirm(findings: &mut [Finding], records: &[Record]) {
    let ignored: Vec<(&Record, &Ignored)> = records
        .iter()
        .flat_map(|record| record.causes.iter().map(move |cause| (record, cause)))
        .filter_map(|(record, cause)| Some((record, cause.ignored.as_ref()?)))
        .collect();
    for finding in findings {
        let function = last(&finding.function);
        let parameter = &finding.parameter;
        let by = |seen: &Ignored, launcher: &str| seen.launcher == launcher && seen.parameter == *parameter;
        let launched = |hop: &Hop| hop.launched.iter().flatten().any(|kernel| last(kernel) == function);
        finding.confirmed = ignored.iter().any(|(record, seen)| {
            let mut launchers =
                record.hops.iter().filter(|hop| launched(hop)).filter_map(|h| h.kernel.as_deref());
            by(seen, function) || launchers.any(|launcher| by(seen, launcher))
        });
        if finding.confirmed {
            finding.severity = Severity::Error;
        }
    }
}

/// The name itself: `quant` of `void ops::quant<true>(float*)`.
fn last(path: &str) -> &str {
    let name = path.split(['<', '(']).next().unwrap_or(path);
    name.rsplit(['.', ':', ' ']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::LintConfig;
    use crate::report::text::fixture;
    use accuracy_core::record::Cause;

    const SOURCE: &str = "\
        __global__ void fallback_kernel(float* q, const float* x, int m, bool flag) { q[m] = x[m]; }\n\
        extern \"C\" int fallback(float* q, const float* x, int m, bool flag) { return launch(q, x, m); }\n\
        extern \"C\" int other(float* q, const float* x, int m, bool flag) { return launch(x, q, m); }\n";

    #[test]
    fn what_a_parameter_check_has_shown_is_an_error_of_the_launcher_and_of_its_kernel() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("quant.hip"), SOURCE).unwrap();
        let lint =
            || crate::lint::run(&[folder.path().into()], &LintConfig::default(), None).unwrap().findings;
        let mut findings = lint();
        assert!(findings.iter().all(|f| f.severity == Severity::Note), "{findings:#?}");

        let mut record = fixture::record("k::t[check=parameter,arch=host]", 1.0);
        record.causes = vec![Cause {
            cause: "parameter_ignored".into(),
            detail: "whatever is said of it".into(),
            ignored: Some(Ignored { launcher: "fallback".into(), parameter: "flag".into() }),
            ..Cause::default()
        }];
        record.hops = vec![Hop {
            kernel: Some("fallback".into()),
            launched: Some(vec!["void fallback_kernel<true>".into()]),
            ..Hop::default()
        }];
        confirm(&mut findings, &[record.clone()]);
        let of = |name: &str| findings.iter().find(|f| f.function == name && f.parameter == "flag").unwrap();
        for function in ["fallback", "fallback_kernel"] {
            assert!(of(function).confirmed && of(function).severity == Severity::Error, "{function}");
        }
        assert!(!of("other").confirmed && of("other").severity == Severity::Note);

        // A record that says so in words alone, as older ones do, proves nothing.
        let mut older = record.clone();
        older.causes[0].ignored = None;
        older.causes[0].detail = "`fallback` ignores `flag`: no byte of `xq` differs".into();
        let mut findings = lint();
        confirm(&mut findings, &[older]);
        assert!(findings.iter().all(|f| !f.confirmed), "{findings:#?}");

        // Another launcher's word is no proof.
        record.hops[0].kernel = Some("elsewhere".into());
        let mut findings = lint();
        confirm(&mut findings, &[record]);
        let kernel =
            findings.iter().find(|f| f.function == "fallback_kernel" && f.parameter == "flag").unwrap();
        assert!(!kernel.confirmed);
    }
}
