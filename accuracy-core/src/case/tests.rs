//! Declarations against memory: where codes, scales and zero points lie, and what is made of a producer's bytes.

use super::*;
use crate::diagnose::{Evidence, diagnose};
use crate::dtype::{BF16, E2M1, E4M3FN, E8M0, INT4, INT8, NibbleOrder, UINT4};
use crate::judge::{judge_hops, memory_checks, unwritten_checks};
use crate::layout::{DataLayout, ScaleLayout};
use crate::quant::{GlobalScale, Granularity, ScaleRounding};
use crate::weights::{NewTensor, StDtype};

fn setup(poison: u8) -> Setup {
    Setup {
        arch: Arch::Host,
        tokens: 1,
        weights: BTreeMap::new(),
        checkpoint: None,
        prepared: PreparedWeights::default(),
        activations: None,
        seed: 0,
        data: Data::Ordinary,
        drawn: None,
        poison: poison::Poison::of_byte(poison),
        placement: Placement::Banded,
        watch: crate::case::watch::Watch::Nothing,
        runtime: Runtime::Host,
    }
}

impl Case {
    /// Writes what a right producer would, but for the scheme that it follows: its scales, and zeros for padding
    /// where the scheme says so. Returns whether the memory holds all of it.
    fn produce(&mut self, tensor: &Tensor, as_if: &Quant) {
        let buffer = &self.buffers[tensor.id().0];
        let value = eval(buffer.source.as_ref().unwrap(), self);
        let quantized = quantize(&value, as_if, buffer.factor);
        let (rows, cols) = (value.rows, value.cols);
        let (grid_rows, grid_cols) = as_if.granularity.grid(rows, cols);
        let (data, scales) = (buffer.data, buffer.scales.unwrap());
        let codes = Order { map: as_if.data_layout.index_map((rows, cols)), nibbles: as_if.nibbles };
        let len = self.allocations[data].len();
        codes.write(as_if.dtype, self.allocations[data].write(0, len), cols, quantized.codes);
        let len = self.allocations[scales].len();
        let bytes = self.allocations[scales].write(0, len);
        if let Padding::Byte(byte) = as_if.scale_padding {
            bytes.fill(byte);
        }
        let format = as_if.scale_dtype;
        let order = Order::of_scales(as_if, (grid_rows, grid_cols));
        let codes = quantized.scales.iter().map(|&s| format.encode(s, Overflow::Saturate));
        order.write(format, bytes, grid_cols, codes);
    }
}

/// A run of one producer that follows `as_if` where `declared` is declared.
fn produced(shape: [usize; 2], declared: Quant, as_if: Quant, poison: u8) -> Attempt {
    let mut case = Case::new(setup(poison));
    let x = case.input("x", BF16, shape).unwrap();
    let q = case.quantized("q", &x, declared).unwrap();
    case.produce(&q, &as_if);
    case.finish(&q).unwrap()
}

fn failed(attempt: &Attempt) -> Vec<String> {
    judge_hops(attempt, 0.999).iter().flat_map(|h| crate::judge::failed(&h.checks)).collect()
}

#[test]
fn every_scale_layout_is_read_as_it_is_declared_and_its_padding_is_nobodys() {
    // 64 rows and 6 groups: padding in every layout that pads.
    let mx = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil);
    for &layout in ScaleLayout::ALL {
        let scheme = mx.layout(layout);
        let (first, second) =
            (produced([64, 192], scheme, scheme, 0xa5), produced([64, 192], scheme, scheme, 0x5a));
        assert_eq!(failed(&first), [""; 0], "{layout}");
        assert!(unwritten_checks(&first, &second).iter().all(|c| c.ok), "{layout}");
        assert!(first.buffers[1].same_bytes(&second.buffers[1]), "{layout}");
        // Scales that nobody wrote are counted, padding is not.
        let untouched = |poison| {
            let mut case = Case::new(setup(poison));
            let x = case.input("x", BF16, [64, 192]).unwrap();
            let q = case.quantized("q", &x, scheme).unwrap();
            case.finish(&q).unwrap()
        };
        let unwritten = &unwritten_checks(&untouched(0xa5), &untouched(0x5a))[0];
        assert_eq!(unwritten.value, Some((64 * 192 + 64 * 6) as f64), "{layout}");
    }
}

