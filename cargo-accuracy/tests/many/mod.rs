//! Folders of records by the thousand, as a run over a whole checkpoint leaves them: what a real record of an FP8 chain
//! holds, in its size, with names and numbers that depend on the case.

use accuracy_core::error_map::ErrorMap;
use accuracy_core::meta::Check;
use accuracy_core::record::{
    Cause, CheckResult, Gate, Hop, Manifest, Metrics, Planned, Power, PowerStatus, Record, SCHEMA, Verdict,
    record_path, write_json, write_record,
};
use accuracy_core::reference::Matrix;
use std::collections::BTreeMap;
use std::path::Path;

/// One case in so many fails.
pub const FAILING: usize = 50;

/// Writes manifest and records of `count` cases; returns their identities.
pub fn write(dir: &Path, count: usize) -> Vec<String> {
    let planned: Vec<Planned> = (0..count).map(planned).collect();
    for (i, case) in planned.iter().enumerate() {
        // What nothing has become of is of the report as well.
        if i % (7 * FAILING) != 6 {
            write_record(&record_path(dir, &case.id, 0), &record(i, case)).unwrap();
        }
    }
    let ids = planned.iter().map(|p| p.id.clone()).collect();
    announce(dir, planned);
    ids
}

/// Writes what a run says of itself before it begins.
pub fn announce(dir: &Path, cases: Vec<Planned>) {
    let run = serde_json::json!({ "schema": SCHEMA, "announced": cases.len() });
    write_json(&dir.join("run.json"), &run).unwrap();
    write_json(&dir.join("manifest.json"), &Manifest { schema: SCHEMA, binary: None, cases }).unwrap();
}

fn planned(i: usize) -> Planned {
    let path = ["primary", "fallback"][i % 2];
    let dtype = ["e4m3fn", "e4m3fnuz", "mxfp4"][i / 2 % 3];
    let shuffle = ["false", "true"][i / 6 % 2];
    let tokens = [1, 33, 128][i / 12 % 3];
    let (layer, expert) = (i / 36 / 256, i / 36 % 256);
    let test = ["fp8_blockscale", "fused_norm", "moe_gate_up"][i % 7 % 3];
    let tensor = format!("model.layers.{layer}.mlp.experts.{expert}.gate_proj");
    Planned {
        id: format!(
            "kernels::fp8::{test}[check=full_chain,arch=gfx950,dtype={dtype},quant={path},shuffle_scale={shuffle},tokens={tokens},w=layers.{layer}.experts.{expert}.gate_proj]"
        ),
        package: "kernels".into(),
        test: test.into(),
        file: "kernels/tests/fp8.rs".into(),
        line: 42,
        check: Check::FullChain,
        arch: "gfx950".into(),
        dtype: Some(dtype.into()),
        path: Some(path.into()),
        params: [("shuffle_scale".to_string(), shuffle.to_string())].into(),
        weights: [("w".to_string(), tensor)].into(),
        fuzz: None,
    }
}

