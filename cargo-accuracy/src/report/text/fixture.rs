//! Records by hand, for the tests of this folder.

use accuracy_core::meta::Check;
use accuracy_core::record::{
    Cause, CheckName, Emulated, Fidelity, Finding, FindingKind, Gate, Hop, Metrics, Planned, Record,
    Severity, Verdict,
};
use accuracy_core::verdict;

pub fn planned(id: &str) -> Planned {
    Planned {
        id: id.into(),
        package: "kernels".into(),
        test: "t".into(),
        file: "kernels/src/fp8.rs".into(),
        line: 42,
        check: Check::FullChain,
        arch: "host".into(),
        dtype: None,
        path: None,
        params: Default::default(),
        weights: Default::default(),
        fuzz: None,
    }
}

/// A correct case with this cosine.
pub fn record(id: &str, cos: f64) -> Record {
    let mut record = planned(id).without_result(Verdict::Correct, "");
    record.gate = Gate::Pass;
    record.metrics = Metrics {
        cos: Some(cos),
        cos_row_min: Some(cos - 1e-6),
        gain: Some(1.0002),
        rel_l2: Some(1.7e-3),
        chain_rel_l2: Some(3.71e-2),
        noise_rel_l2: Some(3.69e-2),
        guards_intact: Some(true),
        repeat_bitwise: Some(true),
        ..Metrics::default()
    };
    record
}

/// The same with all that a judged case has: a hop, a check, a margin.
pub fn judged(id: &str, cos: f64) -> Record {
    let mut record = record(id, cos);
    record.margin = Some(cos - record.threshold);
    record.hops = vec![Hop { name: "y".into(), cos: Some(cos), ..Hop::default() }];
    record.checks = vec![verdict::at_least(CheckName::Cos, "y", Some(cos), record.threshold)].into();
    record
}

/// A correct case that was emulated, with a finding.
pub fn emulated(id: &str) -> Record {
    let mut record = record(id, 0.9999986);
    record.arch = "gfx950".into();
    record.device = Some("emulated gfx950".into());
    let modelled = ["v_rcp_f32", "v_exp_f32"].map(String::from).into();
    let fidelity = Fidelity { exact: 998_000, modelled, instructions: 1_000_000 };
    record.emulated = Some(Box::new(Emulated { fidelity, output: vec!["printed <by a kernel>".into()] }));
    record.findings = Some(vec![Finding {
        kind: FindingKind::Race,
        kernel: "gemm".into(),
        mnemonic: "ds_read_b32".into(),
        offset: 0x1a4,
        file: Some("gemm.hip".into()),
        line: Some(42),
        severity: Severity::Error,
        block: Some([1, 0, 0]),
        wave: Some(3),
        lane: Some(7),
        buffer: Some("y".into()),
        row: Some(2),
        column: Some(5),
        detail: "two waves of a workgroup, no barrier between".into(),
    }]);
    record
}

/// A case that a scale layout broke.
pub fn failing(id: &str) -> Record {
    let mut record = record(id, 0.1505272);
    record.verdict = Verdict::Catastrophic;
    record.gate = Gate::Fail;
    record.failed_checks = vec!["cos".into(), "gain".into()];
    record.reason = "cos of xq\nand more".into();
    record.causes = vec![Cause {
        cause: "scale_layout".into(),
        detail: "the scales of `xq` were written in row_major order".into(),
        cos: Some(0.9999999),
        ..Cause::default()
    }];
    record
}