#[test]
fn scales_of_zeros_are_free_and_not_in_the_cosine_of_the_scales() {
    let declared = Quant::group(E4M3FN, 128);
    let with_epsilon = produced([64, 256], declared, declared.amax_floor(1e-3), 0xa5);
    let judged = &judge_hops(&with_epsilon, 0.999)[0];
    assert!(crate::judge::failed(&judged.checks).is_empty(), "{:?}", judged.checks);
    let scales = |a: &Attempt| a.buffers[1].quantized().unwrap().scales;
    assert_ne!(
        scales(&with_epsilon),
        scales(&produced([64, 256], declared, declared, 0xa5)),
        "rows of zeros"
    );
    assert!(judged.hop.scale_cos.unwrap() > 0.9999999, "{:?}", judged.hop.scale_cos);
}

#[test]
fn an_element_that_nobody_wrote_is_told_as_that_and_not_as_a_number() {
    let mut case = Case::new(setup(0xa5));
    let (x, w) = (case.input("x", BF16, [4, 64]).unwrap(), case.input("w", BF16, [8, 64]).unwrap());
    let y = case.output("y", BF16, [4, 8], x.matmul(&w)).unwrap();
    let attempt = case.finish(&y).unwrap();
    let judged = &judge_hops(&attempt, 0.999)[0];
    let elements = judged.checks.iter().find(|c| c.check.name() == "elements").unwrap();
    assert!(!elements.ok && elements.detail.starts_with("first at ["), "{elements:?}");
    assert!(elements.detail.contains("]: not written (poison), expected "), "{}", elements.detail);
}

#[test]
fn a_producer_that_writes_another_scale_layout_is_told_which() {
    let mx = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil);
    let (mut seen, mut named) = (0, 0);
    for &declared in ScaleLayout::ALL {
        for &written in ScaleLayout::ALL {
            // 163 rows, 11 groups; a producer with a larger layout would write out of bounds.
            let grid = (163, 11);
            if declared.check(grid).is_err()
                || written.check(grid).is_err()
                || written.len(grid) > declared.len(grid)
            {
                continue;
            }
            let attempt = produced([163, 352], mx.layout(declared), mx.layout(written), 0xa5);
            let offsets =
                |l: ScaleLayout| (0..163 * 11).map(|i| l.offset(grid, i / 11, i % 11)).collect::<Vec<_>>();
            // Some differ in what they pad alone.
            if offsets(written) == offsets(declared) {
                assert_eq!(failed(&attempt), [""; 0]);
                continue;
            }
            assert!(failed(&attempt).contains(&"scales".to_owned()), "{declared} {written}");
            seen += 1;
            // The search takes its time: each layout is told from one other as the declared and as the written one.
            if ![declared, written].contains(&ScaleLayout::RowMajor) {
                continue;
            }
            let hops = judge_hops(&attempt, 0.999);
            let evidence = Evidence {
                first: (&attempt, &hops),
                second: None,
                probe: None,
                second_probe: None,
                one_sign: None,
                min_cos: 0.999,
            };
            let causes = diagnose(&evidence).causes;
            let cause = causes.first().unwrap_or_else(|| panic!("{declared} {written}"));
            assert_eq!(cause.cause, "scale_layout", "{declared} {written}: {}", cause.told());
            let alike = |l: &&ScaleLayout| offsets(**l) == offsets(written);
            let named_right =
                ScaleLayout::ALL.iter().filter(alike).any(|l| cause.told().contains(&l.to_string()));
            assert!(named_right, "{declared} {written}: {}", cause.told());
            named += 1;
        }
    }
    assert!(seen > 60 && named > 10, "{seen} {named}");
}

#[test]
fn padding_is_judged_where_it_is_declared() {
    let mx = Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle);
    for byte in [0x00, 0x7f] {
        let declared = mx.padding(Padding::Byte(byte));
        assert_eq!(failed(&produced([33, 352], declared, declared, 0xa5)), [""; 0]);
        assert_eq!(failed(&produced([33, 352], declared, mx, 0xa5)), ["padding"]);
        let other = mx.padding(Padding::Byte(byte ^ 0x7f));
        assert_eq!(failed(&produced([33, 352], declared, other, 0xa5)), ["padding"]);
    }
}