/// A number that depends on the case: not the same digits everywhere.
fn vary(i: usize, k: usize) -> f64 {
    let bits = ((i * 64 + k) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn record(i: usize, planned: &Planned) -> Record {
    if planned.dtype.as_deref() == Some("e4m3fnuz") && i.is_multiple_of(5) {
        return planned.without_result(Verdict::Skipped, "gfx950 does not decode e4m3fnuz");
    }
    let bad = i % FAILING == 3;
    if bad && i % (3 * FAILING) == 3 {
        let reason = "killed by SIGSEGV (segmentation fault) before it left a record\nlaunching gemm_a8w8_blockscale\nMemory access fault by GPU node-2";
        return planned.without_result(Verdict::Crashed, reason);
    }
    let good = 1.0 - 2e-6 * (0.5 + vary(i, 0));
    let cos = if bad { 0.15 + 0.8 * vary(i, 1) } else { good };
    let mut record = planned.without_result(Verdict::Correct, "");
    record.gate = Gate::Pass;
    record.shape = BTreeMap::from([("m".into(), 33), ("n".into(), 2048), ("k".into(), 7168)]);
    record.metrics = Metrics {
        cos: Some(cos),
        cos_row_min: Some(cos - 1e-5 * vary(i, 2)),
        row_min_index: Some(i % 33),
        gain: Some(1.0 + 1e-4 * vary(i, 3)),
        rel_l2: Some(1.7e-3 + 1e-4 * vary(i, 4)),
        noise_cos: Some(0.99931),
        chain_rel_l2: Some(if bad { 1.2 } else { 3.7e-2 + 1e-3 * vary(i, 5) }),
        chain_cos: Some(cos - 7e-4),
        noise_rel_l2: Some(3.7e-2),
        guards_intact: Some(true),
        repeat_bitwise: Some(true),
        ..Metrics::default()
    };
    let hop = |name: &str, kernel: &str, against: &str, cos: f64| Hop {
        name: name.into(),
        kernel: Some(kernel.into()),
        launched: Some(vec![format!("void {kernel}_kernel<128, 128>(float const*, unsigned char*)")]),
        judged_against: against.into(),
        cos: Some(cos),
        cos_row_min: Some(cos - 1e-5),
        row_min_index: Some(i % 33),
        gain: Some(1.0002),
        rel_l2: Some((2.0 * (1.0 - cos)).sqrt()),
        bytes_equal: Some(vary(i, 6)),
        ..Hop::default()
    };
    let quantiser = format!("group_quant_fp8_{}", planned.path.as_deref().unwrap_or_default());
    record.hops = vec![
        Hop { scale_cos: Some(cos), ..hop("xq", &quantiser, "quantizer", cos) },
        hop("y", "gemm_a8w8_blockscale", "given_bytes", good),
    ];
    let check = |k: usize, check: &str, hop: &str, ok: bool, detail: &str| CheckResult {
        check: check.into(),
        hop: hop.into(),
        value: Some(vary(i, k)),
        bound: Some(if ok { 1.0 } else { 0.01 }),
        margin: Some(1.0 - vary(i, k)),
        ok,
        detail: detail.into(),
    };
    let mut checks = Vec::new();
    for (h, hop) in ["xq", "y"].into_iter().enumerate() {
        for (k, name) in NAMES.into_iter().enumerate() {
            let ok = !(bad && h == 0 && k < 3);
            checks.push(check(16 * h + k, name, hop, ok, if k == 1 { "row 17" } else { "" }));
        }
    }
    checks.push(check(40, "chain", "", !bad, ""));
    let mut power = Vec::new();
    for (k, fault) in FAULTS.into_iter().enumerate() {
        for operand in ["xq", "w"] {
            power.push(Power {
                fault: fault.into(),
                operand: operand.into(),
                status: if k % 5 == 4 { PowerStatus::NotApplicable } else { PowerStatus::Seen },
                failed_checks: ["cos", "cos_row_min", "gain", "rel_l2"].map(String::from).to_vec(),
                cos: Some(vary(i, 20 + k)),
                claimed: true,
                detail: String::new(),
            });
        }
    }
    (record.checks, record.power) = (checks.into(), power.into());
    record.margin = Some(cos - 0.999);
    record.seconds = 0.05 + vary(i, 9);
    if bad {
        record.verdict = if cos < 0.9 { Verdict::Catastrophic } else { Verdict::Broken };
        record.gate = Gate::Fail;
        record.failed_checks = ["cos", "cos_row_min", "gain", "chain"].map(String::from).to_vec();
        record.reason = "cos of xq".into();
        record.hops[0].failed_checks = ["cos", "cos_row_min", "gain"].map(String::from).to_vec();
        record.hops[0].worst_rows = vec![(30, Some(0.122)), (9, Some(0.1588))];
        record.hops[0].worst_cols = vec![(83, Some(22.7)), (54, None)];
        record.hops[0].error_map = Some(Box::new(error_map(i, true)));
        record.hops[1].error_map = Some(Box::new(error_map(i, false)));
        record.causes = vec![
            Cause {
                cause: "scale_layout".into(),
                detail: "the scales of `xq` were written in row_major order, and are read in col_major"
                    .into(),
                cos: Some(0.9999986),
                score: Some(1.0),
                operand: Some("xq".into()),
                confident: i % 2 == 1,
                ..Cause::default()
            },
            Cause {
                cause: "gain".into(),
                detail: "every value is 1.02 times too large".into(),
                cos: Some(0.4),
                ..Cause::default()
            },
        ];
    }
    record
}

const NAMES: [&str; 14] = [
    "cos",
    "cos_row_min",
    "gain",
    "zero_rows",
    "nan",
    "inf",
    "rel_l2",
    "elements",
    "scales",
    "codes",
    "unwritten",
    "repeat",
    "accumulation",
    "padding",
];
const FAULTS: [&str; 9] = [
    "scale_layout",
    "scale_neighbour",
    "scale_missing",
    "scale_inverted",
    "fp8_variant",
    "transposed",
    "accumulation",
    "rounding",
    "k_tail_dropped",
];

/// The map of a buffer in which every second group of 128 columns has another's scale, and one value is no number.
fn error_map(i: usize, wrong: bool) -> ErrorMap {
    let (rows, cols) = (33, 2048);
    let reference = Matrix::new(rows, cols, (0..rows * cols).map(|e| vary(e, i) - 0.5).collect());
    let mut out = reference.map(|x| x * (1.0 + 1.5e-3 * (x * 7919.0).sin()));
    if wrong {
        for (at, x) in out.data.iter_mut().enumerate() {
            let (r, c) = (at / cols, at % cols);
            if c / 128 % 2 == 1 {
                *x *= 1.0 + 0.1 * ((r * 7 + c / 128) % 9) as f64;
            }
        }
        out.data[20 * cols + 700] = f64::NAN;
    }
    ErrorMap::new(&reference, &out)
}