#[test]
fn every_data_layout_and_nibble_order_is_read_as_it_is_declared() {
    let mut seen = 0;
    for &layout in DataLayout::ALL {
        for (scheme, nibbles) in [
            (Quant::group(E4M3FN, 32), vec![NibbleOrder::LowFirst]),
            (Quant::group(E2M1, 32), vec![NibbleOrder::LowFirst, NibbleOrder::Awq, NibbleOrder::Halves]),
        ] {
            for nibbles in nibbles {
                let plain = scheme;
                let scheme = scheme.data_layout(layout).nibbles(nibbles);
                let same_bytes = Order::of_data(&scheme, 64, 256)
                    .is_none_or(|o| (0..64 * 256).all(|i| o.index(i / 256, i % 256) == i));
                assert_eq!(
                    failed(&produced([64, 256], scheme, scheme, 0xa5)),
                    [""; 0],
                    "{layout} {nibbles:?}"
                );
                if !same_bytes {
                    let wrong = failed(&produced([64, 256], scheme, plain, 0xa5));
                    assert!(wrong.contains(&"codes".to_owned()), "{layout} {nibbles:?}: {wrong:?}");
                    seen += 1;
                }
            }
        }
    }
    // Row-major is plain twice, and AWQ's order takes back that of interleave8.
    assert_eq!(seen, 4 * DataLayout::ALL.len() - 3);
}

#[test]
fn two_level_scales_are_judged_with_the_factor_that_the_kernel_is_given() {
    for global in [GlobalScale::Multiply, GlobalScale::Divide] {
        let nvfp4 = Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest).two_level(global);
        let scheme = nvfp4.layout(ScaleLayout::Swizzle128x4);
        let attempt = produced([33, 96], scheme, scheme, 0xa5);
        assert_eq!(failed(&attempt), [""; 0]);
        let buffer = &attempt.buffers[1];
        assert!(buffer.factor != 1.0);
        let x = attempt.buffers[0].value();
        assert!(crate::metrics::compare(&x, &buffer.value()).cos.unwrap() > 0.98);
        // A kernel that takes no notice of the factor.
        let one_level = Quant { global_scale: None, ..scheme };
        let mut case = Case::new(setup(0xa5));
        let x = case.input("x", BF16, [33, 96]).unwrap();
        let q = case.quantized("q", &x, scheme).unwrap();
        case.buffers[q.id().0].factor = 1.0;
        case.produce(&q, &one_level);
        case.buffers[q.id().0].factor = buffer.factor;
        assert!(failed(&case.finish(&q).unwrap()).contains(&"scales".to_owned()));
    }
}

#[test]
fn what_the_framework_gives_must_stay() {
    let run = |change: fn(&mut Case, &Tensor)| {
        let mut case = Case::new(setup(0xa5));
        let x = case.input("x", BF16, [8, 32]).unwrap();
        let steps = case.indices("steps", &[3, 1, 2]).unwrap();
        let scheme = Quant::tensor(E4M3FN).static_scale(0.5);
        let q = case.quantized("q", &x, scheme).unwrap();
        let quantized = Quant { static_scale: Some(0.5), ..scheme };
        case.produce(&q, &quantized);
        change(&mut case, &steps);
        let attempt = case.finish(&q).unwrap();
        memory_checks(&attempt)
            .into_iter()
            .filter(|c| !c.ok)
            .map(|c| (c.check.name().to_owned(), c.hop))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(|_, _| ()), []);
    let of = |name: &str| vec![("inputs_unchanged".to_owned(), name.to_owned())];
    let change_index = |case: &mut Case, steps: &Tensor| {
        let at = case.buffers[steps.id().0].data;
        case.allocations[at].write(4, 1)[0] = 7;
    };
    assert_eq!(run(change_index), of("steps"));
    let change_scale = |case: &mut Case, _: &Tensor| {
        let at = case.buffers.last().unwrap().scales.unwrap();
        case.allocations[at].write(0, 1)[0] ^= 1;
    };
    assert_eq!(run(change_scale), of("q"));
}

/// A folder with one file of the given tensors, as a checkpoint.
fn checkpoint(folder: &std::path::Path, config: &str, tensors: &[NewTensor]) -> Checkpoint {
    std::fs::write(folder.join("config.json"), config).unwrap();
    crate::weights::write(&folder.join("model.safetensors"), tensors, &BTreeMap::new()).unwrap();
    Checkpoint::open(folder).unwrap()
}

fn with_weight(checkpoint: &Checkpoint) -> Case {
    let weights = BTreeMap::from([("w".to_owned(), "w".to_owned())]);
    Case::new(Setup { weights, checkpoint: Some(checkpoint.clone()), ..setup(0xa5) })
}

#[test]
fn a_weight_lies_as_awq_and_compressed_tensors_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let (n, k) = (16, 64);
    let values: Vec<f64> = (0..n * k).map(|i| ((i * 37) % 29) as f64 - 9.0).collect();
    let bytes = crate::dtype::F32.encode_bytes(&values, Overflow::Saturate);
    let plain = NewTensor { name: "w.weight".into(), dtype: StDtype::F32, shape: vec![n, k], bytes };
    let checkpoint = checkpoint(folder.path(), "{}", &[plain]);
    let int4 = Quant::group(UINT4, 32).scales(BF16, ScaleRounding::Nearest);
    let awq = {
        let (dtype, layout, nibbles) = (UINT4, ScaleLayout::ColMajor, NibbleOrder::Awq);
        let zero_point = ZeroPoint::PerCell { dtype, layout, nibbles };
        int4.data_layout(DataLayout::ColMajor).nibbles(nibbles).layout(layout).zero_point(zero_point)
    };
    let mut case = with_weight(&checkpoint);
    let w = case.weight("w", awq).unwrap();
    let buffer = &case.buffers[w.id().0];
    let (data, zeros) = (case.contents(Some(buffer.data)), case.contents(buffer.zeros));
    let attempt = case.finish(&w).unwrap();
    let q = attempt.buffers[0].quantized().unwrap();
    assert_eq!(q.zeros.iter().filter(|&&z| z == 0.0).count(), 0);
    let nibble = |bytes: &[u8], word: usize, nibble: usize| {
        u32::from_le_bytes(bytes[4 * word..4 * word + 4].try_into().unwrap()) >> (4 * nibble) & 0xf
    };
    // AutoAWQ packs element [0, 2, 4, 6, 1, 3, 5, 7][i] of eight output features into nibble i.
    for (i, element) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().enumerate() {
        for (word, row) in [(0, element), (1, 8 + element)] {
            for column in 0..k {
                assert_eq!(nibble(&data, column * n / 8 + word, i), q.codes[row * k + column]);
            }
            for group in 0..k / 32 {
                assert_eq!(f64::from(nibble(&zeros, group * n / 8 + word, i)), q.zeros[row * 2 + group]);
            }
        }
    }
    let tiles = ScaleLayout::Tile { rows: 8, groups: 1 };
    let mut case = with_weight(&checkpoint);
    let w = case.weight("w", int4.zero_point(ZeroPoint::per_cell(UINT4, tiles))).unwrap();
    let buffer = &case.buffers[w.id().0];
    let (data, zeros) = (case.contents(Some(buffer.data)), case.contents(buffer.zeros));
    let again = case.finish(&w).unwrap().buffers[0].quantized().unwrap();
    assert_eq!(again, q);
    for row in 0..n {
        for column in 0..k {
            assert_eq!(nibble(&data, row * k / 8 + column / 8, column % 8), q.codes[row * k + column]);
        }
        for group in 0..k / 32 {
            assert_eq!(f64::from(nibble(&zeros, row / 8 * 2 + group, row % 8)), q.zeros[row * 2 + group]);
        }
    }
}

#[test]
fn parts_of_a_weight_have_the_values_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f64> = (0..64 * 96).map(|i| ((i * 53) % 101) as f64 - 50.0).collect();
    let bytes = crate::dtype::F32.encode_bytes(&values, Overflow::Saturate);
    let plain = NewTensor { name: "w.weight".into(), dtype: StDtype::F32, shape: vec![64, 96], bytes };
    let checkpoint = checkpoint(folder.path(), "{}", &[plain]);
    let mut case = with_weight(&checkpoint);
    let part = |form: WeightForm| form.rows(16..48).columns(32..96);
    let a = case.weight("w", part(BF16.into())).unwrap();
    let b = case.weight_named("b", "w", part(Quant::group(INT8, 32).into())).unwrap();
    let error = case.weight_named("c", "w", WeightForm::from(BF16).rows(60..65)).unwrap_err().to_string();
    assert!(error.contains("rows 60..65 of a weight [64, 96]"), "{error}");
    let (a_id, b_id) = (a.id().0, b.id().0);
    let attempt = case.finish(&b).unwrap();
    for (r, c) in [(0, 0), (7, 13), (31, 63)] {
        let expected = values[(r + 16) * 96 + c + 32];
        assert_eq!(attempt.buffers[a_id].value().row(r)[c], expected);
        assert!((attempt.buffers[b_id].value().row(r)[c] - expected).abs() < 0.5);
    }
}

#[test]
fn what_no_kernel_can_be_given_is_refused_by_name() {
    let mut case = Case::new(setup(0xa5));
    let x = case.input("x", BF16, [33, 96]).unwrap();
    for (scheme, expected) in [
        (Quant::group(E4M3FN, 32).data_layout(DataLayout::PRESHUFFLE_16X16), "rows in multiples of 16"),
        (Quant::group(E4M3FN, 32).layout(ScaleLayout::E8m0ShuffleGateUp), "a multiple of 32 rows"),
        (
            Quant::group(E4M3FN, 32).nibbles(NibbleOrder::Awq),
            "nibble order is for 4-bit formats, not for e4m3fn",
        ),
        (Quant::group(UINT4, 32).zero_point(ZeroPoint::Fixed(8)), "zero points are for weights only"),
        (
            Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Floor).max(224.0),
            "max(224) would have no effect",
        ),
        (Quant::group(E4M3FN, 32).static_scale(1.0), "a static scale is one float32 for the tensor"),
        (Quant::group(E2M1, 16).two_level(GlobalScale::Multiply), "two levels need a narrow format"),
    ] {
        let error = case.quantized("q", &x, scheme).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn named(name: &str, dtype: StDtype, shape: &[usize], bytes: Vec<u8>) -> NewTensor {
    NewTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes }
}

/// compressed-tensors int4 `[16, 64]` with two groups, and the group of each column.
fn pack_quantized(folder: &std::path::Path, groups: impl Fn(u32) -> u32) -> Checkpoint {
    let words =
        |count: u32| (0..count).flat_map(|i| (i.wrapping_mul(0x9e37_79b9) ^ 0x5bd1).to_le_bytes()).collect();
    let scales: Vec<f64> = (0..32).map(|i| f64::from(i + 1) / 32.0).collect();
    let shape = [16i64, 64].into_iter().flat_map(i64::to_le_bytes).collect();
    checkpoint(
        folder,
        "{}",
        &[
            named("w.weight_packed", StDtype::I32, &[16, 8], words(128)),
            named("w.weight_shape", StDtype::I64, &[2], shape),
            named("w.weight_scale", StDtype::BF16, &[16, 2], BF16.encode_bytes(&scales, Overflow::Saturate)),
            named("w.weight_zero_point", StDtype::I32, &[2, 2], words(4)),
            named(
                "w.weight_g_idx",
                StDtype::I32,
                &[64],
                (0..64).flat_map(|k| groups(k).to_le_bytes()).collect(),
            ),
        ],
    )
}

#[test]
fn a_stored_int4_weight_keeps_its_codes_scales_and_zero_points_in_any_packing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = pack_quantized(folder.path(), |k| k / 32);
    let stored = checkpoint.linear("w").unwrap();
    let int4 = Quant::group(UINT4, 32).scales(BF16, ScaleRounding::Nearest);
    let (dtype, layout, nibbles) = (UINT4, ScaleLayout::ColMajor, NibbleOrder::Awq);
    let awq = int4
        .data_layout(DataLayout::ColMajor)
        .nibbles(nibbles)
        .layout(layout)
        .zero_point(ZeroPoint::PerCell { dtype, layout, nibbles });
    let plain = int4.zero_point(ZeroPoint::per_cell(UINT4, ScaleLayout::RowMajor));
    for form in [WeightForm::from(awq), WeightForm::from(plain), WeightForm::from(UINT4)] {
        let mut case = with_weight(&checkpoint);
        let w = case.weight("w", form.clone()).unwrap();
        let attempt = case.finish(&w).unwrap();
        let q = attempt.buffers[0].quantized().unwrap();
        assert_eq!((&q.scales, &q.zeros), (&stored.scales, &stored.zero_points), "{form:?}");
        assert_eq!(q.decode().data, stored.values(), "{form:?}");
    }
}

#[test]
#[should_panic(expected = "declared as .scales(F32, ScaleRounding::PowerOfTwo)")]
fn e8m0_scales_that_a_launcher_takes_as_float32_are_told_with_what_to_declare() {
    let mut case = Case::new(setup(0));
    let x = case.input("x", BF16, [4, 64]).unwrap();
    let q = case.quantized("q", &x, Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil)).unwrap();
    let _ = q.scales::<f32>();
}

#[test]
fn a_stored_weight_in_another_format_is_refused_with_what_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = pack_quantized(folder.path(), |k| k / 32);
    let error = with_weight(&checkpoint).weight("w", WeightForm::from(INT8)).unwrap_err().to_string();
    assert!(
        error.contains("stored as uint4, wanted as int8") && error.contains("Quant::channel(INT8)"),
        "{error}"
    );
}

#[test]
fn a_weight_in_act_order_comes_sorted_by_its_groups() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = pack_quantized(folder.path(), |k| k % 2);
    let stored = checkpoint.linear("w").unwrap();
    let order: Vec<usize> = (0..64).step_by(2).chain((1..64).step_by(2)).collect();
    let values = stored.values();
    let places = (0..16).flat_map(|r| order.iter().map(move |c| r * 64 + c));
    let sorted: Vec<f64> = places.map(|at| values[at]).collect();
    assert_ne!(sorted, values);
    let scheme = Quant::group(UINT4, 32).zero_point(ZeroPoint::per_cell(UINT4, ScaleLayout::RowMajor));
    for form in [WeightForm::from(scheme), WeightForm::from(UINT4)] {
        let mut case = with_weight(&checkpoint);
        assert_eq!(case.column_order("w").unwrap(), Some(order.clone()));
        let w = case.weight("w", form.clone()).unwrap();
        let attempt = case.finish(&w).unwrap();
        let q = attempt.buffers[0].quantized().unwrap();
        assert_eq!((&q.scales, &q.zeros), (&stored.scales, &stored.zero_points), "{form:?}");
        assert_eq!(q.decode().data, sorted, "{form:?}");
    }
    // Columns that lie in order need no other.
    let in_order = tempfile::tempdir().unwrap();
    let checkpoint = pack_quantized(in_order.path(), |k| k / 32);
    assert_eq!(with_weight(&checkpoint).column_order("w").unwrap(), None);
}

#[test]
fn groups_of_columns_of_different_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = pack_quantized(folder.path(), |k| u32::from(k % 4 == 0));
    let error = with_weight(&checkpoint).weight("w", WeightForm::from(UINT4)).unwrap_err().to_string();
    assert!(error.contains("different sizes") && error.contains("tensor w of"), "{error}");
}

#[test]
fn a_stored_nvfp4_weight_keeps_both_levels_of_its_scales() {
    let folder = tempfile::tempdir().unwrap();
    let scales: Vec<f64> = (0..8 * 4).map(|i| f64::from(i % 7 + 1) * 8.0).collect();
    let codes = (0..8 * 32).map(|i| (i * 37 % 251) as u8).collect();
    let tensors = [
        named("w.weight", StDtype::U8, &[8, 32], codes),
        named("w.weight_scale", StDtype::F8_E4M3, &[8, 4], E4M3FN.encode_bytes(&scales, Overflow::Saturate)),
        named("w.weight_scale_2", StDtype::F32, &[], 0.01f32.to_le_bytes().to_vec()),
    ];
    let config = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#;
    let checkpoint = checkpoint(folder.path(), config, &tensors);
    let nvfp4 = Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest);
    for (form, stored) in [
        (WeightForm::from(E2M1).layout(ScaleLayout::Swizzle128x4), 0.01f32),
        (WeightForm::from(nvfp4.two_level(GlobalScale::Divide)), 1.0 / 0.01f32),
    ] {
        let mut case = with_weight(&checkpoint);
        let w = case.weight("w", form).unwrap();
        let global = case.contents(case.buffers[w.id().0].global);
        assert_eq!(f32::from_le_bytes(global.try_into().unwrap()), stored);
        let attempt = case.finish(&w).unwrap();
        let q = attempt.buffers[0].quantized().unwrap();
        assert_eq!(q.scales, scales);
        let values = checkpoint.linear("w").unwrap().values();
        assert!(q.decode().data.iter().zip(values).all(|(a, b)| (a - b).abs() <= b.abs() * 1e-7));
        // What the kernel multiplies or divides by is the factor that the framework reckons with.
        let recovered = if stored < 1.0 { f64::from(stored) } else { 1.0 / f64::from(stored) };
        assert_eq!(q.global, recovered);
    }
}

#[test]
fn a_sample_has_the_columns_of_the_whole_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (n, k) = (1152, 256);
    let values: Vec<f64> =
        (0..n * k).map(|i| ((i * 37) % 129) as f64 * (1 + i / k % 5) as f64 - 90.0).collect();
    let bytes = crate::dtype::F32.encode_bytes(&values, Overflow::Saturate);
    let plain = NewTensor { name: "w.weight".into(), dtype: StDtype::F32, shape: vec![n, k], bytes };
    let checkpoint = checkpoint(folder.path(), "{}", &[plain]);
    let int4 = Quant::group(UINT4, 32).scales(BF16, ScaleRounding::Nearest);
    let forms = [
        WeightForm::from(BF16),
        Quant::tensor(E4M3FN).into(),
        Quant::channel(INT8).into(),
        Quant::block(E4M3FN, 128, 128).layout(ScaleLayout::ColMajor).into(),
        Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Ceil).layout(ScaleLayout::Swizzle128x4).into(),
        int4.zero_point(ZeroPoint::PerCell {
            dtype: UINT4,
            layout: ScaleLayout::ColMajor,
            nibbles: NibbleOrder::Awq,
        })
        .data_layout(DataLayout::ColMajor)
        .nibbles(NibbleOrder::Awq)
        .into(),
    ];
    for form in forms {
        let mut case = with_weight(&checkpoint);
        let x = case.input("x", BF16, [5, k as i32]).unwrap();
        let w = case.weight("w", form.clone()).unwrap();
        let y = case.output("y", BF16, [5, n as i32], x.matmul(&w)).unwrap();
        let attempt = case.finish(&y).unwrap();
        assert!(attempt.sample().is_none(), "a small weight is judged whole");
        let error = judge_hops(&attempt, 0.999)[0].hop.reference_error.unwrap();
        assert!(error.holds() && error.samples > 0, "{error:?}");
        let sample = attempt.sample_from(n * k).unwrap();
        let columns = &sample.columns[&y.id()];
        assert_eq!((columns.len(), columns[0], columns[511]), (512, 0, 1151));
        let (whole, part) = (attempt.buffer(w.id()), sample.attempt.buffer(w.id()));
        let value = whole.value();
        let expected: Vec<f64> = columns.iter().flat_map(|&c| value.row(c)).copied().collect();
        assert_eq!(part.value().data, expected, "{form:?}");
        // What lies in memory says the same.
        if let (Some(memory), Some(scheme)) = (&part.memory, part.scheme) {
            let order = Order::of_data(&scheme, 512, k).unwrap();
            let codes = order.read(part.dtype, memory, (512, k));
            assert_eq!(part.dtype.pack(codes), *part.data);
        }
        let product = |attempt: &Attempt| {
            let source = attempt.buffer(y.id()).source.clone().unwrap();
            eval(&source, &crate::judge::Given::new(attempt))
        };
        assert_eq!(*product(&sample.attempt), sample::columns_of(&product(&attempt), columns), "{form:?}");
        assert_eq!(
            sample.attempt.buffer(y.id()).value(),
            sample::columns_of(&attempt.buffer(y.id()).value(), columns)
        );
    }
}

#[test]
fn a_weight_that_is_requantised_in_panels_is_that_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (n, k) = (300, 320);
    let codes =
        (0..n * k).map(|i| (i * 37 % 251) as u8).map(|c| if c & 0x7f == 0x7f { 1 } else { c }).collect();
    let scales: Vec<f64> = (0..3 * 3).map(|i| 0.25 + f64::from(i)).collect();
    let scales = crate::dtype::F32.encode_bytes(&scales, Overflow::Saturate);
    let tensors = [
        named("w.weight", StDtype::F8_E4M3, &[n, k], codes),
        named("w.weight_scale_inv", StDtype::F32, &[3, 3], scales),
    ];
    let config = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#;
    let checkpoint = checkpoint(folder.path(), config, &tensors);
    let values = Matrix::new(n, k, checkpoint.linear("w").unwrap().values());
    let zero_point = ZeroPoint::per_cell(UINT4, ScaleLayout::RowMajor);
    for scheme in [
        Quant::tensor(E4M3FN),
        Quant::channel(INT8),
        Quant::block(E4M3FN, 128, 128),
        Quant::block(E2M1, 3, 5),
        Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even),
        Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest).two_level(GlobalScale::Multiply),
        Quant::group(UINT4, 32).zero_point(zero_point),
        Quant::tensor(UINT4).zero_point(zero_point),
    ] {
        for data in [Data::Ordinary, Data::Probe(input::Probe::Whole)] {
            let weights = BTreeMap::from([("w".to_owned(), "w".to_owned())]);
            let checkpoint = Some(checkpoint.clone());
            let mut case = Case::new(Setup { weights, checkpoint, data, ..setup(0xa5) });
            let w = case.weight("w", scheme).unwrap();
            let attempt = case.finish(&w).unwrap();
            // The stored codes are taken as they are.
            if data == Data::Ordinary && scheme.granularity == Granularity::Block(128, 128) {
                continue;
            }
            let values = input::weight_values(values.clone(), &data);
            let expected = quantize(&values, &scheme, scheme.global_factor(&values));
            let mut codes = scheme.dtype.pack(expected.codes.iter().copied());
            input::inject_specials(scheme.dtype, (n, k), &mut codes, &data);
            let found = attempt.buffers[0].quantized().unwrap();
            assert_eq!(*attempt.buffers[0].data, codes, "{scheme:?} {data:?}");
            assert_eq!((found.scales, found.zeros), (expected.scales, expected.zeros), "{scheme:?} {data:?}");
            assert_eq!(found.global, expected.global);
        }
    }
}

/// A product that passes is judged in float32 blocks; what fails is computed again in float64.
#[test]
fn a_large_product_that_fails_is_judged_in_float64() {
    use crate::reference::stream::Precision;
    let folder = tempfile::tempdir().unwrap();
    let (m, n, k) = (16, 1024, 512);
    let mut rng = input::Rng(5);
    let values: Vec<f64> = (0..n * k).map(|_| rng.normal()).collect();
    let bytes = crate::dtype::F32.encode_bytes(&values, Overflow::Saturate);
    let plain = NewTensor { name: "w.weight".into(), dtype: StDtype::F32, shape: vec![n, k], bytes };
    let checkpoint = checkpoint(folder.path(), "{}", &[plain]);
    // What becomes of the product, and what it is judged in.
    type Wrong = fn(&mut [f64]);
    let right: Wrong = |_| {};
    let one: Wrong = |y| y[5000] = 1.5 * y[5000] + 1.0;
    let gain: Wrong = |y| y.iter_mut().for_each(|y| *y *= 1.02);
    for (wrong, fails, precision) in [
        (right, None, Precision::Single),
        (one, Some("elements"), Precision::Double),
        (gain, Some("gain"), Precision::Double),
    ] {
        let declared = || {
            let mut case = with_weight(&checkpoint);
            let x = case.input("x", BF16, [m, k as i32]).unwrap();
            let w = case.weight("w", Quant::block(E4M3FN, 128, 128)).unwrap();
            let y = case.output("y", BF16, [m, n as i32], x.matmul(&w)).unwrap();
            (case, y)
        };
        let (case, y) = declared();
        let before = case.finish(&y).unwrap();
        let source = before.buffer(y.id()).source.clone().unwrap();
        let mut values = eval(&source, &crate::judge::Given::new(&before)).data.clone();
        wrong(&mut values);
        let (mut case, y) = declared();
        let data = case.buffers[y.id().0].data;
        let bytes = BF16.encode_bytes(&values, Overflow::Saturate);
        case.allocations[data].write(0, bytes.len()).copy_from_slice(&bytes);
        let attempt = case.finish(&y).unwrap();
        let hops = judge_hops(&attempt, 0.999);
        let failed = crate::judge::failed(&hops[0].checks);
        assert!(fails.map_or(failed.is_empty(), |check| failed.contains(&check.to_owned())), "{failed:?}");
        let error = hops[0].hop.reference_error.unwrap();
        assert!(error.holds() && error.stated == precision.error(k), "{error:?}");
    }
}

#[test]
fn an_input_that_is_quantised_already_is_what_its_codes_stand_for() {
    let scheme = Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle);
    let mut case = Case::new(setup(0xa5));
    let x = case.input_quantized("x", scheme, [3, 64]).unwrap();
    let error = case.input_quantized(
        "z",
        scheme.zero_point(ZeroPoint::per_cell(INT4, ScaleLayout::RowMajor)),
        [3, 64],
    );
    assert!(error.is_err());
    let ideal = crate::reference::Evaluation::buffer(&case, x.id());
    assert!(ideal.data.iter().any(|value| *value != 0.0));
    let attempt = case.finish(&x).unwrap();
    let input = &attempt.buffers[0];
    assert_eq!((input.kind, input.quantized().unwrap().decode().data), (Kind::Input, ideal.data.clone()));
}

#[test]
fn what_is_copied_from_behind_one_buffer_to_behind_another_is_damage() {
    let mut case = Case::new(setup(0xa5));
    let [from, to] = ["x", "y"].map(|name| case.allocate(name, 64).unwrap());
    let [source, target] = [from, to].map(|at| case.allocations[at].address());
    // As a kernel does whose loop takes one step too many.
    let (source, target) = (
        std::ptr::with_exposed_provenance::<u8>(source),
        std::ptr::with_exposed_provenance_mut::<u8>(target),
    );
    // SAFETY: both allocations have 64 bytes, and a band of at least 4 bytes behind them.
    unsafe { std::ptr::copy_nonoverlapping(source.add(60), target.add(60), 8) };
    let damage = case.allocations[to].damage();
    assert_eq!((damage.len(), damage[0].offset, damage[0].bytes), (1, 0, 4));
    assert!(case.allocations[from].damage().is_empty());
}
